"""Check over gRPC-Web: the same bytes as over gRPC, in frames of HTTP/1.1."""

import base64
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from authz.service.doors.grpc_web import PATH
from tests.service.doors.opened import asked, opened
from tests.service.doors.test_forms import POLICIES
from tests.service.messages import check_request, peer, response

QUESTION = check_request(
    path="/open", host="shop.example", destination=peer("", labels={"app": "api", "authz/namespace": "shop"})
)
FRAME = b"\x00" + len(QUESTION).to_bytes(4, "big") + QUESTION
CHUNKED = base64.b64encode(FRAME[:10]) + base64.b64encode(FRAME[10:])
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "application/grpc-web": bytes,
    "application/grpc-web+proto": bytes,
    "application/grpc-web-text": base64.b64encode,
    "application/grpc-web-text+proto; charset=utf-8": base64.b64encode,
}


def frames(answer: httpx.Response) -> tuple[bytes, str]:
    """The message, empty where there is none, and the trailers."""
    body = answer.content
    if "-text" in answer.headers["content-type"]:
        body = base64.b64decode(body)
    message = b""
    while body:
        flags, length = body[0], int.from_bytes(body[1:5], "big")
        data, body = body[5 : 5 + length], body[5 + length :]
        if flags == 0x80:
            return message, data.decode()
        message = data
    raise AssertionError("there were no trailers")


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("path", "code"), [("/open", 0), ("/shut", 7)])
async def test_a_check_is_answered_as_over_grpc(kind: str, path: str, code: int, tmp_path: Path) -> None:
    question = QUESTION.replace(b"/open", path.encode())
    framed = b"\x00" + len(question).to_bytes(4, "big") + question
    async with asked(POLICIES, tmp_path, "grpc-web") as door:
        headers = {"content-type": kind, "x-authz-remote-ip": "192.0.2.7"}
        answer = await door.client.post(PATH, content=KINDS[kind](framed), headers=headers)
        source = door.records.entries[0].attributes.source
    message, trailers = frames(answer)
    assert (answer.status_code, trailers) == (200, "grpc-status: 0\r\n")
    assert response(message).status.code == code
    assert source.remote_ip == "192.0.2.7"
    assert answer.headers["content-type"] == f"{kind.partition('+')[0].partition(';')[0]}+proto"


async def test_text_may_come_in_parts_of_base64(tmp_path: Path) -> None:
    async with asked(POLICIES, tmp_path, "grpc-web") as door:
        answer = await door.client.post(PATH, content=CHUNKED, headers={"content-type": "application/grpc-web-text"})
    assert response(frames(answer)[0]).status.code == 0


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status"),
    [
        ("POST", PATH, "application/grpc-web", b"", "3"),
        ("POST", PATH, "application/grpc-web", FRAME[:-1], "3"),
        ("POST", PATH, "application/grpc-web", FRAME + b"x", "3"),
        ("POST", PATH, "application/grpc-web", b"\x01" + FRAME[1:], "3"),
        ("POST", PATH, "application/grpc-web-text", b"!!!!", "3"),
        ("POST", PATH, "application/grpc-web-text", b"abc", "3"),
        ("POST", PATH, "application/grpc-web-text", b"+AxQ==BAQB==", "3"),
        ("POST", PATH, "application/grpc-web-text", b"====", "3"),
        ("POST", PATH, "application/grpc-web", bytes(3 << 20), "3"),
        ("POST", "/other.Service/Check", "application/grpc-web", FRAME, "12"),
        ("GET", PATH, "application/grpc-web", FRAME, "12"),
    ],
)
async def test_what_is_no_question_gets_a_status_and_no_message(
    method: str, path: str, kind: str, body: bytes, status: str, tmp_path: Path
) -> None:
    async with asked(POLICIES, tmp_path, "grpc-web") as door:
        answer = await door.client.request(method, path, content=body, headers={"content-type": kind})
        assert door.records.entries == []
    message, trailers = frames(answer)
    assert (message, trailers.partition("\r\n")[0]) == (b"", f"grpc-status: {status}")


@pytest.mark.parametrize("kind", ["", "application/grpc", "application/json", "application/x-www-form-urlencoded"])
async def test_another_protocol_is_not_answered(kind: str, tmp_path: Path) -> None:
    async with asked(POLICIES, tmp_path, "grpc-web") as door:
        answer = await door.client.post(PATH, content=FRAME, headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.slow
async def test_bytes_that_are_no_request_are_denied_over_a_real_port_too(tmp_path: Path) -> None:
    async with opened(POLICIES, tmp_path, "grpc-web", listen="127.0.0.1:0") as door:
        body = b"\x00\x00\x00\x00\x03\xff\xff\xff"
        answer = await door.client.post(PATH, content=body, headers={"content-type": "application/grpc-web"})
    assert response(frames(answer)[0]).status.code == 13
