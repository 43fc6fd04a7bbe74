"""
The table of attributes a policy may name: how to read each one, what its values mean, who vouches for it.

Reader, checks, compiler, explanation, analysis and documentation use this one table. ``read`` answers the values of
the attribute, the empty tuple when it is absent, or UNKNOWN when the deployment does not deliver it (CS-7, CS-8).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from authz.core import identities, matchers, networks, readers
from authz.core.matchers import Matcher
from authz.core.readers import Read


class Voucher(StrEnum):
    """The party that guarantees that an attribute is true."""

    MTLS = "mTLS"
    TOKEN = "verified token"  # noqa: S105  # a word for people, not a secret
    PROXY = "the proxy"
    CLIENT = "only the client"


@dataclass(frozen=True, slots=True)
class CompileContext:
    """Everything that the meaning of a value may depend on besides the value itself."""

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
    """Values in the form of the matcher's terms; None where ``read`` answers them so already."""
    about: str = ""


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
    return networks.networks(values)


def _ports(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.port_strings(values)


def _principals(values: tuple[str, ...], context: CompileContext) -> Matcher:
    rewritten = tuple(
        dict.fromkeys(name for value in values for name in identities.rewrite_principal(value, context.trust_domains))
    )
    return identities.principal_strings(rewritten)


def _namespace_globs(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return identities.namespace_strings(values)


def _accounts(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return identities.service_account_strings(values, context.policy_namespace)


def _trust_domains(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return identities.trust_domain_strings(values, context.trust_domains)


def _request_principals(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return identities.request_principals(values)


def _metadata(values: tuple[str, ...], context: CompileContext) -> Matcher:
    return matchers.metadata_strings(values)


# --- the table ---------------------------------------------------------------------------------------------------

_FIXED = (
    Attribute(
        "source.principal", readers.identities, _principals, Voucher.MTLS, about="identity of the client certificate"
    ),
    Attribute(
        "source.namespace", readers.identities, _namespace_globs, Voucher.MTLS, index_values=readers.namespaces,
        about="namespace in the client's identity",
    ),
    Attribute(
        "source.serviceAccount", readers.identities, _accounts, Voucher.MTLS, index_values=readers.service_accounts,
        about="service account in the client's identity",
    ),
    Attribute(
        "source.trustDomain", readers.identities, _trust_domains, Voucher.MTLS,
        about="trust domain of the client's identity",
    ),
    Attribute("source.ip", readers.source_ip, _networks, Voucher.PROXY, about="address of the direct peer"),
    Attribute(
        "remote.ip", readers.remote_ip, _networks, Voucher.PROXY, about="client address as the proxy determined it"
    ),
    Attribute("destination.ip", readers.destination_ip, _networks, Voucher.PROXY, about="address connected to"),
    Attribute("destination.port", readers.destination_port, _ports, Voucher.PROXY, about="workload port connected to"),
    Attribute("connection.sni", readers.sni, _plain, Voucher.CLIENT, about="TLS server name, lower-case"),
    Attribute(
        "request.auth.principal", readers.request_principal, _request_principals, Voucher.TOKEN, http_only=True,
        index_values=readers.joined_request_principal, about="iss/sub of the accepted token",
    ),
    Attribute(
        "request.auth.audiences", readers.claim(("aud",)), _plain, Voucher.TOKEN, http_only=True,
        about="claim aud, verbatim",
    ),
    Attribute(
        "request.auth.presenter", readers.claim(("azp",)), _plain, Voucher.TOKEN, http_only=True, about="claim azp"
    ),
)  # fmt: skip

CONDITION_KEYS: dict[str, Attribute] = {attribute.key: attribute for attribute in _FIXED}
"""The keys of ``when`` that have no bracket (AP-56)."""

HOSTS = Attribute(
    "hosts",
    readers.host,
    _host_form,
    Voucher.CLIENT,
    http_only=True,
    index_values=readers.folded_host,
    about="Host as received",
)
METHODS = Attribute("methods", readers.method, _header_form, Voucher.CLIENT, http_only=True, about="HTTP method")
PATHS = Attribute("paths", readers.path, _paths, Voucher.CLIENT, http_only=True, about="normalised path without query")

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
        read = readers.header(name)
        return Attribute(f"{_HEADERS}[{name}]", read, _header_form, Voucher.CLIENT, http_only=True)
    if key.startswith(_CLAIMS):
        return Attribute(key, readers.claim(claim_path(key)), _plain, Voucher.TOKEN, http_only=True)
    if key.startswith(_FILTERS):
        namespace, bracket, rest = key.removeprefix("experimental.").partition("[")
        if not bracket or not rest.endswith("]") or len(rest) < 2 or namespace == "envoy.filters.":
            raise ValueError(f"`{key}` is not of the form `experimental.envoy.filters.<filter>[<key>]`")
        return Attribute(key, readers.filter_metadata(namespace, rest[:-1]), _metadata, Voucher.PROXY)
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
