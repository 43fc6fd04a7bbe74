"""
The authority's figures for operators: an ASGI application with ``/metrics``, ``/healthz`` and ``/readyz``.

Names that istiod has too are its own (``citadel_server_…``), so that its dashboards and alerts work.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from authz.control.authority.sds import SecretServer
from authz.core.spiffe import SpiffeId
from authz.identity.ca import CertificateAuthority
from authz.identity.registrar import Cause

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""As ASGI says; Any: its messages are dictionaries of many kinds."""
SIGN_ERROR = "CERT_GEN_ERROR"
"""istiod's word for it; the record has the reason."""
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Issuances:
    """Requests for certificates since the start."""

    issued: int = 0
    refused: Counter[Cause] = field(default_factory=Counter)
    unrecorded: int = 0
    """Refusals left out of the record because there were too many."""


@dataclass(slots=True)
class Reload:
    """How the last look at changed files went."""

    problem: str = ""
    """Why they are not in force as they are now; empty when they are."""
    failures: int = 0
    own_certificate: str = ""
    """Why the authority cannot renew the certificate of its own doors; empty when it can."""

    def refuse(self, problem: str) -> None:
        self.problem = problem
        self.failures += 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What the authority is at this moment."""

    ca: CertificateAuthority
    secrets: SecretServer
    issuances: Issuances = field(default_factory=Issuances)
    reload: Reload = field(default_factory=Reload)


def causes(facts: Facts) -> Iterable[dict[str, object]]:
    """What needs a person's attention, in the shape of the authorization server's health; nothing of it blocks."""
    if facts.reload.problem:
        message = f"a change was refused, what was in force stays: {facts.reload.problem}"
        yield {"part": "files", "message": message, "blocks": False}
    if facts.reload.own_certificate:
        message = f"the authority's own certificate is not renewed: {facts.reload.own_certificate}"
        yield {"part": "renewal", "message": message, "blocks": False}
    for (_, spiffe_id), held in sorted(facts.secrets.shelf.kept.items(), key=lambda item: str(item[0][1])):
        if held.failure:
            yield {"part": "renewal", "message": f"{spiffe_id} is not renewed: {held.failure}", "blocks": False}


def metric_lines(facts: Facts) -> Iterable[str]:
    """Prometheus text, zeros too."""
    ca, secrets, counts = facts.ca, facts.secrets, facts.issuances
    figures = secrets.figures
    asked = counts.issued + counts.refused.total()
    yield from _metric("citadel_server_csr_count", "counter", "Requests for certificates.", asked)
    yield from _metric("citadel_server_success_cert_issuance_count", "counter", "Certificates issued.", counts.issued)
    yield from _metric(
        "citadel_server_authentication_failure_count",
        "counter",
        "Requests of somebody without proof or without an entry.",
        counts.refused[Cause.DENIED],
    )
    yield from _metric(
        "citadel_server_csr_parsing_err_count",
        "counter",
        "Certificate requests that cannot be used.",
        counts.refused[Cause.REQUEST],
    )
    yield from _metric(
        "citadel_server_csr_sign_err_count",
        "counter",
        "Certificates that should have been signed and could not be.",
        counts.refused[Cause.SIGNING],
        f'{{error="{SIGN_ERROR}"}}',
    )
    yield from _metric(
        "authz_ca_limited_total",
        "counter",
        "Requests refused because there were too many.",
        counts.refused[Cause.LIMIT],
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
    yield from _metric(
        "authz_ca_last_reload_successful",
        "gauge",
        "0 while a change of the files is refused and the last good one stays.",
        not facts.reload.problem,
    )
    yield from _metric("authz_ca_reload_failures_total", "counter", "Refused changes.", facts.reload.failures)
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


def _metric(name: str, kind: str, text: str, value: float, labels: str = "") -> Iterable[str]:
    return (f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name}{labels} {value:.0f}")


def make_app(facts: Callable[[], Facts]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """``facts`` is asked on every request. Whoever is answered at all finds an authority that serves."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, body = 404, b"there are /metrics, /healthz and /readyz\n"
        content_type = CONTENT_TYPE
        if scope["path"] in ("/healthz", "/readyz"):
            found = list(causes(facts())) if scope["path"] == "/healthz" else []
            word = "attention" if found else "healthy" if scope["path"] == "/healthz" else "ready"
            status, body = 200, json.dumps({"status": word, "causes": found}).encode() + b"\n"
            content_type = b"application/json"
        elif scope["path"] == "/metrics":
            status, body = 200, "".join(f"{line}\n" for line in metric_lines(facts())).encode()
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
