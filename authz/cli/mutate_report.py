"""Which mutants of policies the suites of ``authz test --mutate`` do not notice: for people, and as JSON."""

import time
from collections.abc import Callable, Sequence

from rich.progress import Progress

from authz.analysis.mutants.mutation_run import (
    MutantFate,
    MutantVerdict,
    MutationScore,
    judge_mutant,
    plan_mutation,
)
from authz.analysis.mutants.new_case import NewCase
from authz.analysis.suites.run import Select
from authz.analysis.suites.suite import Suite
from authz.cli import terminal as out
from authz.cli.diff_report import describe
from authz.core.attributes import Json
from authz.tokens.signing import KeyPool

PROOF_SECONDS = 2.0
"""Time to find out what one mutant changes; what is not known by then is not decided."""


def mutate(suites: Sequence[Suite], select: Select | None, now: float, pool: KeyPool) -> MutationScore:
    """Judge every mutant of the policies of some suites that pass; terminals see the progress on stderr."""
    plan = plan_mutation(suites, now, pool, select)
    score = MutationScore()
    known: list[NewCase] = []
    with Progress(console=out.remarks(), transient=True, disable=not out.is_terminal()) as progress:
        for mutant, groups in progress.track(plan.mutants, description="mutants"):
            verdict = judge_mutant(mutant, groups, pool, _timer, known)
            if verdict is not None:
                score.verdicts.append(verdict)
    return score


def _timer() -> Callable[[], bool]:
    ends = time.monotonic() + PROOF_SECONDS
    return lambda: time.monotonic() > ends


_MARKS = {
    MutantFate.SURVIVED: ("SURVIVED", "bold red"),
    MutantFate.UNDECIDED: ("NOT DECIDED", "bold yellow"),
    MutantFate.EQUAL: ("EQUAL", "green"),
    MutantFate.KILLED: ("KILLED", "green"),
}


def print_mutants(score: MutationScore, *, verbose: bool) -> None:
    """Print the mutants that nothing notices and the cases that would; with ``verbose`` the others too."""
    for verdict in score.verdicts:
        if verbose or verdict.fate in (MutantFate.SURVIVED, MutantFate.UNDECIDED):
            _print_mutant(verdict)
    groups: dict[tuple[str, str], dict[str, NewCase]] = {}
    for case in _new_cases(score):
        groups.setdefault((case.file, case.group), {})[case.case.id] = case
    for (file, group), cases in groups.items():
        tokens = [case.tokens for case in cases.values() if case.tokens]
        if tokens:
            out.say(f"# `tokens` of group `{group}` in {file}:")
            for text in tokens:
                out.say(text)
        out.say(f"# `cases` of group `{group}` in {file}, if the answers are meant:")
        for case in cases.values():
            for line in case.text.splitlines():
                out.say(line)
    out.say(summary(score), "bold green" if score.percent == 100 else "bold")


def _print_mutant(verdict: MutantVerdict) -> None:
    mutant = verdict.mutant
    mark, style = _MARKS[verdict.fate]
    out.say(f"{mark} {mutant.location.file}:{mutant.location.line}  {mutant.name}", style)
    out.say(f"  {mutant.change}")
    if verdict.killed_by:
        out.say(f"  noticed by {verdict.killed_by}")
    if verdict.change is not None:
        out.say(f"  {verdict.change.direction} in {verdict.workload}: {describe(verdict.change.witness)}")
    if verdict.case is not None:
        out.say(f"  `{verdict.case.case.id}` below notices it")
    for reason in verdict.reasons:
        out.say(f"  {reason}")


def _new_cases(score: MutationScore) -> list[NewCase]:
    """The new cases, each once, in the order in which they were found."""
    found = {verdict.case.case.id: verdict.case for verdict in score.verdicts if verdict.case is not None}
    return sorted(found.values(), key=lambda case: int(case.case.id.rpartition("-")[2]))


def summary(score: MutationScore) -> str:
    """One line about all mutants."""
    text = f"mutants: {len(score.of(MutantFate.KILLED))} of {score.counted} noticed ({score.percent:.1f} %)"
    others = [(MutantFate.UNDECIDED, "not decided"), (MutantFate.EQUAL, "proved equal")]
    return ", ".join([text, *(f"{len(score.of(fate))} {word}" for fate, word in others if score.of(fate))])


def as_json(score: MutationScore) -> dict[str, Json]:
    """The mutants with the documented fields (docs/testing-policies.md)."""
    return {
        "total": len(score.verdicts),
        **{fate.value: len(score.of(fate)) for fate in MutantFate},
        "percent": round(score.percent, 1),
        "mutants": [
            {
                "result": verdict.fate.value,
                "file": verdict.mutant.location.file,
                "line": verdict.mutant.location.line,
                "resource": verdict.mutant.name,
                "change": verdict.mutant.change,
                "killed_by": verdict.killed_by or None,
                "workload": verdict.workload or None,
                "direction": verdict.change.direction.value if verdict.change is not None else None,
                "request": describe(verdict.change.witness) if verdict.change is not None else None,
                "noticed_by": verdict.case.case.id if verdict.case is not None else None,
                "not_decided": list(verdict.reasons),
            }
            for verdict in score.verdicts
        ],
        "new_cases": [
            {
                "id": case.case.id,
                "file": case.file,
                "group": case.group,
                "case": case.text,
                "token": case.tokens or None,
            }
            for case in _new_cases(score)
        ],
    }
