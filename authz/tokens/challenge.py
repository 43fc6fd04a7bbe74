"""
The ``www-authenticate`` header of a refusal (RA-41).

Unlike Envoy, which copies the path, the value of a parameter that can hold a token is redacted (XA-183), and what
cannot stand in a header's quoted string is percent-encoded. ``x-envoy-original-path`` is never read (SE-50).
"""

import re

from authz.core.attributes import HttpRequest
from authz.tokens.locations import percent_decode

MAX_PATH_BYTES = 256
REDACTED = "redacted"

_UNSAFE = re.compile(rb"[^\x21\x23-\x5b\x5d-\x7e]")


def challenge_for(http: HttpRequest, parameters: frozenset[str]) -> str:
    """
    Write the challenge: printable ASCII only.

    Args:
        parameters: names of the query parameters that are token locations of an applicable rule.
    """
    path = _redacted(http.path, parameters) if parameters and "?" in http.path else http.path
    path = _quoted(path, MAX_PATH_BYTES)
    return f'Bearer realm="{_quoted(http.scheme)}://{_quoted(http.host)}{path}", error="invalid_token"'


def _redacted(path: str, parameters: frozenset[str]) -> str:
    head, _, query = path.partition("?")
    shown = []
    for parameter in query.split("&"):
        name, equals, value = parameter.partition("=")
        shown.append(f"{name}={REDACTED}" if equals and value and percent_decode(name) in parameters else parameter)
    return f"{head}?{'&'.join(shown)}"


def _quoted(text: str, max_bytes: int | None = None) -> str:
    data = text.encode("utf-8", "surrogateescape" if _is_wire(text) else "replace")[:max_bytes]
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], data).decode("ascii")


def _is_wire(text: str) -> bool:
    """Whether every surrogate is the escape of a byte."""
    return all(not "\ud800" <= character <= "\udfff" or "\udc80" <= character <= "\udcff" for character in text)
