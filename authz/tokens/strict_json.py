"""
JSON and base64url as strictly as a security decision needs them (RA-21, RA-23).

Envoy's decoders skip white space and accept padding; ours refuse both, as RA-21 permits.
Nothing here knows of tokens: bytes or text in, values out, ValueError with the reason otherwise.
"""

import base64
import binascii
import json
import math
import re
from typing import NoReturn

from authz.core.attributes import Json

MAX_DEPTH = 100
"""Nesting that is still read: the bound of protobuf's JSON reader, which Envoy uses."""
MAX_EXACT_INTEGER = 2**53
"""Integers beyond lose precision, as in a double (section 10)."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_base64url(text: str) -> bytes:
    """
    Decode unpadded base64url.

    Raises ValueError for padding, white space, other characters, an impossible length, and for bits behind the last
    byte that are not zero: one value then has one spelling.
    """
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("not unpadded base64url")
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if write_base64url(value) != text:
        raise ValueError("not canonical base64url")
    return value


def write_base64url(value: bytes) -> str:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def read_object(data: bytes | str) -> dict[str, Json]:
    """
    Read one JSON object.

    Raises ValueError for bytes that are not UTF-8, any other top-level value, a repeated member name at any depth,
    numbers beyond double range, ``NaN`` and ``Infinity``, lone surrogates and nesting deeper than ``MAX_DEPTH``.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth_of(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value: Json = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _depth_of(text: str) -> int:
    """Deepest nesting of brackets outside strings; the text need not be valid JSON."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped = character == "\\"
            in_string = character != '"'
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _read_members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member name")
    return members


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number beyond double range")
    return value


def _read_int(text: str) -> int | float:
    if len(text) < 16:
        return int(text)
    value = _read_float(text)
    return exact if abs(exact := int(text)) <= MAX_EXACT_INTEGER else value


def _read_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_members, parse_float=_read_float, parse_int=_read_int, parse_constant=_read_constant
)
