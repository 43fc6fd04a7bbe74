"""
One question about rate limits from bytes to bytes: which rules apply, what is counted, and what is left.

Envoy says which rules chose the request, and the values that it counts by; who the caller is stands in the metadata of
the call. A key in the store holds a digest of those values, never a value.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from authz.core.attributes import AttributeContext, Destination, HttpRequest, Source, Workload
from authz.core.decided import Offer
from authz.core.decision import Decision, Effect, Stage
from authz.core.spiffe import SpiffeId
from authz.mesh.rate_limits import NAMESPACE, PRINCIPAL, AppliedLimit, AttributeSelector, RateLimitRule, ValueMatch
from authz.service.check_function import Audit
from authz.service.rate_limits.quota_store import QuotaStore, StoreDown
from authz.telemetry.status import RateLimitStatus
from authz.wire.limit_messages import NO_QUOTA, Entries, Quota, read_limit_request, write_limit_response

TOO_MANY, UNAVAILABLE = 429, 503
RULE, TARGET = "rule", "target"
NOT_TOLD = "-"
"""What an access log of Envoy writes for nothing."""
CallFacts = Mapping[str, str]
"""Metadata of the call: ``x-authz-principal`` and others."""


class RuleAtHand(NamedTuple):
    """A rule that applies to the request at hand, the key of its counter and the end of its window."""

    rule: RateLimitRule
    key: str
    ends_at: float


class RateLimiter:
    """Answers for the limits in force; ``replace`` puts others in force. ``results`` counts what came of rules."""

    def __init__(self, store: QuotaStore, audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self._rules: dict[str, RateLimitRule] = {}
        self._workloads: dict[str, Workload] = {}
        self._version = ""
        self.results: Counter[tuple[str, str, str, str]] = Counter()
        """By policy's namespace and name, number and result: allowed, refused, shadow or uncounted."""
        self.unknown = 0
        """Rules that Envoy knows and we do not: it has another description of the mesh."""
        self._problem = ""

    def replace(self, limits: Mapping[Workload, tuple[AppliedLimit, ...]], version: str) -> None:
        """Put the limits of these workloads in force. ``version`` is that of the policies, for records."""
        self._rules = {one.rule.id: one.rule for applied in limits.values() for one in applied}
        self._workloads = {workload.name: workload for workload in limits}
        self._version = version

    def status(self) -> RateLimitStatus:
        """What came of counting so far."""
        return RateLimitStatus(dict(self.results), self.unknown, self._problem)

    async def answer(self, message: bytes, facts: CallFacts, now: float) -> bytes:
        """
        Answer a RateLimitRequest.

        Raises:
            ValueError: it is none.
            StoreDown: nobody can count. Envoy does what the limit says; a refusal is recorded here.
        """
        unknown = self.unknown
        asked = [self._applying(entries, facts, now) for entries in read_limit_request(message)]
        if self.unknown > unknown and facts.get("x-authz-fail-closed") == "yes":
            reason = "nobody can count for a limit that the proxy has and the mesh description here has not"
            self._record(None, reason, UNAVAILABLE, facts, now)
            raise StoreDown(reason)
        applying = [one for one in asked if one is not None]
        try:
            if len(applying) == 1:  # tasks cost as much as counting
                counted = [await self._count(applying[0], now)]
            else:
                counted = await asyncio.gather(*(self._count(one, now) for one in applying))
        except StoreDown as error:
            self._problem = str(error)
            for one in applying:
                self._note(one.rule, "uncounted")
            closed = next((one.rule for one in applying if one.rule.fails_closed), None)
            if closed is not None:
                self._record(
                    closed, f"nobody can count for the limit {closed.reference.short}", UNAVAILABLE, facts, now
                )
            raise
        self._problem = "" if applying else self._problem
        quotas = dict(zip(applying, counted, strict=True))
        refusing = next((one.rule for one, quota in quotas.items() if quota.is_over and not one.rule.is_shadow), None)
        for one, quota in quotas.items():
            over = "shadow" if one.rule.is_shadow else "refused"
            self._note(one.rule, over if quota.is_over else "allowed")
        if refusing is not None:
            per = f"{refusing.requests} per {refusing.unit.lower()}"
            self._record(refusing, f"the limit {refusing.reference.short} of {per} is used up", TOO_MANY, facts, now)
        told = (quotas[one] if one is not None and not one.rule.is_shadow else NO_QUOTA for one in asked)
        return write_limit_response(told, refusing.id if refusing is not None else "")

    def _applying(self, entries: Entries, facts: CallFacts, now: float) -> RuleAtHand | None:
        named = dict(entries)
        rule = self._rules.get(named.get(RULE, ""))
        if rule is None:
            self.unknown += 1
            return None
        values = [value for key, value in entries if key != RULE]
        for selector in rule.attributes:
            value = _value(selector, named, facts) or selector.default
            if not value or not _fits(selector, value):
                return None
            if selector.match is ValueMatch.DISTINCT:
                values.append(value)
        seconds = rule.unit.seconds
        window = int(now // seconds)
        digest = blake2b(_told_apart(values), digest_size=16).hexdigest()
        return RuleAtHand(rule, f"{rule.id}/{seconds}/{window}/{digest}", float((window + 1) * seconds))

    async def _count(self, one: RuleAtHand, now: float) -> Quota:
        rule = one.rule
        used = await self._store.add(one.key, one.ends_at, rule.cost, now)
        over = used > rule.requests or (rule.cost == 0 and used >= rule.requests)
        left = max(rule.requests - used, 0)
        return Quota(over, rule.requests, rule.unit.seconds, left, max(int(one.ends_at - now), 0))

    def _note(self, rule: RateLimitRule, result: str) -> None:
        found = rule.reference
        self.results[found.namespace, found.policy, str(found.index), result] += 1

    def _record(self, rule: RateLimitRule | None, reason: str, status: int, facts: CallFacts, now: float) -> None:
        """Record a refusal, unless the proxy's own log does: one that enforces by itself is recorded from there."""
        if facts.get("x-authz-enforce") == "native":
            return
        found = rule.reference if rule is not None else None
        decision = Decision(Effect.DENY, Stage.RATE_LIMIT, reason, found, status, policy_version=self._version)
        request_id = facts.get("x-authz-request-id", "")
        self._audit.record(Offer(self._attributes(facts), decision, request_id, now, 0.0))

    def _attributes(self, facts: CallFacts) -> AttributeContext:
        told = {name: value for name, value in facts.items() if value != NOT_TOLD}
        uris = told.get("x-authz-principal", "")
        direct, remote = told.get("x-authz-direct-ip", ""), told.get("x-authz-remote-ip", "")
        source = Source(tuple(uris.split(",")) if uris else (), direct, remote or direct)
        name = told.get("x-authz-proxy", "")
        workload = self._workloads.get(name) or Workload("", name=name)
        method, host = told.get("x-authz-method", ""), told.get("x-authz-host", "")
        request_id = told.get("x-authz-request-id", "")
        http = HttpRequest(
            method,
            host,
            told.get("x-authz-path", ""),
            {":method": (method,), ":authority": (host,), "x-request-id": (request_id,)},
            id=request_id,
        )
        return AttributeContext(source, Destination(workload), http)


def _value(selector: AttributeSelector, named: Mapping[str, str], facts: CallFacts) -> str:
    """The value at hand; empty where there is none."""
    if selector.claim:
        return named.get(selector.key, "")
    uri = facts.get("x-authz-principal", "")
    if selector.key == PRINCIPAL:
        return uri.removeprefix("spiffe://") if uri != NOT_TOLD else ""
    assert selector.key == NAMESPACE, "the reader refuses others"
    try:
        return SpiffeId.parse(uri).namespace or ""
    except ValueError:
        return ""


def _told_apart(values: Sequence[str]) -> bytes:
    """Each with its length in front: a claim may hold any character, and others' quotas must not be used up by it."""
    texts = [value.encode("utf-8", "surrogateescape") for value in values]
    return b"".join(b"%d:%b" % (len(text), text) for text in texts)


def _fits(selector: AttributeSelector, value: str) -> bool:
    return selector.match is ValueMatch.DISTINCT or (value == selector.value) is not selector.invert
