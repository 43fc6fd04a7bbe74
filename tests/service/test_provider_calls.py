"""External providers: what they are asked, how their answers are read, and real ones on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from authz._proto import ext_authz_pb2 as pb
from authz.core import resources as r
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION
from authz.service.provider_calls import (
    Providers,
    grpc_request,
    http_request_headers,
    is_listed,
    read_grpc_answer,
    read_http_answer,
    service_address,
)
from tests.service.messages import check_request, response, told
from tests.service.test_check_function import ALLOW_OPEN, CUSTOM, NOW, function


def provider(**changes: Any) -> r.ExtensionProvider:
    return r.ExtensionProvider(**{"name": "ext", "service": "127.0.0.1", "port": 9000, "timeout_seconds": 5, **changes})


def pending(of: r.ExtensionProvider, message: bytes | None = None) -> Pending:
    mesh = r.MeshConfig(extension_providers=(of,))
    asked = function(ALLOW_OPEN, CUSTOM, mesh=mesh).check(message or check_request(path="/open"), (), NOW)
    assert isinstance(asked, Pending)
    return asked


@pytest.mark.parametrize(
    ("service", "expected"),
    [("ext.shop.svc", "ext.shop.svc:9000"), ("shop/ext.shop.svc", "ext.shop.svc:9000"), ("fd00::1", "[fd00::1]:9000")],
)
def test_the_address_is_that_of_the_service(service: str, expected: str) -> None:
    assert service_address(provider(service=service)) == expected


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("x-a", ("x-a",), True),
        ("x-a", ("X-A",), True),
        ("x-abc", ("x-a*",), True),
        ("x-abc", ("*-abc",), True),
        ("x-abc", ("x-a",), False),
        ("x-abc", (), False),
    ],
)
def test_header_lists(name: str, patterns: tuple[str, ...], expected: bool) -> None:
    assert is_listed(name, patterns) is expected


def question_of(asked: Pending) -> ProviderQuestion:
    assert isinstance(asked.question, ProviderQuestion)
    return asked.question


# --- what is asked -----------------------------------------------------------------------------------------------


def test_a_grpc_provider_sees_an_ordinary_check_request() -> None:
    message = check_request(path="/open", headers=[("x-a", "1"), ("x-a", "2"), ("x-b", b"\xffb")], sni="s")
    asked = pending(provider(), message)
    request = pb.CheckRequest.FromString(grpc_request(question_of(asked), message)).attributes
    assert dict(request.request.http.headers) == {
        ":authority": "api.example.com",
        ":path": "/open",
        ":method": "GET",
        ":scheme": "http",
        "x-a": "1,2",
        "x-b": "!b",
    }
    assert not request.request.http.HasField("header_map")
    assert dict(pb.Peer.FromString(request.destination).labels) == {"app": "api"}
    assert request.tls_session.sni == "s"


def with_body(body: bytes) -> bytes:
    message = pb.CheckRequest.FromString(check_request(path="/open"))
    message.attributes.request.http.raw_body = body
    message.attributes.request.http.size = len(body)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("changes", "body", "raw_body"),
    [
        ({}, "", b""),
        ({"max_request_bytes": 10}, "abcé", b""),
        ({"max_request_bytes": 10, "pack_as_bytes": True}, "", "abcé".encode()),
        ({"max_request_bytes": 2, "allow_partial_message": True}, "ab", b""),
        ({"max_request_bytes": 4, "allow_partial_message": True}, "abc!", b""),
    ],
)
def test_a_body_is_passed_on_only_where_it_was_asked_for(changes: dict[str, Any], body: str, raw_body: bytes) -> None:
    message = with_body("abcé".encode())
    asked = pending(provider(**changes), message)
    http = pb.CheckRequest.FromString(grpc_request(question_of(asked), message)).attributes.request.http
    assert (http.body, http.raw_body) == (body, raw_body)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_body_beyond_the_limit_is_413_whatever_fail_open_says(protocol: str, fail_open: bool) -> None:
    asked = pending(provider(protocol=protocol, max_request_bytes=2, fail_open=fail_open), with_body(b"abc"))
    refused = response(asked.resume(await Providers().ask(asked), NOW))
    assert refused.denied_response.status.code == 413


def test_an_http_provider_gets_the_headers_that_are_listed() -> None:
    of = provider(
        protocol="http",
        include_request_headers_in_check=("x-a", "x-p*"),
        include_additional_headers_in_check={"X-Added": "yes", "x-a": "ours"},
    )
    message = check_request(
        path="/open",
        headers=[("x-a", "1"), ("x-p1", "2"), ("x-p1", "3"), ("x-other", "4"), ("authorization", "Bearer t")],
    )
    http = question_of(pending(of, message)).attributes.http
    assert http is not None
    assert http_request_headers(of, http) == [
        ("host", "api.example.com"),
        ("x-p1", "2"),
        ("x-p1", "3"),
        ("authorization", "Bearer t"),
        ("x-added", "yes"),
        ("x-a", "ours"),
    ]


# --- how answers are read ----------------------------------------------------------------------------------------


def answer(**fields: Any) -> bytes:
    return pb.CheckResponse(**fields).SerializeToString()


def option(name: str, value: str, append: bool | None = None) -> pb.HeaderValueOption:
    told_append = None if append is None else pb.BoolValue(value=append)
    return pb.HeaderValueOption(header=pb.HeaderValue(key=name, value=value), append=told_append)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", ProviderAnswer(True)),
        (answer(status=pb.Status(code=7)), ProviderAnswer(False, 403)),
        (answer(status=pb.Status(code=7), ok_response=pb.OkHttpResponse()), ProviderAnswer(False, 403)),
        (answer(denied_response=pb.DeniedHttpResponse(body="no")), ProviderAnswer(True)),
        (
            answer(
                status=pb.Status(code=16),
                denied_response=pb.DeniedHttpResponse(
                    status=pb.HttpStatus(code=401),
                    body="who?",
                    headers=[option("X-A", "1"), option("x-b", "2", append=True)],
                ),
            ),
            ProviderAnswer(False, 401, "who?", (("x-a", "1"),)),
        ),
        (
            answer(
                status=pb.Status(code=0),
                ok_response=pb.OkHttpResponse(
                    headers=[option("X-A", "1"), option("x-b", "2", append=True), option("x-c", "3", append=False)],
                    headers_to_remove=["X-R", "host", ":path"],
                    response_headers_to_add=[option("x-d", "4")],
                ),
            ),
            ProviderAnswer(
                True,
                headers_to_set=(("x-a", "1"), ("x-c", "3")),
                headers_to_append=(("x-b", "2"),),
                headers_to_remove=("x-r",),
                response_headers_to_add=(("x-d", "4"),),
            ),
        ),
        (
            answer(status=pb.Status(code=13), error_response=pb.DeniedHttpResponse()),
            ProviderAnswer(False, error="the provider reports an error of its own"),
        ),
    ],
)
def test_answers_of_grpc_providers(message: bytes, expected: ProviderAnswer) -> None:
    assert read_grpc_answer(message) == expected


HEADERS = [
    ("X-User", "alice"),
    ("X-Team", "a"),
    ("Location", "/login"),
    ("Server", "nginx"),
    ("Content-Length", "2"),
    ("x-envoy-auth-headers-to-remove", "x-r, Host,:path"),
]


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        ({}, 200, ProviderAnswer(True, headers_to_remove=("x-r",))),
        (
            {"headers_to_upstream_on_allow": ("x-u*",), "headers_to_downstream_on_allow": ("*-team",)},
            200,
            ProviderAnswer(
                True,
                headers_to_set=(("x-user", "alice"),),
                headers_to_remove=("x-r",),
                response_headers_to_add=(("x-team", "a"),),
            ),
        ),
        (
            {"headers_to_downstream_on_deny": ("x-team",)},
            302,
            ProviderAnswer(False, 302, "body", (("x-team", "a"), ("location", "/login"))),
        ),
        (
            {"headers_to_downstream_on_deny": ("none",)},
            403,
            ProviderAnswer(False, 403, "body", (("location", "/login"),)),
        ),
        ({}, 500, ProviderAnswer(False, error="the provider answered 500")),
        ({}, 503, ProviderAnswer(False, error="the provider answered 503")),
    ],
)
def test_answers_of_http_providers(changes: dict[str, Any], status: int, expected: ProviderAnswer) -> None:
    assert read_http_answer(provider(protocol="http", **changes), status, HEADERS, "body") == expected


def test_without_a_list_a_refusal_shows_all_headers_but_those_of_the_connection() -> None:
    read = read_http_answer(provider(protocol="http"), 201, [("x-a", "1"), ("Server", "s"), ("Set-Cookie", "c")], "")
    assert (read.allowed, read.status, read.headers) == (False, 201, (("x-a", "1"), ("set-cookie", "c")))


# --- real ones ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def grpc_provider(serve: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    async def check(message: bytes, context: Any) -> bytes:
        return serve(message)

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_provider(answered: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answered)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


async def test_a_grpc_provider_is_asked_over_the_network() -> None:
    heard: list[pb.CheckRequest] = []

    def serve(message: bytes) -> bytes:
        heard.append(pb.CheckRequest.FromString(message))
        return answer(status=pb.Status(code=0), ok_response=pb.OkHttpResponse(headers=[option("x-user", "a")]))

    providers = Providers()
    async with grpc_provider(serve) as port:
        asked = pending(provider(port=port))
        allowed = response(asked.resume(await providers.ask(asked), NOW))
        await providers.close()
    assert allowed.status.code == 0
    assert heard[0].attributes.request.http.path == "/open"
    assert [(o.header.key, o.header.value) for o in allowed.ok_response.headers] == [("x-user", "a")]


async def test_an_http_provider_is_asked_over_the_network() -> None:
    async with http_provider(b"HTTP/1.1 403 No\r\nx-why: because\r\ncontent-length: 2\r\n\r\nno") as (port, heard):
        providers = Providers()
        of = provider(protocol="http", port=port, path_prefix="/check/")
        asked = pending(of, check_request(path="/open?a=%20b", headers=[("x-a", "1")]))
        refused = response(asked.resume(await providers.ask(asked), NOW))
        await providers.close()
    assert heard[0].startswith(b"GET /check/open?a=%20b HTTP/1.1\r\n")
    assert b"host: api.example.com\r\n" in heard[0].lower()
    assert b"x-a" not in heard[0]
    assert (refused.denied_response.status.code, refused.denied_response.body) == (403, "no")
    assert ("x-why", "because") in [(o.header.key, o.header.value) for o in refused.denied_response.headers]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(("fail_open", "status"), [(True, 0), (False, 451)])
async def test_a_dead_provider_is_an_error_to_which_fail_open_applies(
    protocol: str, fail_open: bool, status: int
) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    providers = Providers()
    asked = pending(provider(protocol=protocol, port=port, fail_open=fail_open, status_on_error=451))
    answered = response(asked.resume(await providers.ask(asked), NOW))
    await providers.close()
    assert answered.denied_response.status.code == status
    assert told(answered)["decision"] == ("ALLOW" if fail_open else "DENY")


async def test_a_silent_provider_is_an_error_after_its_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    providers = Providers()
    of = provider(protocol="http", port=server.sockets[0].getsockname()[1], timeout_seconds=0.05)
    told_error = (await providers.ask(pending(of))).error
    await providers.close()
    await gone.wait()
    server.close()
    await server.wait_closed()
    assert told_error == "no answer within 0.05 s"


async def test_an_answer_that_is_no_message_is_an_error() -> None:
    providers = Providers()
    async with grpc_provider(lambda message: b"\xff\xff\xff") as port:
        answered = await providers.ask(pending(provider(port=port)))
        await providers.close()
    assert not answered.allowed
    assert answered.error
