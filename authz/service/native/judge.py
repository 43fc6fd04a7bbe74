"""
One access log entry: decided again by the engine, compared with what Envoy did, and made an offer for the record.

Where the engine agrees, its decision is the one recorded: it names the rule's file and line and what dry-run and AUDIT
policies found, exactly as for a check. Where it does not, Envoy's answer is recorded, because it is what happened.
What an entry cannot show is not a disagreement; it is counted separately.
"""

from collections import deque
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from authz.core.asked import header_of, keys_of, rules_of
from authz.core.attributes import AttributeContext, Authentication
from authz.core.decided import Offer
from authz.core.decision import Decision, Effect
from authz.core.engine import WorkloadPolicies
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import JwtRule
from authz.envoy.native.filters_version import filters_version
from authz.service.native.agreement import PreparedWorkload, again, agree, is_blind, may_agree
from authz.service.native.told import limited_decision, told_decision
from authz.wire.access_log import Alike, LogEntry

GRACE_SECONDS = 60.0
"""How long after a reload a proxy may still decide by the old policies, if its entries do not say by which."""
MAX_REMEMBERED = 4096
MAX_ANSWERS = 16_384
MAX_PATH = 1024
"""Most characters of a path whose answer is remembered; a client may write 60,000, new ones each time."""
_OWN_HEADERS = frozenset({"x-request-id", ":path", "traceparent"})


class Verdict(StrEnum):
    """What came of deciding an entry again; the label of the metric."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    UNKNOWN = "unknown"
    """The rule that made the difference asks for a fact that the entry lacks."""
    UNVERIFIED = "unverified"
    """A refused token or a provider's answer: the entry cannot show why."""
    OTHER_VERSION = "other_version"
    """Decided by policies that are not known here: not yet, or no longer."""
    SKIPPED = "skipped"
    """Not in the sample."""


class Judged(NamedTuple):
    """An offer for the record, and how it was arrived at."""

    offer: Offer
    verdict: Verdict
    engine: Decision | None = None
    """What the engine decided, for a disagreement."""


class Judge:
    """
    Judges entries by the policies in force, or those before them shortly after a reload. Used by one thread.

    ``sample``: share of requests that are decided again, 0 to 1. Denials, what an AUDIT policy chose, and the first of
    requests that are alike are decided again in any case. The answer for one request is the answer for every other in
    which all that policies can ask for is the same, so it is remembered and counts for those, too.
    """

    def __init__(self, sample: float = 1.0) -> None:
        self._sample = sample
        self._due = 0.0
        self._sets: deque[tuple[PoliciesByWorkload, float]] = deque(maxlen=2)
        """Newest first, with the time at which each was put in force."""
        self._known: dict[int, PreparedWorkload] = {}
        self._told: dict[tuple[object, ...], Decision] = {}
        self._agreed: dict[tuple[object, ...], Decision] = {}
        """By the remembered decision of Envoy, so cleared together with those."""
        self._tokens: dict[int, tuple[Authentication, WorkloadPolicies, Authentication]] = {}
        self._judged: dict[tuple[object, ...], tuple[Decision, Verdict, Authentication]] = {}
        """By everything in an entry that the policies can ask for."""

    def replace(self, policies: PoliciesByWorkload, now: float) -> None:
        """Put policies in force. Those before are kept until the next, for what is still decided by them."""
        self._sets.appendleft((policies, now))
        self._known.clear()
        self._forget()
        self._tokens.clear()

    def _forget(self) -> None:
        self._told.clear()
        self._agreed.clear()
        self._judged.clear()

    def judge(self, entry: LogEntry) -> Judged:
        """Judge one entry. Raises LookupError while no policies are in force."""
        if entry.enforced.limited_by and not entry.enforced.version and self._sets:
            # A proxy that asks the check tells only of what it refused itself; the check has recorded the rest.
            known = self._know(self._sets[0][0], entry)
            told, _ = self._as_told(entry, known)
            judged = Judged(_offer(entry, entry.attributes, told), Verdict.SKIPPED)
        else:
            judged = self._judge_policies(entry)
        offer = judged.offer
        if not entry.enforced.limited_by or not offer.decision.is_allowed:
            return judged
        return judged._replace(offer=offer._replace(decision=limited_decision(offer.decision, entry.enforced)))

    def _judge_policies(self, entry: LogEntry) -> Judged:
        if not self._sets:
            raise LookupError("no policies are in force")
        candidates = self._candidates(entry)
        attributes, alike = entry.attributes, _remembered(entry)
        source, path = attributes.source, attributes.http.path if attributes.http is not None else ""
        key = (alike, len(candidates), path, source.ip, source.remote_ip)
        before = self._judged.get(key) if alike is not None else None
        if before is not None:
            decision, verdict, authentication = before
            return Judged(_offer(entry, attributes.after(authentication), decision), verdict)
        known = self._know(candidates[0] if candidates else self._sets[0][0], entry)
        named = self._with_rule(attributes.authentication, known.policies, is_kept=alike is not None)
        attributes = attributes.after(named)
        told, is_first = self._as_told(entry, known)
        if not candidates:
            return Judged(_offer(entry, attributes, replace(told, policy_version=entry.enforced.version)),
                          Verdict.OTHER_VERSION)  # fmt: skip
        if not (is_first or told.effect is Effect.DENY or told.audit) and not self._is_due():
            return Judged(_offer(entry, attributes, told), Verdict.SKIPPED)
        judged = self._decideagain(entry, attributes, candidates)
        if alike is None or judged.verdict is Verdict.DISAGREED or len(path) > MAX_PATH:
            return judged
        if not any(self._know(one, entry).asks_for_own for one in candidates):
            if len(self._judged) >= MAX_ANSWERS:
                self._judged.clear()
            self._judged[key] = (judged.offer.decision, judged.verdict, attributes.authentication)
        return judged

    def _decideagain(
        self, entry: LogEntry, attributes: AttributeContext, candidates: list[PoliciesByWorkload]
    ) -> Judged:
        first: tuple[Decision, Decision] | None = None
        blind = False
        for one in candidates:
            ours = self._know(one, entry)
            decision = again(ours.policies, attributes, entry.enforced)
            said, _ = self._as_told(entry, ours)
            if agree(said, decision, entry):
                verdict = Verdict.UNVERIFIED if entry.enforced.denied_by in ("jwt", "custom") else Verdict.AGREED
                return Judged(_offer(entry, attributes, self._same(said, decision)), verdict)
            first = first or (said, decision)
            blind = blind or is_blind(ours, entry, said, decision) or may_agree(ours, attributes, entry, said)
        assert first is not None  # there are candidates
        told, engine = first
        if not entry.enforced.version and entry.started_at < self._sets[-1][1] + GRACE_SECONDS:
            # it may have been decided by policies older than any known here
            return Judged(_offer(entry, attributes, told), Verdict.OTHER_VERSION)
        return Judged(_offer(entry, attributes, told), Verdict.UNKNOWN if blind else Verdict.DISAGREED, engine)

    def is_settled(self, entry: LogEntry) -> bool:
        """Whether the policies in force are so much older than the request that every proxy should have them."""
        return bool(self._sets) and entry.started_at > self._sets[0][1] + GRACE_SECONDS

    def jwt_rules(self, entry: LogEntry) -> tuple[JwtRule, ...]:
        """The token rules of the entry's workload; none while no policies are in force."""
        if not self._sets:
            return ()
        return self._know(self._sets[0][0], entry).policies.jwt_rules

    def _same(self, told: Decision, decision: Decision) -> Decision:
        """
        One value for all decisions that are recorded alike: what is the same object is written only once.

        What dry-run policies found is part of it: not every entry says that, so what Envoy said does not settle it.
        """
        rule, audit_rule = decision.rule, decision.audit_rule
        key: tuple[object, ...] = (
            id(told), rule.name if rule is not None else "", audit_rule.name if audit_rule is not None else "",
        )  # fmt: skip
        if decision.dry_run_allow is not None or decision.dry_run_deny is not None:
            key += (decision.dry_run_allow, decision.dry_run_deny)
        return self._agreed.setdefault(key, decision)

    def _candidates(self, entry: LogEntry) -> list[PoliciesByWorkload]:
        """
        The policies that may have decided, newest first: those that the entry names, else those of its time.

        Filters decide when a request or connection begins, however long it lasts.
        """
        version = entry.enforced.version
        if version:
            return [one for one, _ in self._sets if self._know(one, entry).version == version]
        (current, since), *older = self._sets
        return [current, *(one for one, _ in older if entry.started_at < since + GRACE_SECONDS)]

    def _is_due(self) -> bool:
        self._due += self._sample
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True

    def _know(self, chosen: PoliciesByWorkload, entry: LogEntry) -> PreparedWorkload:
        policies = chosen.for_workload(entry.attributes.destination.workload)
        known = self._known.get(id(policies))
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
                self._forget()  # their keys are ids of objects that are freed
            rules = (*rules_of(policies.http), *rules_of(policies.tcp))
            allow = [one for one in (policies.http.allow, policies.tcp.allow) if one is not None]
            known = self._known[id(policies)] = PreparedWorkload(
                policies,
                {rule.reference.name: rule.reference for rule in rules},
                frozenset(rule.reference.name for one in allow for rule in one.rules),
                any(header_of(key) in _OWN_HEADERS for rule in rules for key in keys_of(rule)),
                filters_version(chosen, policies.workload),
            )
        return known

    def _with_rule(self, found: Authentication, policies: WorkloadPolicies, *, is_kept: bool) -> Authentication:
        """
        Name the jwtRule that accepted the token: the first of its issuer and audience.

        ``is_kept``: whether it may be remembered; the claims of an entry that is not may be long.
        """
        token = found.token
        if token is None or not policies.jwt_rules:
            return found
        kept = self._tokens.get(id(found))
        if kept is None or kept[1] is not policies:
            if len(self._tokens) >= MAX_REMEMBERED:
                self._tokens.clear()
            name = _accepting(policies.jwt_rules, token.issuer, token.claims.get("aud"))
            kept = (found, policies, replace(found, token=replace(token, rule=name)))
            if is_kept:
                self._tokens[id(found)] = kept
        return kept[2]

    def _as_told(self, entry: LogEntry, known: PreparedWorkload) -> tuple[Decision, bool]:
        """What Envoy did as a decision, and whether it is the first like it; remembered, because most are alike."""
        enforced, is_tcp = entry.enforced, entry.attributes.http is None
        alike = _remembered(entry)
        key: tuple[object, ...] = (id(known), alike)
        if alike is None:
            key = (
                id(known), is_tcp, enforced.details if enforced.is_denied else "", enforced.status,
                *sorted(enforced.results.items()), enforced.audit, enforced.version,
            )  # fmt: skip
        found = self._told.get(key)
        if found is not None:
            return found, False
        if len(self._told) >= MAX_REMEMBERED:
            self._forget()
        found = self._told[key] = told_decision(enforced, known.policies, known.names, known.allow, tcp=is_tcp)
        return found, True


def _remembered(entry: LogEntry) -> Alike | None:
    """What entries have in common, if it is remembered; remembering answers by anything else would waste memory."""
    return entry.alike if entry.alike is not None and entry.alike.is_remembered else None


def _accepting(rules: tuple[JwtRule, ...], issuer: str, audience: object) -> str:
    held = (
        {audience}
        if isinstance(audience, str)
        else {str(one) for one in audience}
        if isinstance(audience, list)
        else set()
    )
    for rule in rules:
        if rule.issuer == issuer and (not rule.audiences or not held or held & set(rule.audiences)):
            return rule.name
    return next((rule.name for rule in rules if not rule.issuer), "")


def _offer(entry: LogEntry, attributes: AttributeContext, decision: Decision) -> Offer:
    """How long Envoy took to decide is not in the entry, so no time is claimed."""
    return Offer(attributes, decision, entry.decision_id, entry.started_at, 0.0)
