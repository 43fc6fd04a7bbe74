"""
Why a value did not match, in words: what the author of the rule would not see by comparing the two.

Nothing here decides. Where matching is asked again, it is the rule's own predicate that is asked.
"""

import ipaddress
import re
from collections.abc import Callable

from authz.core import peer_hints
from authz.core.absences import path_of
from authz.core.attributes import AttributeContext
from authz.core.catalog import CONDITION_KEYS, OPERATION_FIELDS
from authz.core.matchers import ascii_lower
from authz.core.rules import Predicate

_HEADERS = "request.headers["
_SPLIT = ("scope", "permission")


def hint(predicate: Predicate, actual: tuple[str, ...] | None, attributes: AttributeContext) -> str:
    """Say what sets the values apart, for a predicate that failed; empty where they are simply different."""
    if predicate.any_of is None or not actual or predicate.holds(attributes):
        return ""
    written = predicate.any_of.written
    for find in (_by_key(predicate.attribute.key), _alike):
        for one in actual:
            found = find(predicate, written, one, attributes) if find is not None else ""
            if found:
                return found
    return ""


_Find = Callable[[Predicate, tuple[str, ...], str, AttributeContext], str]


def _by_key(key: str) -> _Find | None:
    if key.startswith(_HEADERS):
        return _header
    if path_of(key):
        return _claim_text
    return _FINDERS.get(key)


def difference(expected: str, actual: str) -> str:
    """Name the only thing that sets two texts apart, ``differs by a slash at the end``; empty if there is more."""
    if expected == actual:
        return ""
    if expected.rstrip("/") == actual.rstrip("/"):
        return "differs by a slash at the end"
    if expected.lstrip("/") == actual.lstrip("/"):
        return "differs by a slash at the beginning"
    if expected.strip() == actual.strip():
        return "differs by blanks"
    if expected.strip("'\"") == actual.strip("'\""):
        return "differs by quotes"
    if ascii_lower(expected) == ascii_lower(actual):
        return "differs by upper and lower case"
    if _without_scheme(expected) == _without_scheme(actual):
        return "differs by the scheme"
    if expected.rstrip(".") == actual.rstrip("."):
        return "differs by a dot at the end"
    return ""


def _without_scheme(text: str) -> str:
    return text.partition("://")[2].rstrip("/") if "://" in text else text.rstrip("/")


def _alike(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    for value in written:
        found = difference(value, actual) or _cased(value, actual) or _star(value, actual) or _regular(value)
        found = found or (VERBATIM if is_reference(value) else "")
        if found:
            return f"`{value}` {found}"
    return ""


def _cased(value: str, actual: str) -> str:
    """A wildcard at one end whose fixed part differs from the text there only in case."""
    fixed, lower = ascii_lower(value), ascii_lower(actual)
    is_met = (len(value) > 1 and fixed[-1] == "*" and lower.startswith(fixed[:-1])) or (
        len(value) > 1 and fixed[0] == "*" and lower.endswith(fixed[1:])
    )
    return "differs by upper and lower case" if is_met else ""


NO_EXPRESSIONS = "is compared as it stands: there are no regular expressions"
_REGULAR = (".+", "\\d", "\\w", "\\.", "[a-z", "[A-Z", "[0-9", "(?")


def is_expression(value: str) -> bool:
    """Whether a regular expression seems to be meant, of which there are none (AP-20)."""
    return any(sign in value for sign in _REGULAR) or (len(value) > 1 and (value[0] == "^" or value[-1] == "$"))


def _regular(value: str) -> str:
    return NO_EXPRESSIONS if ".*" in value or is_expression(value) else ""


VERBATIM = "is compared as it stands: a value refers to nothing"
_REFERENCE = re.compile(r"request\.(?:headers|auth\.claims)\[.*|%[A-Z_]+\(.*\)%")


def is_reference(value: str) -> bool:
    """Whether another attribute of the request seems to be meant, which no value can name (AP-20)."""
    return value in CONDITION_KEYS or bool(_REFERENCE.fullmatch(value))


def _star(value: str, actual: str) -> str:
    """A star that is an ordinary character where a glob was meant (AP-20)."""
    inner = value[1:] if value.startswith("*") else value[:-1]
    if "*" not in inner:
        return ""
    position = 0
    pieces = value.split("*")
    for piece in pieces:
        at = actual.find(piece, position)
        if at < 0:
            return ""
        position = at + len(piece)
    return "has a star that is an ordinary character: it is a wildcard only at one end"


def _path_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    for value in written:
        if "*" not in value and value != "/" and actual.startswith(value.rstrip("/") + "/") and actual != value + "/":
            return f"`{value}` is matched whole: what lies below is `{value.rstrip('/')}/*`"
        if value.endswith("/*") and actual == value[:-2]:
            return f"`{value}` begins with a slash more than `{actual}`: list both"
        if value.endswith("/{**}") and actual == value[:-5]:
            return f"`{value}` does not match `{actual}` itself: list both"
    if predicate.any_of is not None and actual.endswith("/") and predicate.any_of.matches((actual.rstrip("/"),)):
        return f"`{actual}` has a slash at its end, which makes it another path"
    squeezed = _squeezed(actual)
    if squeezed != actual and predicate.any_of is not None and predicate.any_of.matches((squeezed,)):
        return "the path has doubled slashes, which the mesh's path normalisation keeps: see MERGE_SLASHES"
    plain = "/".join(segment.partition(";")[0] for segment in actual.split("/"))
    if plain != actual and predicate.any_of is not None and predicate.any_of.matches((plain,)):
        return "what follows a semicolon is part of the path, which nothing takes away"
    if "%2f" in ascii_lower(actual):
        return "the path has an encoded slash, which only DECODE_AND_MERGE_SLASHES decodes"
    return ""


def _squeezed(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path


def _host_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    name, _, port = actual.rpartition(":")
    for value in written:
        if "://" in value or "/" in value:
            return f"`{value}` is an address: a host has neither scheme nor slash"
    if predicate.any_of is None:
        return ""
    if name and port.isdigit() and predicate.any_of.matches((name,)):
        return f"the host has a port: add `{name}:*`"
    if actual.endswith(".") and predicate.any_of.matches((actual[:-1],)):
        return "the host has a dot at its end, which makes it another host"
    for value in written:
        if value.startswith("*.") and ascii_lower(value[2:]) == ascii_lower(actual):
            return f"`{value}` matches only names below it: add `{value[2:]}`"
        if ascii_lower(actual).startswith(ascii_lower(value) + ".") and "*" not in value:
            return f"the host is compared whole: `{value}` is not its long name"
    return ""


def _port_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    return "a port is the workload's own (a Service's targetPort), never the Service's port"


def _method_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    return peer_hints.listed(written, actual)


def _subject_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    token = attributes.authentication.token
    if token is None:
        return ""
    if not token.issuer or not token.subject:
        empty = "`iss`" if not token.issuer else "`sub`"
        return f"the {empty} of the token is empty, and a star asks for at least one character"
    for value in written:
        issuer, _, subject = value.rpartition("/")
        if value == token.issuer or value == token.issuer + "/":
            return f"`{value}` names only the issuer: any subject of it is `{token.issuer}/*`"
        if subject in ("*", token.subject) and issuer not in ("", "*") and (apart := difference(issuer, token.issuer)):
            return f"the issuer of `{value}` {apart}"
        if value == "*/*":
            return "`*/*` is any issuer with the subject `*`: any principal is `*`"
    if "/" in token.subject:
        return "a subject with a slash is matched only by `<issuer>/*` or by a condition on the claim `sub`"
    return ""


def _claim_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    path = path_of(predicate.attribute.key)
    for value in written:
        if len(path) == 1 and path[0] in _SPLIT and " " in value:
            return f"`{path[0]}` is split at its spaces: list the parts of `{value}`"
        if " " in actual and value in actual.split(" "):
            return f"the claim is one text: name `{path[-1]}` in `spaceDelimitedClaims` to have it split"
        if "," in actual and value in [piece.strip() for piece in actual.split(",")]:
            return "the claim is one text with commas, which nothing splits"
        if path == ("aud",) and difference(value, actual):
            return f"`{value}` {difference(value, actual)}: unlike `audiences`, this condition compares it verbatim"
    return ""


def _header(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    pieces = [piece.strip() for piece in actual.split(",")]
    bare = [piece.strip(" []'\"") for piece in pieces]
    for value in written:
        if value in pieces and "," in actual:
            return "the header is compared whole, commas included"
        if value in bare and value != actual:
            return "the header is compared whole, with its brackets, quotes and commas"
        if _is_inside(actual, value):
            return f"a header is compared as text, not as an address: for `{value}` use `remoteIpBlocks`"
    return ""


def is_block(value: str) -> bool:
    """Whether a text looks like a block of addresses, ``10.0.0.0/8``."""
    try:
        return "/" in value and bool(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return False


def _is_inside(address: str, block: str) -> bool:
    """Whether an address lies in what looks like a block of addresses."""
    try:
        return is_block(block) and ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def _sni_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    if not actual:
        return "the connection has no server name: it is plaintext, or its client sent none"
    upper = next((value for value in written if value != ascii_lower(value)), "")
    return f"server names are compared in lower case: `{upper}` never matches" if upper else ""


_FINDERS: dict[str, _Find] = {
    OPERATION_FIELDS["paths"].key: _path_text,
    OPERATION_FIELDS["hosts"].key: _host_text,
    OPERATION_FIELDS["methods"].key: _method_text,
    "destination.port": _port_text,
    "source.principal": peer_hints.principal,
    "source.namespace": peer_hints.namespace,
    "source.serviceAccount": peer_hints.account,
    "request.auth.principal": _subject_text,
    "source.ip": peer_hints.source_ip,
    "remote.ip": peer_hints.remote_ip,
    "connection.sni": _sni_text,
}
