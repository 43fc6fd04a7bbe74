"""
Which mutants do suites not notice?

A mutant is killed by a case that passes with the policies as written and fails with the mutant. Of one that survives
all cases the difference of both sets is asked for every workload: where it is proved that no answer differs, there is
nothing to notice; where it is not, a request whose answer differs becomes a new case, which is run on both sides.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from authz.analysis.mutants.mutant import Mutant, Origin, mutated, origin_of
from authz.analysis.mutants.mutations import mutants_of
from authz.analysis.mutants.new_case import NewCase, new_case
from authz.analysis.sets.asked_workloads import AskedWorkload, applying, targets_of
from authz.analysis.sets.difference import Change, Difference, difference
from authz.analysis.sets.model import PolicyPair
from authz.analysis.suites.run import PreparedGroup, Select, prepare, run_case
from authz.analysis.suites.suite import Case, Suite
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.tokens.signing import KeyPool

StartTimer = Callable[[], Callable[[], bool]]
"""Starts the time of one proof and answers what tells that it is over."""


class MutantFate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUAL = "equal"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class MutantVerdict:
    """One mutant, judged."""

    mutant: Mutant
    fate: MutantFate
    killed_by: str = ""
    """``file/group/case`` of the first case that fails."""
    change: Change | None = None
    """One request that is answered differently, of a survivor; None where ``case`` was found for another mutant."""
    workload: str = ""
    """The workload of that request."""
    case: NewCase | None = None
    """A case that passes with the policies as written and fails with the mutant; None where none is found."""
    reasons: tuple[str, ...] = ()
    """Why it is not known whether some answer differs."""


@dataclass(slots=True)
class MutationScore:
    """All mutants that were judged."""

    verdicts: list[MutantVerdict] = field(default_factory=list)

    def of(self, fate: MutantFate) -> list[MutantVerdict]:
        """The mutants with one fate, in their order."""
        return [verdict for verdict in self.verdicts if verdict.fate is fate]

    @property
    def counted(self) -> int:
        """Mutants that are not proved equal."""
        return len(self.verdicts) - len(self.of(MutantFate.EQUAL))

    @property
    def percent(self) -> float:
        """Share of killed mutants of those that are not proved equal, 0 to 100; 100 without any."""
        return 100.0 * len(self.of(MutantFate.KILLED)) / self.counted if self.counted else 100.0


def named(workload: Workload) -> str:
    """``shop (app=cart)``."""
    labels = ",".join(f"{name}={value}" for name, value in sorted(workload.labels))
    return f"{workload.namespace} ({labels})" if labels else workload.namespace


@dataclass(slots=True)
class MutatedGroup:
    """A group with the cases that pass."""

    file: str
    prepared: PreparedGroup
    cases: Sequence[Case]
    asked: Sequence[AskedWorkload] = ()
    left_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Find the workloads whose answers matter: those of the cases, whose requests are closest to people."""
        group, engine = self.prepared.group, self.prepared.engine
        callers = tuple(
            dict.fromkeys(case.request.source_principal for case in self.cases if case.request.source_principal)
        )
        own: dict[object, AskedWorkload] = {}
        for case in self.cases:
            workload, port = case.target.workload, case.target.port
            key = (workload.namespace, workload.labels, port)
            ports = (port,) if port is not None else ()
            own.setdefault(key, AskedWorkload(named(workload), workload, group.is_gateway, ports, callers))
        others, self.left_out = targets_of([engine])
        kinds = dict.fromkeys((group.is_gateway, False))
        self.asked = [
            *own.values(),
            *(AskedWorkload(one.name, one.workload, gateway, (), callers) for one in others for gateway in kinds),
        ]


@dataclass(slots=True)
class MutationPlan:
    """Groups that pass, and the mutants of all their policies."""

    groups: list[MutatedGroup]
    mutants: list[tuple[Mutant, list[MutatedGroup]]]
    """Each with the groups whose policies hold the resource."""


def plan_mutation(suites: Iterable[Suite], now: float, pool: KeyPool, select: Select | None = None) -> MutationPlan:
    """
    Find what to change in which groups. Policies that several groups share are changed once, for all of them.

    Args:
        now: seconds since the epoch, the time of every token.
        select: which cases may kill.
    """
    groups: list[MutatedGroup] = []
    holders: dict[Origin, list[MutatedGroup]] = {}
    mutants: list[Mutant] = []
    for suite in suites:
        for group in suite.groups:
            cases = [case for case in group.cases if select is None or select(suite.file, group.id, case.id)]
            prepared = prepare(group, now, pool) if cases else ()
            if not isinstance(prepared, PreparedGroup):
                continue
            passing = [case for case in cases if run_case(suite.file, prepared, case).passed]
            found = MutatedGroup(suite.file, prepared, passing)
            groups.append(found)
            mutants += [one for one in mutants_of(prepared.engine.resources) if one.origin not in holders]
            for origin in _origins(prepared.engine):
                holders.setdefault(origin, []).append(found)
    mutants.sort(key=lambda mutant: mutant.location)
    return MutationPlan(groups, [(mutant, holders[mutant.origin]) for mutant in mutants])


def _origins(engine: Engine) -> Iterator[Origin]:
    read = engine.resources
    yield from map(origin_of, read.authorization_policies)
    yield from map(origin_of, read.request_authentications)
    yield from map(origin_of, read.peer_authentications)


def judge_mutant(
    mutant: Mutant, groups: Sequence[MutatedGroup], pool: KeyPool, start: StartTimer, known: list[NewCase]
) -> MutantVerdict | None:
    """
    Run the cases that the mutant may concern; if none fails, ask what it changes.

    Args:
        known: the new cases for the mutants before; a case that is new for this one is added.

    Returns:
        The verdict; None for a mutant that no server would load.
    """
    changed: list[tuple[MutatedGroup, Engine]] = []
    for group in groups:
        try:
            engine = mutated(group.prepared.engine, mutant)
        except LoadError:
            return None
        changed.append((group, engine))
        killer = _killer(group, engine)
        if killer:
            return MutantVerdict(mutant, MutantFate.KILLED, killed_by=killer)
    for group, engine in changed:
        for case in known:
            if case.prepared.group is group.prepared.group and case.notices(engine):
                return MutantVerdict(mutant, MutantFate.SURVIVED, workload=named(case.case.target.workload), case=case)
    verdict = _survivor(mutant, changed, pool, start, _free_name(groups, known))
    if verdict.case is not None:
        known.append(verdict.case)
    return verdict


def _free_name(groups: Sequence[MutatedGroup], known: Sequence[NewCase]) -> str:
    """A name that no case and no token has: suites that new cases were pasted into get others."""
    taken = {case.case.id for case in known}
    for group in groups:
        taken |= {case.id for case in group.prepared.group.cases} | set(group.prepared.tokens)
    number = len(known) + 1
    while f"new-{number}" in taken:
        number += 1
    return f"new-{number}"


def _killer(group: MutatedGroup, engine: Engine) -> str:
    """The first case that fails with the other engine; only those of workloads with other policies are run."""
    before = group.prepared
    after = before.with_engine(engine)
    for case in group.cases:
        workload = case.target.workload
        if applying(before.engine.for_workload(workload)) == applying(engine.for_workload(workload)):
            continue
        if not run_case(group.file, after, case).passed:
            return f"{group.file}/{before.group.id}/{case.id}"
    return ""


def _survivor(
    mutant: Mutant,
    changed: Sequence[tuple[MutatedGroup, Engine]],
    pool: KeyPool,
    start: StartTimer,
    name: str,
) -> MutantVerdict:
    expired = start()
    reasons: dict[str, None] = {}
    fallback: MutantVerdict | None = None
    seen: set[object] = set()
    for group, engine in changed:
        prepared = group.prepared
        for asked in group.asked:
            pair = _pair(prepared.engine, engine, asked)
            if pair is None:
                continue
            key = (prepared.engine.version, applying_both(pair), asked.is_gateway, asked.ports)
            if key in seen:
                continue
            seen.add(key)
            found = difference(pair, expired)
            reasons |= dict.fromkeys(_reasons(found))
            for change in found.changes:
                case = new_case(group.file, prepared, engine, asked, change, pool, name)
                verdict = MutantVerdict(mutant, MutantFate.SURVIVED, change=change, workload=asked.name, case=case)
                if case is not None:
                    return verdict
                fallback = fallback or verdict
            if fallback is not None:
                return fallback
        reasons |= dict.fromkeys(group.left_out)
    return MutantVerdict(mutant, MutantFate.UNDECIDED if reasons else MutantFate.EQUAL, reasons=tuple(reasons))


def _reasons(found: Difference) -> list[str]:
    unconfirmed = ["internal: the engine does not confirm a request; please report it"] if found.unconfirmed else []
    return [*found.undecided, *unconfirmed]


def _pair(old: Engine, new: Engine, asked: AskedWorkload) -> PolicyPair | None:
    """Both sides for a workload; None where the mutant does not concern it."""
    before, after = old.for_workload(asked.workload), new.for_workload(asked.workload)
    if applying(before) == applying(after):
        return None
    return PolicyPair(before, after, asked.is_gateway, asked.ports, asked.callers)


def applying_both(pair: PolicyPair) -> tuple[object, object]:
    """What applies on both sides."""
    return applying(pair.old), applying(pair.new)
