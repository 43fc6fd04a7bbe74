"""
One request from bytes to bytes: the house's drawing as code.

Synchronous and without I/O, so any adapter can host it. Only a CUSTOM provider needs the network: then the answer is a
``Pending`` question, and the adapter resumes with what the provider said. Whatever goes wrong here is a denial that
``failure_mode_allow`` cannot turn into an acceptance (CS-13, XA-95): the call itself always succeeds.
"""

import itertools
import logging
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Protocol

from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    Source,
    Workload,
)
from authz.core.decided import Timing
from authz.core.decision import FORBIDDEN_BODY, Decision, Effect, Stage
from authz.core.pipeline import evaluate
from authz.core.providers import Evaluation, ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule
from authz.service.loading.snapshot import Snapshot
from authz.service.ports.failure import where_it_failed
from authz.tokens.authenticate import DEFAULT_MAX_TOKEN_BYTES, authenticate
from authz.tokens.cache import DEFAULT_CACHE_SIZE, TokenCache
from authz.tokens.key_sets import KeySets
from authz.tokens.plan import forget_plans
from authz.wire.check import DeliveredMetadata, RemoteMetadata, read_attributes, write_response

_log = logging.getLogger("authz.check")
_OWN_IDENTITY = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)")
_NOTHING_KNOWN = AttributeContext(Source(), Destination(Workload("")))
JudgePeer = Callable[[AttributeContext, float], str]
"""Why a caller is not believed at that time; empty when it is. ``service.evidence`` has one."""
INTERNAL_STATUS = 503
"""Our own failures, as ``status_on_error`` of the recommended configuration: a client can tell them from a 403."""


class Audit(Protocol):
    """Where decisions are recorded; ``audit.trail`` is one, a list in a test another."""

    def offer(
        self,
        attributes: AttributeContext,
        decision: Decision,
        decision_id: str,
        started_at: float,
        duration_seconds: float,
        cache_hit: bool | None = None,
        timings: tuple[Timing, ...] = (),
    ) -> bool:
        """Record without waiting or raising; False when it could not and the request must be refused."""


class DecisionIds:
    """
    Ids of 24 hexadecimal digits: seconds of the start, randomness of the process, a counter.

    Sortable within a process and, by the start, across restarts; far cheaper than a UUID per call.
    """

    def __init__(self, started_at: float, randomness: bytes) -> None:
        self._prefix = f"{int(started_at):08x}"[-8:] + randomness.hex()[:6].rjust(6, "0")
        self._count = itertools.count()

    def next(self) -> str:
        return f"{self._prefix}{next(self._count):010x}"


@dataclass(frozen=True, slots=True)
class InForce:
    """A snapshot and the tokens verified under it: a new snapshot begins with none."""

    snapshot: Snapshot
    tokens: TokenCache


class Pending:
    """
    A request that waits for an external provider; ``resume`` it once, or ``abandon`` it.

    Also what is known of the request on its way, so that nothing else has to be passed on.
    """

    __slots__ = (
        "_asked", "_check", "_hits", "_in_force", "_started", "attributes", "decision_id", "message", "now",
        "question", "started_at", "steps", "timings",
    )  # fmt: skip

    def __init__(
        self, check: "CheckFunction", in_force: InForce, message: bytes, decision_id: str, now: float, started: float
    ) -> None:
        self._check = check
        self._in_force = in_force
        self._hits = in_force.tokens.hits
        self._started = started
        self.message = message
        self.decision_id = decision_id
        self.started_at = self.now = now
        self.attributes = _NOTHING_KNOWN
        self.steps: Evaluation
        self.question: ProviderQuestion
        self.timings: tuple[Timing, ...] = ()

    def ask(self, question: ProviderQuestion) -> None:
        self.question = question
        self._asked = perf_counter()

    def resume(self, answer: ProviderAnswer, now: float) -> "bytes | Pending":
        """Go on with what the provider said. Never raises."""
        waited = perf_counter() - self._asked
        self.timings += (Timing("provider.ask", now - waited, waited, self.question.provider.name),)
        self.now = now
        return self._check.proceed(self, answer)

    def abandon(self) -> None:
        """The caller is gone: nobody will hear the decision, so none is made."""
        self.steps.close()

    def authenticate(self, attributes: AttributeContext, jwt_rules: tuple[JwtRule, ...]) -> Authentication:
        """The RequestAuthentication stage, with the keys of this moment."""
        if not jwt_rules:
            return NOT_AUTHENTICATED
        check, started = self._check, perf_counter()
        result = authenticate(
            attributes,
            jwt_rules,
            check.key_sets(),
            self.now,
            cache=self._in_force.tokens,
            max_token_bytes=check.max_token_bytes,
            on_unknown_key=check.on_unknown_key,
        )
        # For spans only, so not where there will be none; nor where nothing was verified.
        if result.outcome is not AuthenticationOutcome.NONE and not attributes.trace_parent.endswith("-00"):
            self.timings += (Timing("token.verify", self.now, perf_counter() - started, result.outcome.value),)
        return result

    @property
    def duration_seconds(self) -> float:
        return perf_counter() - self._started

    @property
    def policy_version(self) -> str:
        return self._in_force.snapshot.version

    def cache_hit(self, attributes: AttributeContext) -> bool | None:
        """Whether a token was known already; None without a token."""
        return self._in_force.tokens.hits > self._hits if attributes.authentication.token is not None else None


class CheckFunction:
    """
    The check service without a transport. ``replace`` puts a snapshot in force; requests under way keep theirs.

    ``failures`` counts denials that were our own fault, ``refused_identities`` sidecars that are not who they claim,
    ``refused_peers`` callers whose certificate is no evidence.
    """

    def __init__(
        self,
        audit: Audit,
        ids: DecisionIds,
        key_sets: Callable[[], KeySets] = dict,
        *,
        on_unknown_key: Callable[[str], None] | None = None,
        max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
        token_cache_size: int = DEFAULT_CACHE_SIZE,
        metadata_namespaces: Iterable[str] = (),
        judge_peer: JudgePeer | None = None,
    ) -> None:
        self._audit = audit
        self._ids = ids
        self.key_sets = key_sets
        self.on_unknown_key = on_unknown_key
        self.max_token_bytes = max_token_bytes
        self._token_cache_size = token_cache_size
        self._in_force: InForce | None = None
        self._delivered: DeliveredMetadata = {namespace: {} for namespace in metadata_namespaces}
        self._judge_peer = judge_peer
        self.failures = 0
        self.refused_identities = 0
        self.refused_peers = 0

    @property
    def snapshot(self) -> Snapshot | None:
        return self._in_force.snapshot if self._in_force is not None else None

    @property
    def tokens(self) -> TokenCache | None:
        return self._in_force.tokens if self._in_force is not None else None

    def replace(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force, whole and at once."""
        self._in_force = InForce(snapshot, TokenCache(self._token_cache_size))
        forget_plans()

    def check(self, message: bytes, metadata: RemoteMetadata, now: float) -> bytes | Pending:
        """
        Answer a serialised CheckRequest with a serialised CheckResponse, or with a question to a provider.

        Args:
            message: as it came.
            metadata: of the gRPC call.
            now: seconds since the epoch.

        Raises:
            Nothing.
        """
        started = perf_counter()
        decision_id = self._ids.next()
        in_force = self._in_force  # one read: engine and tokens that belong together
        if in_force is None:
            return self._refuse_unready(decision_id, now)
        request = Pending(self, in_force, message, decision_id, now, started)
        try:
            snapshot = in_force.snapshot
            attributes = read_attributes(
                message, metadata, trusted_proxies=snapshot.mesh.num_trusted_proxies, delivered=self._delivered
            )
            request.attributes = attributes
            destination = attributes.destination
            problem = identity_problem(
                destination.principal, destination.workload.namespace, destination.workload.service_account
            )
            if problem:
                self.refused_identities += 1
                return self._answer(request, attributes, _refusal(Stage.IDENTITY, problem, 403, snapshot.version))
            if self._judge_peer is not None and (problem := self._judge_peer(attributes, now)):
                self.refused_peers += 1
                return self._answer(request, attributes, _refusal(Stage.IDENTITY, problem, 403, snapshot.version))
            policies = snapshot.engine.for_workload(destination.workload)
            request.steps = evaluate(policies, attributes, request.authenticate)
        except Exception as error:
            return self._fail(request, error)
        return self.proceed(request, None)

    def proceed(self, request: Pending, answer: ProviderAnswer | None) -> bytes | Pending:
        """Run the stages until there is a decision or a question. Never raises."""
        try:
            request.ask(request.steps.send(answer))  # type: ignore[arg-type]  # None starts a generator
            return request
        except StopIteration as stop:
            attributes, decision = stop.value
            try:
                return self._answer(request, attributes, decision)
            except Exception as error:
                return self._fail(request, error)
        except Exception as error:
            return self._fail(request, error)

    def _answer(self, request: Pending, attributes: AttributeContext, decision: Decision) -> bytes:
        response = write_response(decision, request.decision_id)
        if self._audit.offer(
            attributes,
            decision,
            request.decision_id,
            request.started_at,
            request.duration_seconds,
            request.cache_hit(attributes),
            request.timings,
        ):
            return response
        lost = _refusal(Stage.INTERNAL, "the audit queue is full", INTERNAL_STATUS, decision.policy_version)
        return write_response(lost, request.decision_id)

    def _fail(self, request: Pending, error: Exception) -> bytes:
        """Our mistake, or bytes that are no request: deny, count, and say where, but never with what values."""
        self.failures += 1
        _log.error("a check failed and was denied, decision %s: %s", request.decision_id, where_it_failed(error))
        decision = _refusal(Stage.INTERNAL, "internal error", INTERNAL_STATUS, request.policy_version)
        with suppress(Exception):  # it may be the audit that failed
            self._audit.offer(
                request.attributes, decision, request.decision_id, request.started_at, request.duration_seconds
            )
        return write_response(decision, request.decision_id)

    def _refuse_unready(self, decision_id: str, now: float) -> bytes:
        decision = _refusal(Stage.INTERNAL, "no policies are loaded yet", INTERNAL_STATUS, "")
        with suppress(Exception):
            self._audit.offer(_NOTHING_KNOWN, decision, decision_id, now, 0.0)
        return write_response(decision, decision_id)


@lru_cache(maxsize=4096)
def identity_problem(own_principal: str, namespace: str, service_account: str) -> str:
    """
    Why the asking workload is not believed; empty when it is.

    A sidecar may only ask for itself: where its certificate has Istio's form, namespace and service account must be
    those claimed.
    """
    if not namespace:
        return (
            "the sidecar does not say which workload it is: set the node metadata label authz/namespace, the context "
            "extension `namespace`, or serve a SPIFFE certificate"
        )
    own = _OWN_IDENTITY.fullmatch(own_principal)
    if own is None:
        return ""
    if own[1] != namespace:
        return f"the sidecar claims namespace `{namespace}`, its certificate says `{own[1]}`"
    if service_account and own[2] != service_account:
        return f"the sidecar claims service account `{service_account}`, its certificate says `{own[2]}`"
    return ""


def _refusal(stage: Stage, reason: str, status: int, policy_version: str) -> Decision:
    body = FORBIDDEN_BODY if status == 403 else ""
    return Decision(Effect.DENY, stage, reason, status=status, body=body, policy_version=policy_version)
