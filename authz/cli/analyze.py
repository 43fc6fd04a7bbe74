"""``authz analyze``: traps in a whole set of policies."""

import fnmatch
from collections.abc import Iterable

import click

from authz.analysis.traps.findings import CHECKS, find
from authz.cli import policy_files
from authz.cli import terminal as out
from authz.core.attributes import Workload
from authz.core.errors import Problem, Severity


@click.command("analyze", short_help="Look for traps in a whole set of policies.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Istio's MeshConfig, or a mesh description, with whose workloads selectors are then compared.",
)
@out.answer_form("table", "json")
@click.option(
    "--suppress", metavar="CODE[=NAME]", multiple=True,
    help="Leave findings out: `AN-2`, or `AN-2=shop/*` for policies of that name; may be repeated.",
)  # fmt: skip
def command(paths: tuple[str, ...], mesh: str | None, output: str, suppress: tuple[str, ...]) -> None:
    """
    Look for policies that are valid but probably do not mean what their author meant (exit 3 if there are findings).

    Every code is explained in docs/findings.md. Warnings of validation are included.

    \b
    authz analyze policies/ --mesh mesh.yaml
    authz analyze policies/ --suppress AN-2 --suppress 'AN-3=shop/*'
    """
    for text in suppress:
        code = text.partition("=")[0]
        if code.startswith("AN-") and code not in CHECKS:
            raise click.BadParameter(f"there is no finding `{code}`", param_hint="--suppress")
    loaded = policy_files.load(paths, mesh)
    workloads = _workloads(mesh)
    traps = find(loaded.engine, workloads)
    obeyed_by_nobody = {problem.resource for problem in traps if problem.code == "AN-19"}  # which says more than RE-16
    warnings = (
        problem
        for problem in loaded.problems
        if problem.severity is Severity.WARNING
        and not (problem.code == "RE-16" and problem.resource in obeyed_by_nobody)
    )
    found = [problem for problem in (*traps, *warnings) if not _is_out(problem, suppress)]
    found.sort(key=lambda problem: (problem.location, problem.path, problem.code))
    if output == "json":
        out.print_json({"ok": not found, "findings": [out.problem_json(problem) for problem in found]})
    else:
        out.print_problems(found)
        if found:
            out.say()
        total = len(loaded.engine.resources.authorization_policies)
        said = out.count(len(found), "finding") if found else "no findings"
        out.say(f"{out.count(total, 'AuthorizationPolicy', 'AuthorizationPolicies')}: {said}")
    raise SystemExit(out.Exit.NO if found else out.Exit.YES)


def _workloads(mesh: str | None) -> Iterable[Workload]:
    """The workloads of a mesh description; none where the file holds a MeshConfig only."""
    if not mesh or b"WorkloadEntry" not in policy_files.read_bytes(mesh):
        return ()
    return [described.workload for described in policy_files.read_workloads(mesh).workloads]


def _is_out(problem: Problem, suppress: tuple[str, ...]) -> bool:
    name = problem.resource.partition(" ")[2]
    for text in suppress:
        code, separator, pattern = text.partition("=")
        if problem.code == code and (not separator or fnmatch.fnmatchcase(name, pattern)):
            return True
    return False
