"""Why the peer of a rule is not the peer that came, in words: its identity and its address. Nothing here decides."""

from collections.abc import Iterator

from authz.core.attributes import AttributeContext, Unknown
from authz.core.rules import Predicate


def listed(written: tuple[str, ...], actual: str) -> str:
    """Several values in one string, of which ``actual`` is one."""
    for value in written:
        if "," in value and actual in [piece.strip() for piece in value.split(",")]:
            return f"`{value}` is one value with a comma in it: list each by itself"
    return ""


_LOCAL = "cluster.local/"
KEPT_LOCAL = (
    "keeps its `cluster.local`, which stands for the mesh's trust domain only in five parts, with `/sa/` before the "
    "star (AP-29)"
)


def is_unaliased(value: str) -> bool:
    """Whether a principal begins with the pointer to the mesh's trust domain, but is too short to be rewritten."""
    return value.startswith(_LOCAL) and value.endswith("*") and value.count("/") < 4


def principal(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    """A principal in another form, of another trust domain, or a gateway's in place of the caller's."""
    domain, _, rest = actual.partition("/")
    for value in written:
        if value.startswith("spiffe://"):
            return f"`{value}` never matches: write it without `spiffe://`"
        if rest and value.partition("/")[2] == rest:
            return f"only the trust domain differs: `{domain}` is not among the mesh's (`trustDomainAliases`)"
        if value.count("/") != 4 and "*" not in value:
            return f"`{value}` is not of the form `<trust domain>/ns/<namespace>/sa/<service account>`"
        if is_unaliased(value) and rest.startswith(value[len(_LOCAL) : -1]):
            return f"`{value}` {KEPT_LOCAL}"
    return _gateway(actual)


def _gateway(identity: str) -> str:
    """Whether the caller is a gateway, by Istio's own names, so that the one behind it must be known by other means."""
    is_gateway = "gateway" in identity.rpartition("/sa/")[2]
    return "this is a gateway: whoever is behind it is known by a token or by `remoteIpBlocks`" if is_gateway else ""


def namespace(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    """The namespace inside the caller's identity."""
    pieces = actual.split("/")
    own = pieces[pieces.index("ns") + 1] if "ns" in pieces[:-1] else ""
    if not own:
        return "the identity names no namespace"
    behind = _gateway(actual)
    return listed(written, own) or f"the caller's namespace is `{own}`{f'; {behind}' if behind else ''}"


def account(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    """A service account of a namespace other than expected, or a gateway's."""
    name = actual.rpartition("/sa/")[2]
    if name in written:
        return f"`{name}` means the namespace of the policy; write `<namespace>/{name}`"
    return _gateway(actual)


def _mapped(predicate: Predicate, actual: str) -> str:
    short = actual.removeprefix("::ffff:")
    if short != actual and "." in short and predicate.any_of is not None and predicate.any_of.matches((short,)):
        return f"the address is IPv4 in the form of IPv6, which is another one: add `{actual}` or its block"
    return ""


def source_ip(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    """The direct peer where the client was meant (AP-40)."""
    if mapped := _mapped(predicate, actual):
        return mapped
    remote = attributes.source.remote_ip
    if predicate.any_of is not None and not isinstance(remote, Unknown) and predicate.any_of.matches((remote,)):
        return f"this is the direct peer; the client is `{remote}`: use `remoteIpBlocks` (`remote.ip`)"
    if predicate.any_of is not None and any(predicate.any_of.matches((one,)) for one in _forwarded(attributes)):
        return "this is the direct peer; the client of x-forwarded-for is `remoteIpBlocks` (`remote.ip`)"
    return ""


def remote_ip(predicate: Predicate, written: tuple[str, ...], actual: str, attributes: AttributeContext) -> str:
    """An address of the chain other than expected (AP-41, CS-9)."""
    if mapped := _mapped(predicate, actual):
        return mapped
    if predicate.any_of is not None and any(predicate.any_of.matches((one,)) for one in _forwarded(attributes)):
        if not attributes.destination.is_gateway:
            return (
                "an address of x-forwarded-for would match, but a sidecar takes the last one, whatever "
                "`numTrustedProxies` says: ask for the client at the gateway"
            )
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
