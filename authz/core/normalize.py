"""
The changes that Envoy makes to a request before it asks: fragments, path normalisation, header joining, client address.

The service never does this, because it is asked about the path that Envoy forwards (PN-13). Offline commands do,
because their requests are as a client sent them.
"""

import re
from collections.abc import Iterable

from authz.core.networks import parse_address
from authz.core.resources import PathNormalization

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_HEX_PAIR = re.compile("[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED_RAW = {ord(letter): f"%{ord(letter):02X}" for letter in '"<>{}|^`'}
_ENCODED_SLASH = re.compile("%2[fF]")
_ENCODED_BACKSLASH = re.compile("%5[cC]")
_SLASHES = re.compile("/{2,}")

_JOINED = """
accept accept-encoding access-control-request-headers access-control-request-method authorization cache-control
content-type expect grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since origin
pragma referer user-agent via x-client-trace-id x-envoy-decorator-operation x-envoy-external-address
x-envoy-original-path x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id cdn-loop
content-encoding grpc-accept-encoding proxy-status x-envoy-attempt-count x-envoy-downstream-service-cluster
x-envoy-downstream-service-node x-envoy-is-timeout-retry x-envoy-original-host
"""
JOINED_HEADERS = frozenset(_JOINED.split())
"""Headers that Envoy keeps as one entry, joined with a comma when the request is parsed (AP-22)."""


def normalize_path(path: str, mode: PathNormalization) -> str | None:
    """
    Normalise ``:path`` as Envoy does for a mesh setting; None where Envoy answers 400 (PN-10).

    The fragment goes first, under every setting (PN-2); the query string is left byte for byte (PN-3).
    """
    path = path.partition("#")[0]
    if mode is PathNormalization.NONE:
        return path
    portion, question, query = path.partition("?")
    if mode is PathNormalization.DECODE_AND_MERGE_SLASHES:
        portion = _ENCODED_BACKSLASH.sub(r"\\", _ENCODED_SLASH.sub("/", portion))  # one pass each (PN-8)
    normal = _base(portion)
    if normal is None:
        return None
    if mode is not PathNormalization.BASE:
        is_slashes = len(normal) > 1 and not normal.strip("/")
        normal = "//" if is_slashes else _SLASHES.sub("/", normal)  # nothing but slashes becomes `//`, as Envoy (PN-9)
    return normal + question + query


def _base(path: str) -> str | None:
    """PN-5, in its order (0), (a), (b), (c), (d)."""
    if any(letter <= " " or letter >= "\x7f" for letter in path):
        return None
    path = "/".join(
        ".." if segment.startswith("..;") else "." if segment.startswith(".;") else segment
        for segment in path.split("/")
    )
    if "%00" in path:  # after (0), which may have cut it off
        return None
    path = _decode_unreserved(path).replace("\\", "/")
    return _remove_dot_segments(path).translate(_ESCAPED_RAW)


def _decode_unreserved(path: str) -> str:
    """
    Decode unreserved characters once.

    A ``%`` that begins no escape stays, but becomes ``%25`` where decoding would make it begin one: ``%2%61`` is
    ``%252a`` and not ``%2a``, as Envoy's URL library has it.
    """
    decoded: list[str] = []
    loose, position = -3, 0  # place in ``decoded`` of the last `%` that begins no escape
    while position < len(path):
        escape = _ESCAPE.match(path, position)
        if escape is None:
            if path[position] == "%":
                loose = len(decoded)
            decoded.append(path[position])
            position += 1
            continue
        position = escape.end()
        letter = chr(int(escape[1], 16))
        if letter not in _UNRESERVED:
            decoded += escape[0]
            continue
        decoded.append(letter)
        behind = "".join(decoded[loose + 1 :]) if loose >= len(decoded) - 3 else ""
        if len(behind) == 1:
            behind += path[position : position + 1]
        if _HEX_PAIR.fullmatch(behind):
            decoded[loose] = "%25"
    return "".join(decoded)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 5.2.4, never above the root; an empty segment is a segment (PN-5)."""
    if not path.startswith("/"):
        return path
    kept: list[str] = []
    segments = path[1:].split("/")
    for position, segment in enumerate(segments):
        is_last = position == len(segments) - 1
        if segment == ".." and kept:
            kept.pop()
        if segment in (".", ".."):
            if is_last:
                kept.append("")
            continue
        kept.append(segment)
    return "/" + "/".join(kept)


def join_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """
    Headers as a client sent them to headers as Envoy keeps them (AP-22).

    Names are lower-cased, white space around a value is gone, and occurrences of ``JOINED_HEADERS`` are joined with
    a comma, empty ones skipped.
    """
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.lower(), []).append(value.strip(" \t"))
    return {
        name: (",".join(filter(None, values)),) if name in JOINED_HEADERS and len(values) > 1 else tuple(values)
        for name, values in found.items()
    }


def client_address(peer_ip: str, forwarded_for: tuple[str, ...], *, gateway: bool, trusted_proxies: int) -> str:
    """
    Find the client address from ``x-forwarded-for`` as the check server sees it (CS-9). Never the leftmost (CS-10).

    A sidecar takes the last element. A gateway has appended the direct peer itself, so with N trusted proxies it is
    the (N+1)-th element from the right. Where that is missing or not an address, it is the peer.
    """
    if gateway and trusted_proxies == 0:
        return peer_ip
    elements = [element.strip() for value in forwarded_for for element in value.split(",")]
    position = trusted_proxies + 1 if gateway else 1
    if len(elements) < position:
        return peer_ip
    candidate = elements[-position]
    return candidate if parse_address(candidate) is not None else peer_ip
