"""
The table of attributes a policy may name: how to read each one, what its values mean, who vouches for it.

Reader, checks, compiler, explanation, analysis and documentation use this one table. ``read`` answers the values of
the attribute, the empty tuple when it is absent, or UNKNOWN when the deployment does not deliver it (CS-7, CS-8).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from authz.core import matchers
from authz.core.attributes import UNKNOWN, AttributeContext, Json, Unknown
from authz.core.matchers import LISTED, SCALAR, Matcher

Values = tuple[str, ...] | Unknown
Read = Callable[[AttributeContext], Values]


class Voucher(StrEnum):
    """Who guarantees that an attribute is true."""

    MTLS = "mTLS"
    TOKEN = "verified token"  # noqa: S105  # a word for people, not a secret
    PROXY = "the proxy"
    CLIENT = "only the client"


@dataclass(frozen=True, slots=True)
class CompileContext:
    """What the meaning of a value may depend on besides itself."""

    policy_namespace: str
    trust_domains: tuple[str, ...]
    """The mesh's trust domain and its aliases, B of AP-27."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. Two attributes with the same key are the same attribute."""

    key: str
    read: Read
    compile: Callable[[tuple[str, ...], CompileContext], Matcher]
    """Written values to a matcher; raises ValueError for an unusable value (AP-73)."""
    voucher: Voucher
    http_only: bool = False
    """Does not exist on TCP (AP-68)."""
    index_values: Read | None = None
    """Values in the form of the matcher's terms; None where that is what ``read`` answers."""
    about: str = ""


# --- reading -----------------------------------------------------------------------------------------------------


def _identities(attributes: AttributeContext) -> Values:
    return attributes.source.identities


def _source_ip(attributes: AttributeContext) -> Values:
    ip = attributes.source.ip
    return ip if isinstance(ip, Unknown) else (ip,)


def _remote_ip(attributes: AttributeContext) -> Values:
    ip = attributes.source.remote_ip
    return ip if isinstance(ip, Unknown) else (ip,)


def _destination_ip(attributes: AttributeContext) -> Values:
    ip = attributes.destination.ip
    return ip if isinstance(ip, Unknown) else (ip,)


def _destination_port(attributes: AttributeContext) -> Values:
    port = attributes.destination.port
    return port if isinstance(port, Unknown) else (str(port),)


def _sni(attributes: AttributeContext) -> Values:
    sni = attributes.sni
    return sni if isinstance(sni, Unknown) else (sni,)


def _host(attributes: AttributeContext) -> Values:
    return (attributes.http.host,) if attributes.http is not None else ()


def _folded_host(attributes: AttributeContext) -> Values:
    return (matchers.ascii_lower(attributes.http.host),) if attributes.http is not None else ()


def _method(attributes: AttributeContext) -> Values:
    return (attributes.http.method,) if attributes.http is not None else ()


def _path(attributes: AttributeContext) -> Values:
    http = attributes.http
    return (http.url_path,) if http is not None and http.path else ()


def _namespaces(attributes: AttributeContext) -> Values:
    """Every N with ``/ns/N/`` in an identity (AP-31)."""
    found: list[str] = []
    for identity in attributes.source.identities:
        segments = identity.split("/")
        found.extend(segments[at + 1] for at in range(1, len(segments) - 2) if segments[at] == "ns")
    return tuple(found)


def _service_accounts(attributes: AttributeContext) -> Values:
    """Every ``N/A`` with ``/ns/N/`` and later ``/sa/A`` in an identity (AP-33)."""
    found: list[str] = []
    for identity in attributes.source.identities:
        segments = identity.split("/")
        for position in range(1, len(segments) - 3):
            if segments[position] == "ns":
                namespace = segments[position + 1]
                found.extend(
                    f"{namespace}/{segments[later + 1]}"
                    for later in range(position + 2, len(segments) - 1)
                    if segments[later] == "sa"
                )
    return tuple(found)


def _request_principal(attributes: AttributeContext) -> Values:
    token = attributes.authentication.token
    if token is None:
        return ()
    issuer, subject = token.claims.get("iss"), token.claims.get("sub")
    return (issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else ()


def _joined_request_principal(attributes: AttributeContext) -> Values:
    values = _request_principal(attributes)
    return ("/".join(values),) if not isinstance(values, Unknown) and values else ()


def _claim_values(claim: Json) -> tuple[str, ...]:
    """A string, or the strings of a list; everything else matches nothing, not even ``*`` (AP-60)."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list):
        return tuple(element for element in claim if isinstance(element, str))
    return ()


def _claim(path: tuple[str, ...]) -> Read:
    first, rest = path[0], path[1:]

    def read(attributes: AttributeContext) -> Values:
        token = attributes.authentication.token
        if token is None:
            return ()
        value = token.claims.get(first)
        for name in rest:
            if not isinstance(value, dict):
                return ()
            value = value.get(name)
        return _claim_values(value)

    return read


def _header(name: str) -> Read:
    name = ":authority" if name == "host" else name

    def read(attributes: AttributeContext) -> Values:
        return attributes.http.headers.get(name, ()) if attributes.http is not None else ()

    return read


def _filter_metadata(namespace: str, member: str) -> Read:
    def read(attributes: AttributeContext) -> Values:
        metadata = attributes.metadata
        if isinstance(metadata, Unknown):
            return metadata
        try:
            value = metadata[namespace].get(member)
        except KeyError:
            return UNKNOWN  # Envoy was not told to send this namespace (CS-8, CS-12)
        if isinstance(value, str):
            return (SCALAR + value,)
        if isinstance(value, list):
            return tuple(LISTED + element for element in value if isinstance(element, str))
        return ()

    return read


# --- compiling ---------------------------------------------------------------------------------------------------


def _plain(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.plain_strings(values)


def _header_form(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.header_strings(values)


def _host_form(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.header_strings(values, fold=True)


def _paths(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.path_strings(values)


def _networks(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.networks(values)


def _ports(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.port_strings(values)


def _principals(values: tuple[str, ...], context: CompileContext) -> Matcher:
    rewritten = tuple(
        dict.fromkeys(name for value in values for name in rewrite_principal(value, context.trust_domains))
    )
    return matchers.principal_strings(rewritten)


def _namespace_globs(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.namespace_strings(values)


def _accounts(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.service_account_strings(values, context.policy_namespace)


def _trust_domains(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.trust_domain_strings(values, context.trust_domains)


def _request_principals(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.request_principals(values)


def _metadata(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.metadata_strings(values)


def rewrite_principal(principal: str, trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    """
    Rewrite the trust domain of a principal to those of the mesh (AP-27 to AP-29).

    Only values of exactly five parts whose first is not ``*`` are considered.
    """
    domain, _, rest = principal.partition("/")
    if rest.count("/") != 3 or domain == "*":
        return (principal,)
    if domain != "cluster.local" and not any(_domains_meet(domain, member) for member in trust_domains):
        return (principal,)
    kept = (
        principal if domain.startswith("*") and member.endswith(domain[1:]) else f"{member}/{rest}"
        for member in trust_domains
    )
    return tuple(dict.fromkeys(kept))


def _domains_meet(written: str, member: str) -> bool:
    return written == member or _star_covers(written, member) or _star_covers(member, written)


def _star_covers(pattern: str, text: str) -> bool:
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return pattern.endswith("*") and text.startswith(pattern[:-1])


# --- the table ---------------------------------------------------------------------------------------------------

_FIXED = (
    Attribute("source.principal", _identities, _principals, Voucher.MTLS, about="identity of the client certificate"),
    Attribute(
        "source.namespace", _identities, _namespace_globs, Voucher.MTLS, index_values=_namespaces,
        about="namespace in the client's identity",
    ),
    Attribute(
        "source.serviceAccount", _identities, _accounts, Voucher.MTLS, index_values=_service_accounts,
        about="service account in the client's identity",
    ),
    Attribute(
        "source.trustDomain", _identities, _trust_domains, Voucher.MTLS, about="trust domain of the client's identity"
    ),
    Attribute("source.ip", _source_ip, _networks, Voucher.PROXY, about="address of the direct peer"),
    Attribute("remote.ip", _remote_ip, _networks, Voucher.PROXY, about="client address as the proxy determined it"),
    Attribute("destination.ip", _destination_ip, _networks, Voucher.PROXY, about="address connected to"),
    Attribute("destination.port", _destination_port, _ports, Voucher.PROXY, about="workload port connected to"),
    Attribute("connection.sni", _sni, _plain, Voucher.CLIENT, about="TLS server name, lower-case"),
    Attribute(
        "request.auth.principal", _request_principal, _request_principals, Voucher.TOKEN, http_only=True,
        index_values=_joined_request_principal, about="iss/sub of the accepted token",
    ),
    Attribute(
        "request.auth.audiences", _claim(("aud",)), _plain, Voucher.TOKEN, http_only=True, about="claim aud, verbatim"
    ),
    Attribute("request.auth.presenter", _claim(("azp",)), _plain, Voucher.TOKEN, http_only=True, about="claim azp"),
)  # fmt: skip

CONDITION_KEYS: dict[str, Attribute] = {attribute.key: attribute for attribute in _FIXED}
"""The keys of ``when`` that have no bracket (AP-56)."""

HOSTS = Attribute(
    "hosts", _host, _host_form, Voucher.CLIENT, http_only=True, index_values=_folded_host, about="Host as received"
)
METHODS = Attribute("methods", _method, _header_form, Voucher.CLIENT, http_only=True, about="HTTP method")
PATHS = Attribute("paths", _path, _paths, Voucher.CLIENT, http_only=True, about="normalised path without query")

SOURCE_FIELDS: dict[str, Attribute] = {
    "principals": CONDITION_KEYS["source.principal"],
    "requestPrincipals": CONDITION_KEYS["request.auth.principal"],
    "namespaces": CONDITION_KEYS["source.namespace"],
    "serviceAccounts": CONDITION_KEYS["source.serviceAccount"],
    "trustDomains": CONDITION_KEYS["source.trustDomain"],
    "ipBlocks": CONDITION_KEYS["source.ip"],
    "remoteIpBlocks": CONDITION_KEYS["remote.ip"],
}
"""Fields of ``from.source``; each has a twin ``not…`` that reads the same attribute (AP-13)."""

OPERATION_FIELDS: dict[str, Attribute] = {
    "hosts": HOSTS,
    "ports": CONDITION_KEYS["destination.port"],
    "methods": METHODS,
    "paths": PATHS,
}
"""Fields of ``to.operation``."""

_HEADERS, _CLAIMS, _FILTERS = "request.headers", "request.auth.claims", "experimental.envoy.filters."
_CLEAN_BRACKETS = re.compile(r"(?:\[[^\[\]]+\])+")


def condition_attribute(key: str) -> Attribute:
    """
    Find the attribute of a ``when`` key (AP-56). Raises ValueError saying what is wrong (VA-30, VA-31, AP-76).
    """
    if key in CONDITION_KEYS:
        return CONDITION_KEYS[key]
    if key.startswith(_HEADERS):
        name = _bracketed(key, _HEADERS).lower()
        read = _header(name)
        return Attribute(f"{_HEADERS}[{name}]", read, _header_form, Voucher.CLIENT, http_only=True)
    if key.startswith(_CLAIMS):
        return Attribute(key, _claim(claim_path(key)), _plain, Voucher.TOKEN, http_only=True)
    if key.startswith(_FILTERS):
        namespace, bracket, rest = key.removeprefix("experimental.").partition("[")
        if not bracket or not rest.endswith("]") or len(rest) < 2 or namespace == "envoy.filters.":
            raise ValueError(f"`{key}` is not of the form `experimental.envoy.filters.<filter>[<key>]`")
        return Attribute(key, _filter_metadata(namespace, rest[:-1]), _metadata, Voucher.PROXY)
    raise ValueError(f"unknown condition key `{key}`")


def claim_path(key: str) -> tuple[str, ...]:
    """Cut ``request.auth.claims[a][b]`` into its names; an unclean sequence is one literal name (AP-61, AP-62)."""
    inner = _bracketed(key, _CLAIMS)
    if _CLEAN_BRACKETS.fullmatch(key, len(_CLAIMS)):
        return tuple(inner.split("]["))
    return (inner,)


def _bracketed(key: str, prefix: str) -> str:
    rest = key[len(prefix) :]
    if not rest.startswith("[") or not rest.endswith("]") or len(rest) < 3:
        raise ValueError(f"`{key}` is not of the form `{prefix}[<name>]`")
    return rest[1:-1]
