"""
One request from bytes to bytes: the house's drawing as code.

Synchronous and without I/O, so any adapter can host it. Only a CUSTOM provider needs the network: then the answer is a
``Pending`` question, and the adapter resumes with what the provider said. Whatever goes wrong here is a denial that
``failure_mode_allow`` cannot turn into an acceptance (CS-13, XA-95): the call itself always succeeds.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from authz.core.attributes import (
    AttributeContext,
)
from authz.core.decided import CandidateAnswer, Offer
from authz.core.decision import FORBIDDEN_BODY, Decision, Effect, Stage
from authz.core.introspection import TokenAnswer, TokenQuestion
from authz.core.pipeline import evaluate
from authz.core.providers import GivenAnswer
from authz.service.askers import HIDDEN_CAUSE, Described, Remarks, identity_problem
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.pending import NOTHING_KNOWN, InForce, Pending, Remembered
from authz.service.ports.failure import where_it_failed
from authz.service.told_claims import ToldClaims
from authz.service.vouched import Vouched
from authz.tokens.authenticate import DEFAULT_MAX_TOKEN_BYTES
from authz.tokens.cache import DEFAULT_CACHE_SIZE, TokenCache
from authz.tokens.key_sets import KeySets
from authz.tokens.plan import forget_plans
from authz.wire.answer import forget_answers, write_response
from authz.wire.check import DeliveredMetadata, RemoteMetadata, read_attributes

_log = logging.getLogger("authz.check")
JudgePeer = Callable[[AttributeContext, float], str]
"""Why a caller is not believed at that time; empty when it is. ``service.evidence`` has one."""
INTERNAL_STATUS = 503
"""Our own failures, as ``status_on_error`` in the recommended configuration: a client can tell them from a 403."""


def nothing_remembered(question: TokenQuestion, now: float) -> TokenAnswer | None:
    """Remember nothing: the issuer is asked about every token."""
    return None


class Audit(Protocol):
    """Where decisions are recorded: ``audit.trail``, or a list in a test."""

    def record(self, offer: Offer) -> bool:
        """Record without waiting or raising; False when it could not be done and the request must be refused."""


class Shadow(Protocol):
    """Decides requests beside the policies in force: ``service.candidate``."""

    def judge(self, request: Pending, decision: Decision) -> CandidateAnswer | None:
        """What it would have answered where that is another effect than the decision's. Never waits or raises."""


class CheckFunction:
    """
    The check service without a transport. ``replace`` puts a snapshot in force; requests under way keep theirs.

    ``failures`` counts denials that were our own fault; ``remarks``, what is odd about sidecars.
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
        remembered: Remembered = nothing_remembered,
    ) -> None:
        self._audit = audit
        self._ids = ids
        self._key_sets = key_sets
        self.on_unknown_key = on_unknown_key
        self.max_token_bytes = max_token_bytes
        self._token_cache_size = token_cache_size
        self._in_force: InForce | None = None
        self._told_claims = ToldClaims({})
        self._delivered: DeliveredMetadata = {namespace: {} for namespace in metadata_namespaces}
        self._judge_peer = judge_peer
        self.remembered = remembered
        self.shadow: Shadow | None = None
        """Told of every decision that policies made; it changes none."""
        self.failures = 0
        self.remarks = Remarks()

    @property
    def snapshot(self) -> Snapshot | None:
        """The policies in force; None before the first load."""
        return self._in_force.snapshot if self._in_force is not None else None

    @property
    def tokens(self) -> TokenCache | None:
        """The cache of verified tokens; None before the first load."""
        return self._in_force.tokens if self._in_force is not None else None

    def replace(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force, whole and at once."""
        described = Described(snapshot.workloads, snapshot.engine.for_workload)
        self._told_claims = ToldClaims(snapshot.limits)
        self._in_force = InForce(snapshot, TokenCache(self._token_cache_size), self._key_sets(), described)
        forget_plans()
        forget_answers()

    def check(
        self,
        message: bytes,
        metadata: RemoteMetadata,
        now: float,
        caller: str = "",
        vouched: Vouched | None = None,
    ) -> bytes | Pending:
        """
        Answer a serialised CheckRequest with a serialised CheckResponse, or with a question to a provider.

        Args:
            message: as it came.
            metadata: of the gRPC call.
            now: seconds since the epoch.
            caller: SPIFFE ID by which the sidecar asks over mutual TLS; empty where it has none.
            vouched: the limits of a proxy that asked in plain HTTP; None for a CheckRequest of an Envoy.

        Raises:
            Nothing.
        """
        started = perf_counter()
        decision_id = self._ids.next()
        in_force = self._in_force
        if in_force is None:
            return self._refuse_unready(decision_id, now)
        key_sets = self._key_sets()
        if key_sets is not in_force.key_sets:  # refreshed; requests under way keep theirs
            in_force = self._in_force = replace(in_force, key_sets=key_sets)
        request = Pending(self, in_force, message, decision_id, now, started)
        try:
            snapshot = in_force.snapshot
            attributes = read_attributes(
                message, metadata, trusted_proxies=snapshot.mesh.num_trusted_proxies, delivered=self._delivered
            )
            if vouched is not None:
                attributes = vouched.limit(attributes, snapshot.mesh.num_trusted_proxies)
            request.attributes, request.vouched = attributes, vouched
            if problem := self._misfit(request, caller):
                return self._answer(request, attributes, _refusal(Stage.IDENTITY, problem, 403, snapshot.version))
            attributes = request.attributes
            if self._judge_peer is not None and (problem := self._judge_peer(attributes, now)):
                return self._answer(request, attributes, _refusal(Stage.IDENTITY, problem, 403, snapshot.version))
            if attributes.http is not None and vouched is not None:
                if problem := vouched.path_problem(attributes.http.path, snapshot.mesh):
                    refusal = _refusal(Stage.NORMALIZATION, problem, 400, snapshot.version)
                    return self._answer(request, attributes, refusal)
            elif attributes.http is not None and attributes.http.is_partial:
                self.remarks.hidden_headers(attributes)
            policies = snapshot.engine.for_workload(attributes.destination.workload)
            request.steps = evaluate(policies, attributes, request.authenticate)
        except Exception as error:
            return self._fail(request, error)
        return self.proceed(request, None)

    def _misfit(self, request: Pending, caller: str) -> str:
        """Why the sidecar is not who it claims to be; empty, with its workload as described, when it is."""
        destination = request.attributes.destination
        said = destination.workload
        problem = identity_problem(destination.principal, said.namespace, said.service_account, caller)
        described = request.in_force.described
        if problem or described.is_empty:
            return problem
        settled = described.settle(destination, caller)
        if isinstance(settled, str):
            return settled
        if settled is not destination:
            self.remarks.labels(said, settled.workload)
            request.attributes = replace(request.attributes, destination=settled)
        return ""

    def proceed(self, request: Pending, answer: GivenAnswer | None) -> bytes | Pending:
        """Run the stages until there is a decision or a question. Never raises."""
        try:
            request.ask(request.steps.send(answer))  # type: ignore[arg-type]  # None starts a generator
            return request
        except StopIteration as stop:
            attributes, decision = stop.value
            try:
                return self._answer(request, attributes, decision, self.shadow)
            except Exception as error:
                return self._fail(request, error)
        except Exception as error:
            return self._fail(request, error)

    def _answer(
        self, request: Pending, attributes: AttributeContext, decision: Decision, shadow: Shadow | None = None
    ) -> bytes:
        vouched = request.vouched
        if vouched is not None and decision.is_allowed and (problem := vouched.undoable(decision.obligations)):
            decision = _refusal(Stage.INTERNAL, problem, 403, decision.policy_version)
        http = attributes.http
        if http is not None and http.is_partial and vouched is None and not decision.is_allowed:
            decision = replace(decision, reason=f"{decision.reason}; {HIDDEN_CAUSE}")
        response = write_response(decision, request.decision_id)
        if decision.is_allowed and self._told_claims:
            response += self._told_claims.for_request(attributes)
        offer = Offer(
            attributes,
            decision,
            request.decision_id,
            request.started_at,
            request.duration_seconds,
            request.cache_hit(attributes),
            request.timings,
            shadow.judge(request, decision) if shadow is not None else None,
        )
        if self._audit.record(offer):
            return response
        lost = _refusal(Stage.INTERNAL, "the audit queue is full", INTERNAL_STATUS, decision.policy_version)
        return write_response(lost, request.decision_id)

    def _fail(self, request: Pending, error: Exception) -> bytes:
        """Our mistake, or bytes that are not a request: deny, count, and say where, but never with which values."""
        self.failures += 1
        _log.error("a check failed and was denied, decision %s: %s", request.decision_id, where_it_failed(error))
        decision = _refusal(Stage.INTERNAL, "internal error", INTERNAL_STATUS, request.policy_version)
        with suppress(Exception):  # it may be the audit that failed
            known = request.attributes, decision, request.decision_id, request.started_at, request.duration_seconds
            self._audit.record(Offer(*known))
        return write_response(decision, request.decision_id)

    def _refuse_unready(self, decision_id: str, now: float) -> bytes:
        decision = _refusal(Stage.INTERNAL, "no policies are loaded yet", INTERNAL_STATUS, "")
        with suppress(Exception):
            self._audit.record(Offer(NOTHING_KNOWN, decision, decision_id, now, 0.0))
        return write_response(decision, decision_id)


def _refusal(stage: Stage, reason: str, status: int, policy_version: str) -> Decision:
    body = FORBIDDEN_BODY if status == 403 else ""
    return Decision(Effect.DENY, stage, reason, status=status, body=body, policy_version=policy_version)
