"""
A workload's policies against a real Envoy, here and now: its native filters and the engine are asked the same.

Key sets get a key of the trial's own besides their keys, since nobody else's can sign; CUSTOM providers are played by a
stand-in that allows. Everything else is what a mesh would run.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz.analysis.verify.facts import Facts
from authz.analysis.verify.requests import Sender, Tried, requests_of
from authz.analysis.verify.sides import KEY_ID, Decided, SentRequest, Trial, TrialSubject, trial_engine
from authz.analysis.verify.two_accounts import OK, told_by_envoy
from authz.core.attributes import AttributeContext
from authz.core.decision import RuleReference
from authz.core.engine import Engine, WorkloadPolicies
from authz.tokens.signing import make_keys


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One request on which Envoy and the engine differ, and in which facts."""

    facts: Facts
    differences: tuple[tuple[str, object, object], ...]
    """The fact, Envoy's answer, and the engine's."""
    attributes: AttributeContext
    policies: WorkloadPolicies
    answers: Mapping[str, str]
    """The answers of CUSTOM providers, by name."""


@dataclass(frozen=True, slots=True)
class RuleTried:
    """One rule: whether Envoy named it, and if not, why."""

    reference: RuleReference
    stage: str
    requests: int
    is_hit: bool
    why: str = ""
    unsendable: tuple[str, ...] = ()
    """Alternatives of the rule that no request could meet."""


@dataclass(slots=True)
class TrialOutcome:
    """The outcome for one workload."""

    workload: str
    rules: list[RuleTried] = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    """Requests that Envoy's codec refused before any policy was asked."""
    allowed: int = 0
    left_out: int = 0
    """Requests beyond the limit."""
    disagreements: list[Disagreement] = field(default_factory=list)

    @property
    def hit(self) -> int:
        """Rules that Envoy named."""
        return sum(rule.is_hit for rule in self.rules)


def try_workload(
    engine: Engine,
    subject: TrialSubject,
    key_sets: Mapping[str, str],
    *,
    binary: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> TrialOutcome:
    """
    Try everything of one workload on an Envoy that is started for it.

    Raises EnvoyError when there is none or it refuses the filters.
    """
    key = make_keys({"key": {"kty": "RSA", "kid": KEY_ID, "alg": "RS256"}})["key"]
    compiled = trial_engine(engine, key_sets, key)
    trial = Trial(compiled, subject, key)
    outcome = TrialOutcome(subject.target.workload.name)
    tried = list(requests_of(trial.sender))
    chosen, outcome.left_out = _chosen(trial.sender, tried, subject.max_requests)
    rules = f"{len(tried)} rule{'s' if len(tried) != 1 else ''}"
    say(f"{outcome.workload}: {rules}, {len(chosen)} requests")
    with (
        tempfile.TemporaryDirectory(prefix="authz-verify-") as directory,
        trial.running(Path(directory), binary) as envoy,
    ):
        asked = list(trial.ask(envoy, [one.facts for one in chosen], say))
        log = envoy.logged_of({one.number for one in asked if one.is_surely_logged})
    noted = _Noted()
    for one in asked[:-1]:
        _note(trial, one, log.get(one.number, {}), outcome, noted)
    for index, one_rule in enumerate(tried):
        outcome.rules.append(noted.rule(index, one_rule, chosen))
    return outcome


@dataclass(slots=True)
class _Chosen:
    """One request, and the rules for which it is sent."""

    facts: Facts
    fires: set[int] = field(default_factory=set)
    """Rules that it is to fire."""
    beside: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Noted:
    """The observations so far: names of the rules that were told, and what came of each request."""

    hit: set[str] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    decided: dict[int, "Decided"] = field(default_factory=dict)

    def rule(self, index: int, tried: Tried, chosen: Sequence[_Chosen]) -> RuleTried:
        reference = tried.rule.reference
        is_hit = reference.short in self.hit
        unsendable = tuple(dict.fromkeys(tried.unsendable))
        requests = [number for number, one in enumerate(chosen) if index in one.fires or index in one.beside]
        stage = f"{tried.policy.action.lower()}{' (dry run)' if tried.policy.dry_run else ''}"
        why = "" if is_hit else self._why(index, tried, chosen) or "; ".join(unsendable) or "no request was made"
        return RuleTried(reference, stage, len(requests), is_hit, why, unsendable)

    def _why(self, index: int, tried: Tried, chosen: Sequence[_Chosen]) -> str:
        found = ""
        for number, one in enumerate(chosen):
            if index not in one.fires:
                continue
            if number in self.decided:
                decided = self.decided[number]
                if tried.rule.fires(decided.attributes):
                    named = ", ".join(sorted(decided.rules)) or decided.decision.reason
                    return f"it fires, but what is reported is {named}"
                found = found or f"the request for it does not fire it: {decided.decision.reason}"
            elif number in self.refused:
                found = found or "Envoy refuses the request for it before any policy is asked"
        return found


def _chosen(sender: Sender, tried: Sequence[Tried], most: int) -> tuple[list[_Chosen], int]:
    """
    The requests to send, each once: first those that fire rules, then what lies beside, rule by rule in turn.

    Returns:
        The requests, and how many are left out.
    """
    found: dict[str, _Chosen] = {}

    def take(facts: Facts) -> _Chosen:
        return found.setdefault(repr(facts), _Chosen(facts))

    take(sender.base())
    for index, one in enumerate(tried):
        for facts in one.witnesses:
            take(facts).fires.add(index)
    for at in range(max((len(one.beside) for one in tried), default=0)):
        for index, one in enumerate(tried):
            if at < len(one.beside):
                take(one.beside[at]).beside.add(index)
    chosen = list(found.values())
    return chosen[:most], max(0, len(chosen) - most)


def _note(trial: Trial, asked: SentRequest, logged: Mapping[str, Any], outcome: TrialOutcome, noted: _Noted) -> None:
    """Compare one answer with the engine's."""
    outcome.requests += 1
    told = told_by_envoy(asked.told, logged, restricted=trial.is_restricted)
    if told is None:
        outcome.refused += 1
        noted.refused.add(asked.index)
        return
    outcome.allowed += told["status"] == OK
    decided = trial.decide(asked.facts)
    differences = decided.differences(told, has_body=asked.facts.method != "HEAD")
    if differences:
        outcome.disagreements.append(
            Disagreement(asked.facts, differences, decided.attributes, trial.policies, decided.answers)
        )
        return
    noted.hit |= decided.rules
    noted.decided[asked.index] = decided
