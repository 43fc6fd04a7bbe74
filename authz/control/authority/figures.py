"""
The authority's figures for operators: an ASGI application with ``/metrics``, ``/healthz`` and ``/readyz``.

Names that istiod has too are its own (``citadel_server_…``), so that its dashboards and alerts work.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from authz.admin.access import Access, Receive, Scope, Send, judge_access
from authz.admin.fleet_page import PageFile
from authz.control.authority.sds import SecretServer
from authz.control.authority.stock import Stock
from authz.control.authority.workload_api import WorkloadServer
from authz.control.federation.bundle_follower import BundleFollower
from authz.core.errors import SettingsError
from authz.identity.ca import CertificateAuthority
from authz.identity.registrar import Cause
from authz.service.ports.handshakes import HANDSHAKES
from authz.service.ports.http import host_and_port
from authz.telemetry import names
from authz.telemetry.names import Metric
from authz.telemetry.text import CONTENT_TYPE, metric_lines

SIGN_ERROR = "CERT_GEN_ERROR"
"""istiod's word for it; the record has the reason."""


Figured = Iterable[tuple[Metric, Mapping[tuple[str, ...], float] | float]]
"""Metrics with what they are now."""


class GuestPages(Protocol):
    """What another service in the authority's process adds to its pages."""

    def figures(self) -> Figured:
        """Its metrics."""

    def causes(self) -> Iterable[dict[str, object]]:
        """What needs a person's attention."""

    def page(self, path: str) -> object | None:
        """What is at a path: a ``PageFile``, or values for JSON; None where there is nothing."""


@dataclass(slots=True)
class Issuances:
    """Requests for SVIDs since the start."""

    issued: int = 0
    """Certificates."""
    jwts: int = 0
    """JWT-SVIDs."""
    refused: Counter[Cause] = field(default_factory=Counter)
    unrecorded: int = 0
    """Refusals left out of the record because there were too many."""


@dataclass(slots=True)
class Reload:
    """How the last look at changed files went."""

    problem: str = ""
    """Why the files as they are now are not in force; empty when they are."""
    failures: int = 0
    own_certificate: str = ""
    """Why the authority cannot renew the certificate of its own doors; empty when it can."""
    jwt_keys: str = ""
    """Why the next key of JWT-SVIDs cannot be made; empty when it can."""
    announcement: str = ""
    """Why the other authorities cannot be told what this one signs with; empty when they can."""

    def refuse(self, problem: str) -> None:
        """Note that a change of the files is not in force, and why."""
        self.problem = problem
        self.failures += 1


@dataclass(frozen=True, slots=True)
class AuthorityFacts:
    """The state of the authority at this moment."""

    ca: CertificateAuthority
    stock: Stock
    secrets: SecretServer
    workload: WorkloadServer
    issuances: Issuances = field(default_factory=Issuances)
    reload: Reload = field(default_factory=Reload)
    follower: BundleFollower | None = None
    common_problems: tuple[str, ...] = ()
    """About what is shared with other authorities."""


def causes(facts: AuthorityFacts) -> Iterable[dict[str, object]]:
    """
    The causes that need a person's attention, in the form of the authorization server's health; none of them blocks.
    """
    if facts.reload.problem:
        message = f"a change was refused, what was in force stays: {facts.reload.problem}"
        yield {"part": "files", "message": message, "blocks": False}
    if facts.reload.own_certificate:
        message = f"the authority's own certificate is not renewed: {facts.reload.own_certificate}"
        yield {"part": "renewal", "message": message, "blocks": False}
    if facts.reload.jwt_keys:
        message = f"the keys of JWT-SVIDs are not renewed: {facts.reload.jwt_keys}"
        yield {"part": "renewal", "message": message, "blocks": False}
    if facts.reload.announcement:
        message = f"the other authorities are not told of a change: {facts.reload.announcement}"
        yield {"part": "authorities", "message": message, "blocks": False}
    for message in (*facts.ca.disbelieved, *facts.common_problems):
        yield {"part": "authorities", "message": message, "blocks": False}
    for domain, failure in facts.follower.failures.items() if facts.follower is not None else ():
        message = f"the bundle of {domain} cannot be fetched, the last good one stays: {failure}"
        yield {"part": "federation", "message": message, "blocks": False}
    for (_, spiffe_id), held in sorted(facts.stock.shelf.kept.items(), key=lambda item: str(item[0][1])):
        if held.failure:
            yield {"part": "renewal", "message": f"{spiffe_id} is not renewed: {held.failure}", "blocks": False}


def figures(facts: AuthorityFacts) -> Figured:
    """Every metric of the authority with what it is now."""
    ca, secrets, counts = facts.ca, facts.secrets, facts.issuances
    sent, kept = secrets.figures, facts.stock.shelf.kept
    yield names.CA_ASKED, counts.issued + counts.refused.total()
    yield names.CA_ISSUED, counts.issued
    yield names.CA_JWTS, counts.jwts
    yield names.WORKLOAD_STREAMS, facts.workload.streams
    if facts.follower is not None:
        yield names.CA_BUNDLE_TIME, {(str(d),): at for d, at in facts.follower.fetched_at.items()}
    yield names.CA_DENIED, counts.refused[Cause.DENIED]
    yield names.CA_UNUSABLE, counts.refused[Cause.REQUEST]
    yield names.CA_UNSIGNED, {(SIGN_ERROR,): counts.refused[Cause.SIGNING]}
    yield names.CA_LIMITED, counts.refused[Cause.LIMIT]
    yield names.CA_UNRECORDED, counts.unrecorded
    yield names.CA_ROOT_EXPIRY, min(root.not_valid_after_utc.timestamp() for root in ca.roots)
    chain = (*ca.active.chain, ca.active.root)
    yield names.CA_CHAIN_EXPIRY, min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
    yield names.CA_RELOAD_OK, not facts.reload.problem
    yield names.CA_RELOAD_FAILURES, facts.reload.failures
    yield names.HANDSHAKES_REFUSED, HANDSHAKES.refused
    yield names.SDS_PUSHES, sent.pushes
    yield names.SDS_ACKNOWLEDGED, sent.acknowledged
    yield names.SDS_REJECTED, sent.rejected
    yield names.SDS_REFUSED, sent.refused
    yield names.SDS_STREAMS, secrets.streams
    yield names.CA_FAILING_RENEWALS, sum(bool(held.failure) for held in kept.values())
    ends: dict[str, float] = {}
    for (_, spiffe_id), held in kept.items():
        ends[str(spiffe_id)] = min(held.svid.not_after, ends.get(str(spiffe_id), held.svid.not_after))
    yield names.CA_SVID_EXPIRY, {(name,): end for name, end in sorted(ends.items())}


def _page(found: Figured) -> str:
    """Prometheus text of every figure."""
    return "".join(f"{line}\n" for metric, values in found for line in metric_lines(metric, values))


def make_app(
    facts: Callable[[], AuthorityFacts], guest: GuestPages | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """``facts`` is asked on every request. Whoever gets an answer at all has found an authority that serves."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, body = 404, b"there are /metrics, /healthz and /readyz\n"
        content_type = CONTENT_TYPE.encode()
        if scope["path"] in ("/healthz", "/readyz"):
            found = list(causes(facts())) if scope["path"] == "/healthz" else []
            if guest is not None and scope["path"] == "/healthz":
                found += guest.causes()
            word = "attention" if found else "healthy" if scope["path"] == "/healthz" else "ready"
            status, body = 200, json.dumps({"status": word, "causes": found}).encode() + b"\n"
            content_type = b"application/json"
        elif scope["path"] == "/metrics":
            more = guest.figures() if guest is not None else ()
            status, body = 200, _page([*figures(facts()), *more]).encode()
        elif guest is not None and (shown := guest.page(scope["path"])) is not None:
            status, body = 200, shown.content if isinstance(shown, PageFile) else json.dumps(shown).encode() + b"\n"
            content_type = shown.content_type.encode() if isinstance(shown, PageFile) else b"application/json"
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def admin_access(address: str) -> Access:
    """Raises SettingsError for an address at which others could read, because nobody has to show anything here."""
    if not address.startswith("unix:"):
        host_and_port(address)
    try:
        return judge_access(address)
    except SettingsError:
        message = f"`{address}` can be reached from other machines; listen on 127.0.0.1 or on unix:PATH"
        raise SettingsError(message) from None
