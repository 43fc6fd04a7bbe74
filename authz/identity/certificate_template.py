"""
A certificate as it is to be, before anybody signs it: plain values, times in seconds since the epoch (UTC).

Each kind of certificate is one function; ``sign`` turns any template into a certificate.
Source: SPIFFE X.509-SVID sections 2 to 4, RFC 5280 section 4.2.
"""

import ipaddress
import math
import re
from dataclasses import dataclass

from authz.core.spiffe import SpiffeId, TrustDomain

CLOCK_CUSHION_SECONDS = 10.0
"""Certificates begin this long before they are issued, for clocks that run late (XA-133; spire's figure)."""
SVID_TTL_SECONDS = 24 * 3600.0
"""Istio's default life of a workload certificate."""
ROOT_TTL_SECONDS = 10 * 365 * 24 * 3600.0
INTERMEDIATE_TTL_SECONDS = 365 * 24 * 3600.0
SERVER_TTL_SECONDS = 90 * 24 * 3600.0
MAX_DNS_CHARACTERS = 253
_DNS_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?:\*\.)?{_DNS_LABEL}(?:\.{_DNS_LABEL})*")


@dataclass(frozen=True, slots=True)
class CertificateTemplate:
    """Everything in a certificate except the key, the serial number and the issuer."""

    organization: str
    not_before: float
    not_after: float
    common_name: str = ""
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """IP addresses."""
    is_ca: bool = False
    path_length: int | None = None
    """How many authorities may stand below this one."""
    is_server: bool = False
    is_client: bool = False
    permitted_hosts: tuple[str, ...] = ()
    """Name constraint of an authority: the only hosts (trust domains) of URIs below it; empty for any."""


def root_template(trust_domain: TrustDomain, now: float, ttl_seconds: float = ROOT_TTL_SECONDS) -> CertificateTemplate:
    """A self-signed authority; its URI is the trust domain's own SPIFFE ID, without a path (X.509-SVID 4.1)."""
    return CertificateTemplate(
        organization="authz",
        common_name=f"{trust_domain} root",
        not_before=_begin(now),
        not_after=math.floor(now) + ttl_seconds,
        uris=(str(SpiffeId(trust_domain)),),
        is_ca=True,
        path_length=1,
    )


def intermediate_template(
    trust_domain: TrustDomain, now: float, ttl_seconds: float = INTERMEDIATE_TTL_SECONDS
) -> CertificateTemplate:
    """The authority that signs leaves; name constraints keep it to SPIFFE IDs of its own trust domain."""
    return CertificateTemplate(
        organization="authz",
        common_name=f"{trust_domain} intermediate",
        not_before=_begin(now),
        not_after=math.floor(now) + ttl_seconds,
        uris=(str(SpiffeId(trust_domain)),),
        is_ca=True,
        path_length=0,
        permitted_hosts=(trust_domain.name,),
    )


def judge_dns_name(name: str) -> str | None:
    """Say why this is not a DNS name for a certificate, or None. A leading ``*.`` is a wildcard (RFC 6125 6.4.3)."""
    if _DNS_NAME.fullmatch(name) and len(name) <= MAX_DNS_CHARACTERS:
        return None
    hint = "" if name.isascii() else "; write it as punycode, `xn--…`"
    return f"`{name if name.isprintable() else repr(name)}` is not a DNS name{hint}"


def _check_names(dns: tuple[str, ...], addresses: tuple[str, ...] = ()) -> None:
    """Refuse names that a certificate cannot hold. Raises ValueError."""
    for name in dns:
        if reason := judge_dns_name(name):
            raise ValueError(reason)
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f"`{address}` is not an IP address") from None


def svid_template(
    spiffe_id: SpiffeId, now: float, ttl_seconds: float = SVID_TTL_SECONDS, dns: tuple[str, ...] = ()
) -> CertificateTemplate:
    """
    A workload's certificate: exactly one URI, usable as server and as client (XA-133).

    Raises ValueError for an ID without a path, which is an authority's (X.509-SVID 4.1), and for a bad DNS name.
    """
    _check_names(dns)
    if not spiffe_id.path:
        raise ValueError(f"`{spiffe_id}` has no path: a workload's SPIFFE ID needs one")
    return CertificateTemplate(
        organization="authz",
        not_before=_begin(now),
        not_after=math.floor(now) + ttl_seconds,
        uris=(str(spiffe_id),),
        dns=dns,
        is_server=True,
        is_client=True,
    )


def server_template(
    dns: tuple[str, ...], now: float, ttl_seconds: float = SERVER_TTL_SECONDS, addresses: tuple[str, ...] = ()
) -> CertificateTemplate:
    """A web server's certificate for a gateway's outer side: no SPIFFE ID, so that no peer in the mesh accepts it."""
    if not dns and not addresses:
        raise ValueError("a server certificate needs at least one DNS name or IP address")
    _check_names(dns, addresses)
    return CertificateTemplate(
        organization="authz",
        common_name=dns[0] if dns and len(dns[0]) <= 64 else "",  # 64: the limit of X.520
        not_before=_begin(now),
        not_after=math.floor(now) + ttl_seconds,
        dns=dns,
        addresses=addresses,
        is_server=True,
    )


def _begin(now: float) -> float:
    return math.floor(now) - CLOCK_CUSHION_SECONDS
