"""``authz validate``: every problem of some policies at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from authz.cli import policy_files
from authz.cli import terminal as out
from authz.core.attributes import Json
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError, Problem, Severity, sort_problems
from authz.core.resources import MeshConfig, Metadata, Resources
from authz.core.uncollected import WithoutCollector
from authz.policy.reader import read_policies


@click.command("validate", short_help="Check policies, every problem at once.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option("--mesh", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Istio's MeshConfig.")
@out.answer_form("table", "json")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning"]), default="error", help="Minimum severity for a no (exit 3)."
)
@click.option("--allow-empty", is_flag=True, help="Take empty files and a set without a policy, as `authz serve` can.")
@click.option("-v", "--verbose", is_flag=True, help="Also print remarks, and list what was read.")
def command(
    paths: tuple[str, ...], mesh: str | None, output: str, fail_on: str, allow_empty: bool, verbose: bool
) -> None:
    """
    Check policy files and directories (`-` is stdin).

    The reader and compiler are those of the running service: what passes here is accepted there.

    \b
    authz validate policies/
    authz validate policies/ --mesh mesh.yaml --fail-on warning
    authz validate -o json policies/ | jq .problems
    """
    read, empty = policy_files.read_paths(paths, allow_empty=allow_empty)
    resources, problems = inspect(read, mesh, allow_empty=allow_empty)
    problems = sort_problems((*problems, *empty))
    is_yes = not any(_is_bad(problem, fail_on) for problem in problems)
    if output == "json":
        out.print_json(_as_json(resources, problems, len(read), is_yes))
    else:
        _print(resources, problems, len(read), verbose=verbose)
    raise SystemExit(out.Exit.YES if is_yes else out.Exit.NO)


def inspect(
    read: Sequence[tuple[str, bytes]], mesh_file: str | None, *, allow_empty: bool = False
) -> tuple[Resources, tuple[Problem, ...]]:
    """Answer what was read and everything that is wrong with it. Raises OSError for the mesh file."""
    mesh, problems = policy_files.read_mesh_file(mesh_file)
    is_usable = mesh_file is not None and not any(problem.is_error for problem in problems)
    with WithoutCollector(for_good=True):
        result = read_policies(read, mesh if is_usable else None, allow_empty=allow_empty)
        found = (*problems, *result.problems)
        if not result.has_errors:
            try:
                engine = compile_engine(result.resources, mesh if is_usable else MeshConfig())
                if is_usable:
                    found = (*found, *_unselecting(engine, mesh_file))
            except LoadError as error:
                found = (*found, *error.problems)
    return result.read, sort_problems(found)


def _unselecting(engine: Engine, mesh_file: str | None) -> tuple[Problem, ...]:
    """Objects that apply to none of the described workloads. Raises LoadError for workloads that cannot be used."""
    from authz.analysis.traps.findings import find_unselecting  # only with a description
    from authz.service.loading.described import described_workloads

    return find_unselecting(engine, described_workloads(Path(mesh_file) if mesh_file else None))


def _is_bad(problem: Problem, fail_on: str) -> bool:
    return problem.is_error or (fail_on == "warning" and problem.severity is Severity.WARNING)


def _print(resources: Resources, problems: tuple[Problem, ...], read: int, *, verbose: bool) -> None:
    shown = [problem for problem in problems if verbose or problem.severity is not Severity.INFO]
    out.print_problems(shown)
    if shown:
        out.say()
    if verbose and (rows := list(_rows(resources))):
        out.print_table(("KIND", "NAME", "ACTION", "RULES", "PLACE"), rows)
        out.say()
    counts = {severity: sum(problem.severity is severity for problem in problems) for severity in Severity}
    found = ", ".join(
        out.count(counts[severity], noun)
        for severity, noun in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "remark"))
        if counts[severity]
    )
    total = len(list(_rows(resources)))
    what = f"{out.count(total, 'policy', 'policies')} in {out.count(read, 'file')}"
    style = "bold red" if counts[Severity.ERROR] else "yellow" if counts[Severity.WARNING] else "green"
    out.say(f"{what}: {found or 'ok'}", style)
    if counts[Severity.INFO] and not verbose:
        out.remark("remarks are shown with -v")


def _rows(resources: Resources) -> Iterator[tuple[str, str, str, str, str]]:
    """Kind, name, action or mode, number of rules, place."""

    def row(metadata: Metadata, kind: str, action: str, rules: str) -> tuple[str, str, str, str, str]:
        place = f"{metadata.location.file}:{metadata.location.line}"
        return kind, f"{metadata.namespace}/{metadata.name}", action, rules, place

    for policy in resources.authorization_policies:
        action = f"{policy.action} (dry run)" if policy.dry_run else policy.action.value
        yield row(policy.metadata, "AuthorizationPolicy", action, str(len(policy.rules)))
    for item in resources.request_authentications:
        yield row(item.metadata, "RequestAuthentication", "", str(len(item.jwt_rules)))
    for peer in resources.peer_authentications:
        yield row(peer.metadata, "PeerAuthentication", peer.mode.value, "")


def _as_json(resources: Resources, problems: tuple[Problem, ...], read: int, is_yes: bool) -> Json:
    has_errors = any(problem.is_error for problem in problems)
    return {
        "ok": is_yes,
        "files": read,
        "policies": [
            {
                "kind": kind,
                "name": name,
                "action": action or None,
                "rules": int(rules) if rules else None,
                "place": place,
            }
            for kind, name, action, rules, place in _rows(resources)
        ],
        "policy_version": None if has_errors else resources.version,
        "problems": [out.problem_json(problem) for problem in problems],
    }
