"""
The authority's figures for operators: an ASGI application with ``/metrics``, ``/healthz`` and ``/readyz``.

Names that istiod has too are its own (``citadel_server_…``), so that its dashboards and alerts work.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from authz.core.spiffe import SpiffeId
from authz.identity.ca import CertificateAuthority
from authz.service.sds import SecretServer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""As ASGI says; Any: its messages are dictionaries of many kinds."""
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Issuances:
    """Requests for certificates since the start."""

    issued: int = 0
    refused: int = 0
    unrecorded: int = 0
    """Refusals left out of the record because there were too many."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the authority is at this moment."""

    ca: CertificateAuthority
    secrets: SecretServer
    issuances: Issuances = field(default_factory=Issuances)


def metric_lines(facts: Facts) -> Iterable[str]:
    """Prometheus text, zeros too."""
    ca, secrets, counts = facts.ca, facts.secrets, facts.issuances
    figures = secrets.figures
    yield from _metric(
        "citadel_server_csr_count", "counter", "Requests for certificates.", counts.issued + counts.refused
    )
    yield from _metric("citadel_server_success_cert_issuance_count", "counter", "Certificates issued.", counts.issued)
    yield from _metric(
        "citadel_server_authentication_failure_count",
        "counter",
        "Requests refused, for whatever reason.",
        counts.refused,
    )
    yield from _metric(
        "authz_ca_unrecorded_refusals_total", "counter", "Refusals that no record was written of.", counts.unrecorded
    )
    roots = min(root.not_valid_after_utc.timestamp() for root in ca.roots)
    chain = min(c.not_valid_after_utc.timestamp() for c in (*ca.active.chain, ca.active.root))
    yield from _metric(
        "citadel_server_root_cert_expiry_timestamp", "gauge", "When the first trusted root expires.", roots
    )
    yield from _metric(
        "citadel_server_cert_chain_expiry_timestamp",
        "gauge",
        "When the first certificate of the signing chain expires.",
        chain,
    )
    yield from _metric("authz_sds_pushes_total", "counter", "Secrets sent.", figures.pushes)
    yield from _metric("authz_sds_acknowledged_total", "counter", "Secrets that a proxy took.", figures.acknowledged)
    yield from _metric("authz_sds_rejected_total", "counter", "Secrets that a proxy refused.", figures.rejected)
    yield from _metric("authz_sds_refused_total", "counter", "Peers and names that were refused.", figures.refused)
    yield from _metric("authz_sds_streams", "gauge", "Open streams.", secrets.streams)
    kept = secrets.shelf.kept
    failing = sum(bool(held.failure) for held in kept.values())
    yield from _metric("authz_ca_failing_renewals", "gauge", "Certificates in use whose last renewal failed.", failing)
    yield "# HELP authz_ca_svid_expiration_timestamp_seconds End of the certificate in use that expires first."
    yield "# TYPE authz_ca_svid_expiration_timestamp_seconds gauge"
    ends: dict[SpiffeId, float] = {}
    for (_, spiffe_id), held in kept.items():
        ends[spiffe_id] = min(held.svid.not_after, ends.get(spiffe_id, held.svid.not_after))
    for spiffe_id, end in sorted(ends.items(), key=lambda item: str(item[0])):  # a SPIFFE ID needs no escaping
        yield f'authz_ca_svid_expiration_timestamp_seconds{{identity="{spiffe_id}"}} {end:.0f}'


def _metric(name: str, kind: str, text: str, value: float) -> Iterable[str]:
    return (f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value:.0f}")


def make_app(facts: Callable[[], Facts]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """``facts`` is asked on every request. Whoever is answered at all finds an authority that serves."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, body = 404, b"there are /metrics, /healthz and /readyz\n"
        if scope["path"] in ("/healthz", "/readyz"):
            status, body = 200, b"ok\n"
        elif scope["path"] == "/metrics":
            status, body = 200, "".join(f"{line}\n" for line in metric_lines(facts())).encode()
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
