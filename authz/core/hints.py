"""
Why a value did not match, in words: what a person who wrote the rule would not see by comparing the two.

Nothing here decides. Where matching is asked again, it is the rule's own predicate that is asked.
"""

from collections.abc import Callable, Iterator

from authz.core.absences import path_of
from authz.core.attributes import AttributeContext, Unknown
from authz.core.catalog import OPERATION_FIELDS
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
    """What alone sets two texts apart, ``differs by a slash at the end``; empty if they differ otherwise."""
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
        if found:
            return f"`{value}` {found}"
    return ""


def _cased(value: str, actual: str) -> str:
    """A wildcard at one end whose fixed part has other letters than the text there."""
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


def _listed(written: tuple[str, ...], actual: str) -> str:
    """Several values in one string."""
    for value in written:
        if "," in value and actual in [piece.strip() for piece in value.split(",")]:
            return f"`{value}` is one value with a comma in it: list each by itself"
    return ""


def _method_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    return _listed(written, actual)


def _principal_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    domain, _, rest = actual.partition("/")
    for value in written:
        if value.startswith("spiffe://"):
            return f"`{value}` never matches: write it without `spiffe://`"
        if rest and value.partition("/")[2] == rest:
            return f"only the trust domain differs: `{domain}` is not among the mesh's (`trustDomainAliases`)"
        if value.count("/") != 4 and "*" not in value:
            return f"`{value}` is not of the form `<trust domain>/ns/<namespace>/sa/<service account>`"
    return ""


def _namespace_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    pieces = actual.split("/")
    namespace = pieces[pieces.index("ns") + 1] if "ns" in pieces[:-1] else ""
    if not namespace:
        return "the identity names no namespace"
    return _listed(written, namespace) or f"the caller's namespace is `{namespace}`"


def _account_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    account = actual.rpartition("/sa/")[2]
    short = next((value for value in written if "/" not in value and value == account), "")
    if short:
        return f"`{short}` means the namespace of the policy; write `<namespace>/{short}`"
    return ""


def _subject_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    token = attributes.authentication.token
    if token is None:
        return ""
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
    for value in written:
        if value in [piece.strip() for piece in actual.split(",")] and "," in actual:
            return "the header is compared whole, commas included"
    return ""


def _mapped(predicate: Predicate, actual: str) -> str:
    short = actual.removeprefix("::ffff:")
    if short != actual and "." in short and predicate.any_of is not None and predicate.any_of.matches((short,)):
        return f"the address is IPv4 in the form of IPv6, which is another one: add `{actual}` or its block"
    return ""


def _source_ip_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    if mapped := _mapped(predicate, actual):
        return mapped
    remote = attributes.source.remote_ip
    if predicate.any_of is not None and not isinstance(remote, Unknown) and predicate.any_of.matches((remote,)):
        return f"this is the direct peer; the client is `{remote}`: use `remoteIpBlocks` (`remote.ip`)"
    if predicate.any_of is not None and any(predicate.any_of.matches((one,)) for one in _forwarded(attributes)):
        return "this is the direct peer; the client of x-forwarded-for is `remoteIpBlocks` (`remote.ip`)"
    return ""


def _remote_ip_text(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    if mapped := _mapped(predicate, actual):
        return mapped
    if predicate.any_of is not None and any(predicate.any_of.matches((one,)) for one in _forwarded(attributes)):
        return (
            "an address of x-forwarded-for would match, but the mesh trusts too few proxies to take it: "
            "see `gatewayTopology.numTrustedProxies`"
        )
    source = attributes.source.ip
    if predicate.any_of is not None and not isinstance(source, Unknown) and predicate.any_of.matches((source,)):
        return f"this is the client; the direct peer is `{source}`: use `ipBlocks` (`source.ip`)"
    return ""


def _forwarded(attributes: AttributeContext) -> Iterator[str]:
    for value in attributes.header("x-forwarded-for"):
        yield from (piece.strip() for piece in value.split(","))


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
    "source.principal": _principal_text,
    "source.namespace": _namespace_text,
    "source.serviceAccount": _account_text,
    "request.auth.principal": _subject_text,
    "source.ip": _source_ip_text,
    "remote.ip": _remote_ip_text,
    "connection.sni": _sni_text,
}
