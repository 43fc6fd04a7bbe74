"""
The rules of a whole set of policies that decide nothing, for any workload to which they apply.

A rule that decides one request at one workload is needed, and is not asked about again. What is told can be removed all
at once: a rule that is covered by another needless one is judged again without it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from authz.analysis.needless.open_to_all import open_to_all
from authz.analysis.needless.rule_judge import Neighbours, RuleJudge
from authz.analysis.needless.signs_of_life import living
from authz.analysis.needless.staged_rules import ALLOW, StagedRule, narrowed, rules_by_stage
from authz.analysis.needless.verdict import NeedlessRules, RuleId, RuleVerdict, VerdictKind, id_of, summed_up
from authz.analysis.sets.asked_workloads import AskedWorkload, applying
from authz.analysis.sets.model import PolicyPair
from authz.core.engine import Engine
from authz.core.resources import GATEWAY_NAME_LABEL, AuthorizationPolicy

StartLimit = Callable[[], Callable[[], bool]]
"""Starts the time of one question and answers what tells that it is over."""
AT_ONCE = 24
"""Rules that are judged in one model."""
FEW_RULES = 100
"""Rules of a workload up to which that is less work than a model for each."""
_GATEWAY_WORDS = ("gateway", "ingress", "egress")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A workload, and the verdict on a rule there."""

    pair: PolicyPair
    rule: StagedRule
    verdict: RuleVerdict


def needless_rules(
    engine: Engine, workloads: Sequence[AskedWorkload], start: StartLimit, *, is_whole: bool = True
) -> NeedlessRules:
    """
    Judge every rule of a set of policies.

    Args:
        workloads: those of a mesh description, or all that the policies tell apart.
        start: gives each workload its time; what is not known by then is undecided.
        is_whole: whether these are all workloads that there are; otherwise no rule is called needless.
    """
    run = _Run(engine, start, NeedlessRules())
    for asked in workloads:
        for gateway in _kinds(engine, asked):
            run.look_at(asked, gateway=gateway)
    run.sum_up(is_whole=is_whole)
    return run.found


def _kinds(engine: Engine, asked: AskedWorkload) -> tuple[bool, ...]:
    """Whether it is asked about as a gateway: without a mesh description some workloads may be one or not."""
    if asked.is_gateway:
        return (True,)
    if asked.callers:  # of a mesh description, which says so
        return (False,)
    workload = asked.workload
    labels = dict(workload.labels)
    if GATEWAY_NAME_LABEL in labels:
        return (True,)
    texts = (workload.namespace, *labels, *labels.values())
    named = any(word in text for text in texts for word in _GATEWAY_WORDS)
    return (False, True) if named or workload.namespace == engine.mesh.root_namespace else (False,)


@dataclass(slots=True)
class _Run:
    engine: Engine
    start: StartLimit
    found: NeedlessRules
    _alive: set[RuleId] = field(default_factory=set)
    _asked: dict[RuleId, list[_Asked]] = field(default_factory=dict)
    _seen: set[object] = field(default_factory=set)
    _opened: set[object] = field(default_factory=set)
    _verdicts: dict[object, RuleVerdict] = field(default_factory=dict)
    """By rule, and what may bear on it."""
    _late: set[RuleId] = field(default_factory=set)
    """Rules of workloads that were not looked at in time."""

    def look_at(self, asked: AskedWorkload, *, gateway: bool) -> None:
        """Judge the rules of a workload that no other has shown to be needed."""
        if self._is_known(asked):
            return
        if self.start()():
            self._late |= {_name(policy, index) for policy, index in self._written(asked)}
            return
        policies = self.engine.for_workload(asked.workload)
        key = (applying(policies), gateway, asked.ports)
        if not policies.policies or key in self._seen:
            return
        self._seen.add(key)
        pair = PolicyPair(policies, policies, gateway, asked.ports, asked.callers)
        rules = rules_by_stage(policies)
        new = [rule for rule in rules if rule.id not in self._alive and rule.id not in self._asked]
        self._alive |= living(pair, new, self.start())
        pending = [rule for rule in rules if rule.id not in self._alive]
        if pending:
            self._judge(pair, rules, pending)
        self._look_for_open(pair, rules, self.start())

    def _judge(self, pair: PolicyPair, rules: list[StagedRule], pending: list[StagedRule]) -> None:
        """Judge those rules of a workload that are not judged among the same neighbours at another one."""
        neighbours = Neighbours(rules)
        keys = {rule.id: (rule.id, _beside(rule, neighbours, pair)) for rule in pending}
        left = [rule for rule in pending if keys[rule.id] not in self._verdicts]
        at_once = AT_ONCE if len(rules) <= FEW_RULES else 1
        for begin in range(0, len(left), at_once):
            for rule, verdict in _judged(pair, neighbours, left[begin : begin + at_once], self.start):
                self._verdicts[keys[rule.id]] = verdict
                if verdict.kind is VerdictKind.DECIDES:
                    self._alive.add(rule.id)
                self._asked.setdefault(rule.id, []).append(_Asked(pair, rule, verdict))

    def _is_known(self, asked: AskedWorkload) -> bool:
        """Whether every rule of a workload is known to be needed, and its ALLOW policies were looked at."""
        written = tuple(map(id, self.engine.written_for(asked.workload)))
        return written in self._opened and all(_name(*one) in self._alive for one in self._written(asked))

    def _written(self, asked: AskedWorkload) -> Iterator[tuple[AuthorizationPolicy, int]]:
        for policy in self.engine.written_for(asked.workload):
            yield from ((policy, index) for index, _ in enumerate(policy.rules))

    def _look_for_open(self, pair: PolicyPair, rules: list[StagedRule], expired: Callable[[], bool]) -> None:
        self._opened.add(tuple(map(id, self.engine.written_for(pair.new.workload))))
        allowing = (pair.is_gateway, frozenset(rule.id for rule in rules if rule.stage == ALLOW))
        if allowing not in self._opened:
            self._opened.add(allowing)
            opened = open_to_all(pair, rules, expired)
            if opened and opened not in self.found.open:
                self.found.open.append(opened)

    def sum_up(self, *, is_whole: bool) -> None:
        """Call those rules needless that are so at every workload, one after the other."""
        self.found.judged |= self._alive
        needless: list[list[_Asked]] = []
        self.found.undecided |= dict.fromkeys(sorted(self._late - self._alive), "the time limit is reached")
        for name, asked in self._asked.items():
            if name in self._alive or name in self._late:
                continue
            unknown = next((one.verdict for one in asked if not one.verdict.is_needless), None)
            if unknown is not None or not is_whole:
                self.found.undecided[name] = unknown.reason if unknown else "not all workloads were looked at"
            else:
                needless.append(asked)
        removed: set[RuleId] = set()
        for asked in sorted(needless, key=_order):
            verdicts = [one.verdict for one in asked]
            if any(id_of(by) in removed for verdict in verdicts for by in verdict.by):
                verdicts = [self._again(one, removed) for one in asked]
            name = asked[0].rule.id
            if all(verdict.is_needless for verdict in verdicts):
                removed.add(name)
                self.found.verdicts[name] = summed_up(verdicts)
            unknown = next((one for one in verdicts if one.kind is VerdictKind.UNKNOWN), None)
            if unknown is not None:
                self.found.undecided[name] = unknown.reason
            else:
                self.found.judged.add(name)

    def _again(self, asked: _Asked, removed: set[RuleId]) -> RuleVerdict:
        """Judge it without those that were removed."""
        left = [rule for rule in rules_by_stage(asked.pair.new) if rule.id not in removed]
        policies = narrowed(asked.pair.new, left)
        pair = replace(asked.pair, old=policies, new=policies)
        return next(verdict for _, verdict in _judged(pair, Neighbours(left), [asked.rule], self.start))


def _judged(
    pair: PolicyPair, neighbours: Neighbours, about: list[StagedRule], start: StartLimit
) -> Iterator[tuple[StagedRule, RuleVerdict]]:
    """The verdict on each of some rules; where one model of all is not possible, each has its own."""
    judge = RuleJudge(pair, neighbours.of(about), about, start())
    if judge.undecided and len(about) > 1:
        for rule in about:
            yield rule, RuleJudge(pair, neighbours.of([rule]), [rule], start()).verdict(rule)
        return
    for rule in about:
        yield rule, judge.verdict(rule)


def _name(policy: AuthorizationPolicy, index: int) -> RuleId:
    return policy.metadata.namespace, policy.metadata.name, index


def _beside(rule: StagedRule, neighbours: Neighbours, pair: PolicyPair) -> object:
    """All that may bear on whether a rule decides something at a workload."""
    policies = pair.new
    return (
        frozenset((one.stage, one.id) for one in neighbours.of([rule])),
        tuple(map(id, policies.jwt_rules)),
        (policies.base_mode, tuple(policies.port_modes.items()), pair.is_gateway, pair.ports),
        (policies.http.allow is None, policies.tcp.allow is None),
        tuple(custom.provider.name for custom in policies.http.custom if custom.provider is not None),
    )


def _order(asked: list[_Asked]) -> tuple[object, ...]:
    """Those first that one other rule covers; of equal ones the one that asks for more, or comes later."""
    most = max(len(one.verdict.by) for one in asked)
    form = asked[0].rule.compiled[0]
    asks = sum(map(len, (*form.sources, *form.operations, form.conditions)))
    namespace, policy, index = asked[0].rule.id
    return (most > 1, -asks, [-ord(letter) for letter in f"{namespace}/{policy}"], -index)
