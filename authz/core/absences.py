"""
A few words for why a predicate finds no value that could match: no identity, no token, no such claim.
"""

from collections.abc import Mapping

from authz.core.attributes import AttributeContext, Json
from authz.core.catalog import Voucher, claim_path
from authz.core.matchers import ascii_lower
from authz.core.rules import Predicate

NEVER = "which never matches: only strings and lists of strings do"
_CLAIMS, _HEADERS = "request.auth.claims[", "request.headers["
_FIXED_CLAIMS = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}
MAX_NAMES = 12
"""The most claims that are named."""


def got(predicate: Predicate, attributes: AttributeContext) -> str:
    """
    Say what is there where ``read`` finds no value that could match; empty where there is nothing to say.

    For a predicate that holds, because it excludes values, as for one that fails.
    """
    key, token = predicate.attribute.key, attributes.authentication.token
    if predicate.attribute.voucher is Voucher.MTLS:
        if attributes.source.is_unproven:
            return "unknown: nobody vouches for the caller's certificate, see docs/other-proxies.md"
        return "" if attributes.source.identities else "got no value: the caller has no mTLS identity"
    if key == "request.headers[authorization]" and token is not None and not attributes.header("authorization"):
        return "got no value: the header of an accepted token is removed unless `forwardOriginalToken`"
    if key.startswith(_HEADERS):
        return _header(key[len(_HEADERS) : -1], attributes)
    if predicate.attribute.voucher is not Voucher.TOKEN:
        return ""
    if token is None:
        return "got no value: the request has no accepted token"
    if key == "request.auth.principal":
        missing = [name for name in ("iss", "sub") if not isinstance(token.claims.get(name), str)]
        names = " and ".join(f"`{name}`" for name in missing)
        return f"got no value: the token has no {names}, so it has no principal" if missing else ""
    return _claim(path_of(key), token.claims)


def _header(name: str, attributes: AttributeContext) -> str:
    """A header that is absent while one is present that differs only in hyphens and underscores."""
    if attributes.http is None or attributes.header(name):
        return ""
    plain = name.replace("_", "-")
    alike = next((known for known in attributes.http.headers if known.replace("_", "-") == plain), "")
    return f"got no value: the request has no header `{name}` but `{alike}`" if alike else ""


def path_of(key: str) -> tuple[str, ...]:
    """The path of the claim that a key asks for; empty for other keys."""
    return claim_path(key) if key.startswith(_CLAIMS) else _FIXED_CLAIMS.get(key, ())


def _claim(path: tuple[str, ...], claims: Mapping[str, Json]) -> str:
    """A claim that is not text, or that is not there (AP-60, AP-61)."""
    value: Json = dict(claims)
    for depth, name in enumerate(path):
        if not isinstance(value, dict):
            inside = "".join(f"[{part}]" for part in path[:depth])
            return f"got no value: the claim {inside} is {_kind(value)}, which has no member `{name}`"
        if name not in value:
            return f"got no value: {_absent(path, depth, value)}"
        value = value[name]
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(item, str) for item in value)):
        return ""
    if isinstance(value, dict):
        members = ", ".join(f"`{name}`" for name in list(value)[:MAX_NAMES]) or "none"
        return f"got {_kind(value)}, {NEVER}; add one of its members in brackets: {members}"
    return f"got {_kind(value)}, {NEVER}"


def _absent(path: tuple[str, ...], depth: int, inside: dict[str, Json]) -> str:
    name = path[depth]
    where = "the token" if depth == 0 else "the claim " + "".join(f"[{part}]" for part in path[:depth])
    if depth == 0 and path == ("aud",):
        return "the token has no aud"
    pieces = name.split(".")
    found: Json = inside
    for piece in pieces:
        found = found.get(piece) if isinstance(found, dict) else None
    if len(pieces) > 1 and found is not None:
        nested = "".join(f"[{part}]" for part in (*path[:depth], *pieces))
        return f"{where} has no claim named `{name}`; a nested one is written `request.auth.claims{nested}`"
    bare = name.strip(" '\"")
    if bare != name and bare in inside:
        return f"{where} has no claim `{name}` but `{bare}`: write it without quotes and blanks"
    alike = next((known for known in inside if ascii_lower(known) == ascii_lower(name)), "")
    if alike:
        return f"{where} has no claim `{name}` but `{alike}`"
    names = ", ".join(f"`{known}`" for known in list(inside)[:MAX_NAMES]) or "none"
    return f"{where} has no claim `{name}`; its claims are {names}"


def _kind(value: Json) -> str:
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list without strings" if value else "an empty list"
    return "an object" if isinstance(value, dict) else "text"
