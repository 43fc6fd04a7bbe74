"""``authz analyze``: traps in a whole set of policies."""

import fnmatch
import time
from collections.abc import Callable, Sequence

import click

from authz.analysis.needless.needless_rules import needless_rules
from authz.analysis.needless.verdict import NeedlessRules
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.traps.findings import CHECKS, find
from authz.analysis.traps.policy_set import Trap
from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.diff import asked_workloads
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.core.errors import LoadError, Problem, Severity
from authz.core.uncollected import WithoutCollector

SECONDS = 15.0
ONE_QUESTION = 3.0
"""Seconds for one rule, or for a few together: one that is hard leaves time for the others."""


@click.command("analyze", short_help="Look for traps in a whole set of policies.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Istio's MeshConfig, or a mesh description, with whose workloads selectors are then compared.",
)
@TRAFFIC
@out.answer_form("table", "json")
@click.option(
    "--suppress", metavar="CODE[=NAME]", multiple=True,
    help="Leave findings out: `AN-2`, or `AN-2=shop/*` for policies of that name; may be repeated.",
)  # fmt: skip
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(0), default=SECONDS,
    help="Time for proofs, 15 if not given; rules that are not decided by then are compared as written.",
)  # fmt: skip
def command(
    paths: tuple[str, ...],
    mesh: str | None,
    traffic: str | None,
    output: str,
    suppress: tuple[str, ...],
    seconds: float,
) -> None:
    """
    Look for policies that are valid but probably do not mean what their author meant (exit 3 if there are findings).

    Every code is explained in docs/findings.md. Warnings of validation are included. That a rule decides nothing is
    proved for all requests (docs/proofs.md).

    \b
    authz analyze policies/ --mesh mesh.yaml
    authz analyze policies/ --suppress AN-2 --suppress 'AN-3=shop/*'
    """
    for text in suppress:
        code = text.partition("=")[0]
        if code.startswith("AN-") and code not in CHECKS:
            raise click.BadParameter(f"there is no finding `{code}`", param_hint="--suppress")
    check_traffic(mesh, traffic)
    loaded = policy_files.load(paths, mesh, traffic)
    asked, left_out = asked_workloads((loaded.engine,), mesh, traffic)
    with WithoutCollector(for_good=True):
        needless = needless_rules(loaded.engine, asked, _limit(seconds), is_whole=not left_out)
    workloads = [one.workload for one in asked] if _is_described(asked) else []
    traps = find(loaded.engine, workloads, needless, loaded.problems)
    obeyed_by_nobody = {problem.resource for problem in traps if problem.code == "AN-19"}  # which says more than RE-16
    warnings = (
        problem
        for problem in loaded.problems
        if problem.severity is Severity.WARNING
        and not (problem.code == "RE-16" and problem.resource in obeyed_by_nobody)
    )
    found = [problem for problem in (*traps, *warnings, *_described(mesh, traffic)) if not _is_out(problem, suppress)]
    found.sort(key=lambda problem: (problem.location, problem.path, problem.code))
    is_ok = all(problem.severity is Severity.INFO for problem in found)
    if output == "json":
        out.print_json({
            "ok": is_ok,
            "findings": [out.problem_json(one) | {"proved": isinstance(one, Trap) and one.proved} for one in found],
            "not_decided": [
                {"rule": "/".join(map(str, rule)), "reason": reason} for rule, reason in needless.undecided.items()
            ],
        })  # fmt: skip
    else:
        out.print_problems(found)
        if found:
            out.say()
        _say_undecided(needless)
        _say_total(found, len(loaded.engine.resources.authorization_policies))
    raise SystemExit(out.Exit.YES if is_ok else out.Exit.NO)


def _described(mesh: str | None, traffic: str | None) -> list[Problem]:
    """
    What in a mesh description misleads; and what EnvoyFilters weaken by permission, and how extensions can change
    requests (ME-8).
    """
    if not mesh or not (traffic or policy_files.has_workloads(policy_files.description_files(mesh))):
        return []
    described, problems = policy_files.read_description(mesh, traffic)
    if not described.envoy_filters and not described.wasm_plugins:
        return list(problems)
    from authz.envoy.proxy_parts import extension_problems  # slow to import

    found = extension_problems(described)
    if any(problem.is_error for problem in found):
        raise LoadError(found)
    return [*problems, *(problem for problem in found if problem.code == "ME-8")]


def _say_total(found: Sequence[Problem], policies: int) -> None:
    notes = sum(problem.severity is Severity.INFO for problem in found)
    said = [out.count(len(found) - notes, "finding") if len(found) > notes else "no findings"]
    said += [out.count(notes, "note")] if notes else []
    out.say(f"{out.count(policies, 'AuthorizationPolicy', 'AuthorizationPolicies')}: {', '.join(said)}")


def _say_undecided(needless: NeedlessRules) -> None:
    """Which rules may be needless or not, for each reason."""
    by_reason: dict[str, list[str]] = {}
    for rule, reason in needless.undecided.items():
        by_reason.setdefault(reason, []).append("/".join(map(str, rule)))
    for reason, rules in by_reason.items():
        more = f" and {len(rules) - 3} more" if len(rules) > 3 else ""
        out.say(f"not decided whether they are needed: {', '.join(rules[:3])}{more}: {reason}")


def _limit(seconds: float) -> Callable[[], Callable[[], bool]]:
    """The time of each question, within that of all."""
    ends = time.monotonic() + seconds

    def start() -> Callable[[], bool]:
        own = min(ends, time.monotonic() + ONE_QUESTION)
        return lambda: time.monotonic() > own

    return start


def _is_described(asked: Sequence[AskedWorkload]) -> bool:
    """Whether the workloads are those of a mesh description; a MeshConfig alone names none."""
    return any(one.callers for one in asked)


def _is_out(problem: Problem, suppress: tuple[str, ...]) -> bool:
    name = problem.resource.partition(" ")[2]
    for text in suppress:
        code, separator, pattern = text.partition("=")
        if problem.code == code and (not separator or fnmatch.fnmatchcase(name, pattern)):
            return True
    return False
