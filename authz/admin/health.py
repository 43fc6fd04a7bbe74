"""
Alive, ready, healthy: three questions and their causes, computed from statuses; no HTTP here.

Alive: the process answers. Ready: requests are decided with policies, keys and audit as configured.
Healthy: nothing needs a person's attention either, for example a refused reload or keys that stopped refreshing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from authz.telemetry.status import ServiceStatus, TrailStatus


@dataclass(frozen=True, slots=True)
class HealthCause:
    """One reason why something is not well."""

    part: str
    """``policies``, ``candidate``, ``keys``, ``audit``, ``tracing``, ``certificates``, ``peers``, ``service``."""
    message: str
    blocks: bool
    """True when it makes the service unready; False when it only needs attention."""


@dataclass(frozen=True, slots=True)
class Health:
    """All causes; an empty list is perfect health."""

    causes: tuple[HealthCause, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered, that is, no cause blocks."""
        return not any(cause.blocks for cause in self.causes)


def judge_health(service: ServiceStatus, trail: TrailStatus, now: float) -> Health:
    """
    Judge readiness and health.

    A refused reload does not make the service unready: the last good policies stay in force.
    A failing sink does if it never worked, or where a lost record must deny: requests are then refused anyway.
    One that keeps records, to deliver them later, does not.
    ``now`` is in seconds since the epoch.
    """
    tokens = (*_keys(service), *_issuers(service))
    policies = (*_service(service), *_candidate(service))
    rest = (*_limits(service), *audit_causes(trail), *_certificates(service, now))
    return Health((*policies, *tokens, *_peers(service), *rest))


def _service(service: ServiceStatus) -> Iterator[HealthCause]:
    reload = service.reload
    if service.is_draining:
        yield HealthCause("service", "draining: no new requests are wanted", True)
    if not reload.policy_version:
        yield HealthCause("policies", "no policies are loaded yet", True)
    if not reload.is_ok:
        first = next((str(problem).partition("\n")[0] for problem in reload.problems if problem.is_error), "")
        yield HealthCause(
            "policies", f"the last change was refused, version {reload.policy_version or 'none'} stays: {first}", False
        )
    source = service.policy_source
    if source is not None and source.problem:
        yield HealthCause("policies", source.problem, False)


def _candidate(service: ServiceStatus) -> Iterator[HealthCause]:
    """A broken candidate concerns nobody's answer; whoever wrote it wants to know."""
    if service.policy_source is not None and service.policy_source.candidate_problem:
        yield HealthCause("candidate", service.policy_source.candidate_problem, False)
    if service.candidate is not None and not service.candidate.reload.is_ok:
        reload = service.candidate.reload
        first = next((str(problem).partition("\n")[0] for problem in reload.problems if problem.is_error), "")
        kept = f"version {reload.policy_version} stays the candidate" if reload.policy_version else "there is none"
        yield HealthCause("candidate", f"the candidate was refused, {kept}: {first}", False)


def _keys(service: ServiceStatus) -> Iterator[HealthCause]:
    """
    The start waits for every key set, as gRPC health does, but not forever.

    After that, one that cannot be read denies its own tokens; keeping the whole service unready would deny all.
    """
    for key_set in service.key_sets:
        if key_set.fetched_at is None and not key_set.error:
            yield HealthCause("keys", f"{key_set.name} is being fetched", True)
        elif key_set.fetched_at is None:
            why = f"{key_set.name} was never read, its tokens are denied: {key_set.error}"
            yield HealthCause("keys", why, service.is_starting)
        elif key_set.error:
            yield HealthCause(
                "keys", f"{key_set.name} cannot be refreshed, the last good keys stay: {key_set.error}", False
            )
        if key_set.skipped:
            yield HealthCause("keys", f"not all of {key_set.name} is used: {'; '.join(key_set.skipped)}", False)


def _issuers(service: ServiceStatus) -> Iterator[HealthCause]:
    """An issuer that does not answer denies its own opaque tokens; everything else is decided."""
    for one in service.introspections:
        if one.error:
            why = f"{one.issuer} does not say whether tokens are active, they are denied: {one.error}"
            yield HealthCause("introspection", why, False)


def _peers(service: ServiceStatus) -> Iterator[HealthCause]:
    """The last good bundles and revocations still judge, so requests are decided; a revocation may be missing."""
    problem = service.peer_trust.problem if service.peer_trust is not None else ""
    if problem:
        what = "a change of trust bundles or revocations was refused, the last good ones stay"
        yield HealthCause("peers", f"{what}: {problem}", False)


def _limits(service: ServiceStatus) -> Iterator[HealthCause]:
    """A quota is no authorization: requests are decided all the same."""
    problem = service.rate_limits.problem if service.rate_limits is not None else ""
    if problem:
        yield HealthCause("rate limits", f"requests are not counted, the store does not answer: {problem}", False)


def audit_causes(trail: TrailStatus) -> Iterator[HealthCause]:
    """What is wrong with the trail, for whoever keeps records."""
    if not trail.is_running:
        yield HealthCause("audit", "the audit writer is not running", True)
    for sink in trail.sinks:
        if sink.error:
            is_critical = not sink.is_late and (not sink.written or trail.denies)
            yield HealthCause("audit", f"sink {sink.name} fails: {sink.error}", is_critical)
    if trail.capacity and trail.queued >= trail.capacity:
        yield HealthCause("audit", f"the queue is full: {trail.dropped} decisions have no record", trail.denies)
    if trail.tracing:
        yield HealthCause("tracing", trail.tracing, False)


def _certificates(service: ServiceStatus, now: float) -> Iterator[HealthCause]:
    if service.tls_problem:
        yield HealthCause("certificates", f"the last good certificate of the port stays: {service.tls_problem}", False)
    for certificate in service.certificates:
        if certificate.not_after <= now:
            who = certificate.identity or f"{certificate.workload}.{certificate.namespace}".strip(".")
            yield HealthCause(
                "certificates", f"the {certificate.kind} certificate of {who or 'this service'} has expired", False
            )
