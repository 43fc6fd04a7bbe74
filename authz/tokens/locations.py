"""
Where tokens are found: headers, query parameters, cookies (RA-10 to RA-20), and how one is taken out again (RA-45).

Text may hold surrogate escapes for bytes that are not UTF-8 (CS-5); percent-decoding gives bytes, kept the same way.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from authz.core.resources import JwtRule

DEFAULT_HEADER = "authorization"
DEFAULT_PREFIX = "Bearer "
DEFAULT_PARAMETER = "access_token"

UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that cannot stand in a header value."""

_TOKEN_CHARACTER = re.compile(r"[A-Za-z0-9\-_.]")
_TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Locations:
    """The locations of one rule in the order of RA-13; duplicates collapsed."""

    headers: tuple[tuple[str, str], ...]
    """Lower-case name and prefix; an empty prefix takes the whole value (RA-14)."""
    parameters: tuple[str, ...]
    cookies: tuple[str, ...]


def locations_of(rule: JwtRule) -> Locations:
    """Return the locations; the defaults only when the rule names none at all (RA-10)."""
    if not (rule.from_headers or rule.from_params or rule.from_cookies):
        return Locations(((DEFAULT_HEADER, DEFAULT_PREFIX),), (DEFAULT_PARAMETER,), ())
    headers = {(location.name.lower(), location.prefix) for location in rule.from_headers}
    return Locations(
        tuple(sorted(headers, key=lambda location: _bytes(location[0] + location[1]))),
        tuple(sorted(set(rule.from_params), key=_bytes)),
        tuple(sorted(set(rule.from_cookies), key=_bytes)),
    )


def token_in_header(value: str, prefix: str) -> str | None:
    """
    Find the token in one occurrence of a header; None: there is none (RA-14 to RA-16).

    The prefix may stand anywhere; everything after it, from the first token character on, is the token.
    """
    if not prefix:
        return value
    start = value.find(prefix)
    if start < 0:
        return None
    behind = start + len(prefix)
    if value[behind : behind + 1] in _TOKEN_CHARACTERS:  # nearly always, and known sooner than by the expression
        return value[behind:]
    match = _TOKEN_CHARACTER.search(value, behind)
    return value[match.start() :] if match else value


def parameters_of(path: str) -> list[tuple[str, str]]:
    """Percent-decoded query parameters in the order of the query; ``+`` is a plus (RA-18)."""
    query = path.partition("?")[2]
    parameters = []
    for parameter in query.removesuffix("&").split("&") if query else ():
        name, _, value = parameter.partition("=")
        parameters.append((percent_decode(name), percent_decode(value)))
    return parameters


def percent_decode(text: str) -> str:
    """Decode ``%xx``; anything else, a lone ``%`` included, stays."""
    if "%" not in text:
        return text
    data = _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), _bytes(text))
    return data.decode("utf-8", "surrogateescape")


def cookie_values(cookie_headers: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Values of the named cookies; the first cookie of a name wins, quotes around a value are removed (RA-19)."""
    wanted = set(names)
    values: dict[str, str] = {}
    for name, value in _cookies(cookie_headers):
        if name in wanted and name not in values:
            is_quoted = len(value) >= 2 and value[0] == value[-1] == '"'
            values[name] = value[1:-1] if is_quoted else value
    return values


def _cookies(cookie_headers: Iterable[str]) -> Iterator[tuple[str, str]]:
    for header in cookie_headers:
        for cookie in header.split(";"):
            name, equals, value = cookie.lstrip(" ").partition("=")
            if equals:
                yield name, value


def path_without(path: str, names: Iterable[str]) -> str | None:
    """
    Remove every occurrence of the parameters and rewrite the whole query as Envoy does (RA-45).

    The query is written from its decoded form, ordered by parameter name, each as ``name=value``.

    Returns:
        The new path, or None when a decoded value cannot stand in a header: such a request is refused.
    """
    removed = set(names)
    kept = [(name, value) for name, value in parameters_of(path) if name not in removed]
    kept.sort(key=lambda parameter: _bytes(parameter[0]))
    query = "&".join(f"{name}={value}" for name, value in kept)
    if UNSENDABLE.search(query):
        return None
    head = path.partition("?")[0]
    return f"{head}?{query}" if kept else head


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte: not from the wire, but never a crash
        return text.encode("utf-8", "surrogatepass")
