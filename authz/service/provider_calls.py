"""
Asking the external providers of CUSTOM policies, gRPC and HTTP, as Envoy's own ext_authz filter would (AP-77, AP-83).

Here are only questions and answers; what a failure means (``failOpen``, ``statusOnError``) is decided by the core.
A provider sees the request as Envoy sent it, with headers in the form an ordinary ext_authz server expects.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

import grpc
import httpx

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import HttpRequest
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import ExtensionProvider
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION
from authz.wire.check import RESERVED_LABELS

_log = logging.getLogger("authz.providers")

_ALWAYS_TOLD = ("authorization",)
"""Sent to HTTP providers besides method, path and host, whatever the lists say, as Envoy does."""
_ALWAYS_SHOWN = frozenset({"location", "www-authenticate"})
"""Shown to the client on a refusal although a list leaves them out: without them the refusal cannot be acted upon."""
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "date", "host", "keep-alive", "server", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers of the provider's own answer as a message; Envoy writes its own."""
_DIRECT = (("grpc.enable_http_proxy", 0),)
"""Providers are part of the mesh: left to itself, gRPC would go through the environment's proxy."""
_HEADERS_TO_REMOVE = "x-envoy-auth-headers-to-remove"


class Providers:
    """
    Connections to all providers, opened when first asked; ``close`` once.

    ``address_of`` gives ``host:port`` of a provider, for whom the name in the mesh's settings leads nowhere.
    """

    def __init__(self, address_of: "Callable[[ExtensionProvider], str] | None" = None) -> None:
        self._address_of = address_of or service_address
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._http = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=None)  # noqa: S113  # asyncio.timeout bounds the whole exchange, httpx only its parts

    async def ask(self, pending: Pending) -> ProviderAnswer:
        """Ask. Failures are answers with ``error``; raises nothing but cancellation."""
        question = pending.question
        if not isinstance(question, ProviderQuestion):
            return _failed("this is no question to a provider")
        provider = question.provider
        too_large = _check_body(provider, pending.message)
        if too_large is not None:
            return too_large
        try:
            async with asyncio.timeout(provider.timeout_seconds):
                if provider.protocol == "grpc":
                    return await self._ask_grpc(question, pending.message)
                return await self._ask_http(question, pending.message)
        except TimeoutError:
            return _failed(f"no answer within {provider.timeout_seconds:g} s")
        except grpc.aio.AioRpcError as error:
            return _failed(f"gRPC status {error.code().name}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _failed(f"HTTP: {type(error).__name__}")
        except Exception as error:  # a strange answer must not become an acceptance
            _log.error("provider `%s` could not be asked: %s", provider.name, type(error).__name__)
            return _failed(type(error).__name__)

    async def _ask_grpc(self, question: ProviderQuestion, message: bytes) -> ProviderAnswer:
        provider = question.provider
        target = f"dns:///{self._address_of(provider)}"
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = grpc.aio.insecure_channel(target, _DIRECT)
        call = channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)
        told = await call(grpc_request(question, message))
        return read_grpc_answer(told)

    async def _ask_http(self, question: ProviderQuestion, message: bytes) -> ProviderAnswer:
        provider, http = question.provider, question.attributes.http
        if http is None:
            return _failed("an HTTP provider cannot be asked about a TCP connection")
        headers = http_request_headers(provider, http)
        body = _body(provider, message)
        if body:
            headers.append(("content-length", str(len(body))))
        request = httpx.Request(
            http.method,
            httpx.URL(f"http://{self._address_of(provider)}").copy_with(
                raw_path=_wire(provider.path_prefix.rstrip("/") + http.path)
            ),
            headers=[(name.encode(), _wire(value)) for name, value in headers],
            content=body or None,
        )
        response = await self._http.send(request)
        return read_http_answer(provider, response.status_code, response.headers.multi_items(), response.text)

    async def close(self) -> None:
        """Close every connection to a provider."""
        for channel in self._channels.values():
            await channel.close(None)
        await self._http.aclose()


def service_address(provider: ExtensionProvider) -> str:
    """``host:port`` of ``[namespace/]host`` (VA-51); IPv6 in brackets."""
    host = provider.service.rpartition("/")[2]
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{provider.port}"


# --- gRPC --------------------------------------------------------------------------------------------------------


def grpc_request(question: ProviderQuestion, message: bytes) -> bytes:
    """The CheckRequest with merged headers, without our own labels, and with a body only where it was asked for."""
    request = pb.CheckRequest.FromString(message)
    attributes = request.attributes
    peer = pb.Peer.FromString(attributes.destination)
    for name in [name for name in peer.labels if name.startswith(RESERVED_LABELS)]:
        del peer.labels[name]
    attributes.destination = peer.SerializeToString()
    http = question.attributes.http
    if http is not None:
        asked = attributes.request.http
        asked.ClearField("header_map")
        asked.headers.clear()
        for name, values in http.headers.items():
            asked.headers[_printable(name)] = _printable(",".join(values))  # as Envoy merges (XA-42)
        body = _body(question.provider, message)
        asked.ClearField("body")
        asked.ClearField("raw_body")
        if body and question.provider.pack_as_bytes:
            asked.raw_body = body
        elif body:
            asked.body = _printable(body.decode("utf-8", "surrogateescape"))
    return request.SerializeToString()


def read_grpc_answer(message: bytes) -> ProviderAnswer:
    """Only ``status.code`` 0 accepts; ``error_response`` is an error (XA-75 to XA-82, XA-95)."""
    response = pb.CheckResponse.FromString(message)
    if response.status.code != 0:
        if response.HasField("error_response"):
            return _failed("the provider reports an error of its own")
        denied = response.denied_response
        return ProviderAnswer(
            False,
            denied.status.code or 403,
            denied.body,
            tuple(_pairs(option for option in denied.headers if not option.append.value)),  # XA-79
        )
    ok = response.ok_response
    return ProviderAnswer(
        True,
        headers_to_set=tuple(_pairs(option for option in ok.headers if not option.append.value)),
        headers_to_append=tuple(_pairs(option for option in ok.headers if option.append.value)),
        headers_to_remove=tuple(
            name.lower() for name in ok.headers_to_remove if not name.startswith(":") and name.lower() != "host"
        ),
        response_headers_to_add=tuple(_pairs(ok.response_headers_to_add)),
    )


def _pairs(options: Iterable[pb.HeaderValueOption]) -> Iterable[tuple[str, str]]:
    return ((option.header.key.lower(), option.header.value) for option in options)


def _printable(text: str) -> str:
    """Bytes that are not UTF-8 as ``!``, one each, as Envoy shows them (XA-42)."""
    if text.isascii():
        return text
    return "".join("!" if "\udc80" <= letter <= "\udcff" else letter for letter in text)


# --- HTTP --------------------------------------------------------------------------------------------------------


def http_request_headers(provider: ExtensionProvider, http: HttpRequest) -> list[tuple[str, str]]:
    """
    Headers of the question: host, authorization, those listed, and the additional ones, which win over the client's.
    """
    wanted = (*_ALWAYS_TOLD, *provider.include_request_headers_in_check)
    added = {name.lower(): value for name, value in provider.include_additional_headers_in_check.items()}
    headers = [("host", http.host)]
    for name, values in http.headers.items():
        if name.startswith(":") or name in added or name in _OF_THE_CONNECTION:
            continue
        if is_listed(name, wanted):
            headers.extend((name, value) for value in values)
    return [*headers, *added.items()]


def read_http_answer(
    provider: ExtensionProvider, status: int, headers: Iterable[tuple[str, str]], body: str
) -> ProviderAnswer:
    """200 accepts, 5xx is an error, everything else refuses with the provider's own status, body and headers."""
    told = [(name.lower(), value) for name, value in headers]
    if status >= 500:
        return _failed(f"the provider answered {status}")
    if status != 200:
        shown = provider.headers_to_downstream_on_deny
        return ProviderAnswer(
            False,
            status,
            body,
            tuple(
                (name, value)
                for name, value in told
                if name not in _OF_THE_CONNECTION and (not shown or name in _ALWAYS_SHOWN or is_listed(name, shown))
            ),
        )
    to_set: Mapping[str, str] = {n: v for n, v in told if is_listed(n, provider.headers_to_upstream_on_allow)}
    removed = [name.strip().lower() for n, v in told if n == _HEADERS_TO_REMOVE for name in v.split(",")]
    return ProviderAnswer(
        True,
        headers_to_set=tuple(to_set.items()),
        headers_to_remove=tuple(name for name in removed if name and not name.startswith(":") and name != "host"),
        response_headers_to_add=tuple(
            (name, value) for name, value in told if is_listed(name, provider.headers_to_downstream_on_allow)
        ),
    )


def is_listed(name: str, patterns: Iterable[str]) -> bool:
    """Exact, ``prefix*`` and ``*suffix``, ignoring case; a lone ``*`` has made the provider unusable before (VA-55)."""
    for pattern in patterns:
        pattern = pattern.lower()
        if pattern.endswith("*"):
            if name.startswith(pattern[:-1]):
                return True
        elif pattern.startswith("*"):
            if name.endswith(pattern[1:]):
                return True
        elif name == pattern:
            return True
    return False


# --- bodies ------------------------------------------------------------------------------------------------------


def _check_body(provider: ExtensionProvider, message: bytes) -> ProviderAnswer | None:
    """413 "regardless of failOpen" when the body exceeds the provider's limit (AP-83)."""
    if provider.max_request_bytes and not provider.allow_partial_message:
        http = pb.CheckRequest.FromString(message).attributes.request.http
        if max(len(_delivered(http)), http.size) > provider.max_request_bytes:
            return ProviderAnswer(
                False, 413, "Payload Too Large", error="the body exceeds the provider's limit", is_final=True
            )
    return None


def _body(provider: ExtensionProvider, message: bytes) -> bytes:
    if not provider.max_request_bytes:
        return b""
    http = pb.CheckRequest.FromString(message).attributes.request.http
    return _delivered(http)[: provider.max_request_bytes]


def _delivered(http: pb.HttpRequest) -> bytes:
    return http.raw_body or (http.body.encode() if isinstance(http.body, str) else http.body)


def _failed(reason: str) -> ProviderAnswer:
    return ProviderAnswer(False, error=reason)


def _wire(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
