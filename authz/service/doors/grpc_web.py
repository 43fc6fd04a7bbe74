"""
gRPC-Web, binary and text: the CheckRequest of gRPC in the body of an HTTP/1.1 request, and the status in a last frame.
"""

import base64
import binascii
import re
import struct

from authz.service.ports.grpc_health import AUTHORIZATION

PATH = f"/{AUTHORIZATION}/Check"
_BINARY, _TEXT = "application/grpc-web", "application/grpc-web-text"
_TRAILERS = 0x80
_PARTS = re.compile(rb"[^=]+={0,2}|=+")
"""What has padding of its own, or none; signs of padding without text before them are no part that can be decoded."""
OK, INVALID_ARGUMENT, UNIMPLEMENTED, UNAUTHENTICATED = 0, 3, 12, 16


class NotGrpcWeb(ValueError):
    """A body that is not a single message; the text says why."""


def is_text(content_type: str) -> bool | None:
    """Whether a content type is that of gRPC-Web as text; False for binary, None for another protocol."""
    kind = content_type.partition(";")[0].strip().lower().removesuffix("+proto")
    return {_TEXT: True, _BINARY: False}.get(kind)


def read_message(body: bytes, *, text: bool) -> bytes:
    """The one message of a body. Raises NotGrpcWeb."""
    if text:
        body = _decode(body)
    if len(body) < 5:
        raise NotGrpcWeb("the body has no frame")
    flags, length = struct.unpack_from(">BI", body)
    if flags:
        raise NotGrpcWeb("the frame is compressed or is no message")
    if len(body) != 5 + length:
        raise NotGrpcWeb("the body is not one frame")
    return body[5:]


def _decode(body: bytes) -> bytes:
    """Base64, of which each part may have its own padding."""
    parts = _PARTS.findall(body.translate(None, b"\r\n"))
    if any(len(part) % 4 for part in parts):
        raise NotGrpcWeb("the body is not base64")
    try:
        return b"".join(base64.b64decode(part, validate=True) for part in parts)
    except binascii.Error:
        raise NotGrpcWeb("the body is not base64") from None


def write_answer(message: bytes | None, status: int, reason: str = "", *, text: bool) -> bytes:
    """The body of an answer: the message, if there is one, and the status."""
    trailers = f"grpc-status: {status}\r\n" + (f"grpc-message: {reason}\r\n" if reason else "")
    body = _frame(_TRAILERS, trailers.encode())
    if message is not None:
        body = _frame(0, message) + body
    return base64.b64encode(body) if text else body


def content_type(*, text: bool) -> str:
    """The content type of an answer."""
    return f"{_TEXT if text else _BINARY}+proto"


def _frame(flags: int, data: bytes) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data
