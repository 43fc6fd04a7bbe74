"""``authz diff``: the requests that two sets of policies answer differently, or the proof that there are none."""

import time
from collections.abc import Sequence

import click

from authz.analysis.sets.asked_workloads import AskedWorkload, applying, are_same, targets_of
from authz.analysis.sets.difference import Difference, difference
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.unobeyed import changed_and_unobeyed
from authz.analysis.sets.unverified import tokens_nobody_verifies
from authz.cli import diff_report, policy_files
from authz.cli import terminal as out
from authz.cli.mesh_sides import NamedDescription, sides_of, workloads_of
from authz.cli.revisions import is_revision, read_named
from authz.cli.traffic_option import TRAFFIC_HELP
from authz.core.compiler import compile_as_needed
from authz.core.engine import Engine
from authz.core.errors import LoadError, sort_problems
from authz.core.resources import MeshConfig
from authz.core.uncollected import WithoutCollector
from authz.policy.reader import read_policies

SECONDS = 10.0


@click.command("diff", short_help="Which requests does a change of policies answer differently?")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--mesh", metavar="FILE",
    help="Istio's MeshConfig, or a mesh description: then its workloads are asked about. Also at a git revision.",
)  # fmt: skip
@click.option("--traffic", metavar="PATH", help=f"{TRAFFIC_HELP} Also at a git revision.")
@click.option(
    "--new-mesh", metavar="FILE", help="The mesh file of NEW, where it changes as well; --mesh is the one of OLD."
)
@click.option("--new-traffic", metavar="PATH", help="What --traffic is of NEW, where it changes as well.")
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(0), default=SECONDS,
    help="Time for each workload; what is not known by then is not decided.",
)  # fmt: skip
@out.answer_form("text", "json", "markdown", "sarif")
def command(
    old: str, new: str, mesh: str | None, traffic: str | None, new_mesh: str | None, new_traffic: str | None,
    seconds: float, output: str,
) -> None:  # fmt: skip
    """
    Tell which requests NEW answers differently from OLD, for every workload, with one request for each reason.

    OLD and NEW are files, directories, or either of them at a git revision. Every request that is shown was decided by
    the engine on both sides; where none is shown, none exists (docs/proofs.md). Exit code 0: no answer changes, 3: some
    do, 1: not decided.

    \b
    authz diff HEAD:policies/ policies/ --mesh mesh.yaml
    authz diff main:policies/ HEAD:policies/ -o markdown
    authz diff policies/ candidate.yaml -o json
    authz diff HEAD:policies/ policies/ --mesh HEAD:mesh.yaml --new-mesh mesh.yaml
    """
    found = compare(old, new, NamedDescription(mesh, traffic), NamedDescription(new_mesh, new_traffic), seconds)
    diff_report.write(found, output)
    raise SystemExit(diff_report.exit_code(found))


def compare(
    old: str, new: str, old_mesh: NamedDescription, new_mesh: NamedDescription, seconds: float
) -> diff_report.DiffReport:
    """
    Compare two sets of policies by their names, with the mesh file of each.

    Raises:
        click.UsageError, LoadError, NoRevision, OSError: as ``sides_of``, and for the policies.
    """
    with WithoutCollector(for_good=True):
        before, after = sides_of(old_mesh, new_mesh)
        engines = (
            _engine(old, before.config if before is not None else None),
            _engine(new, after.config if after is not None else None),
        )
        workloads, left_out, notes = workloads_of(engines, before, after)
        known: ComparedBefore = {}
        compared = [_compare(engines[0], engines[1], asked, seconds, known) for asked in workloads]
        pairs = [(one.asked.name, one.pair) for one in compared if one.pair is not None]
        warnings = [*changed_and_unobeyed(*engines, workloads), *tokens_nobody_verifies(pairs)]
        path = after.path if after is not None else ""
        return diff_report.DiffReport(old, new, path, compared, left_out, _path_of(new), warnings, notes)


def _engine(name: str, mesh: MeshConfig | None) -> Engine:
    """The policies of one side. Raises LoadError, NoRevision, OSError."""
    result = read_policies(read_named(name), mesh)
    if any(problem.is_error for problem in result.problems):
        raise LoadError(sort_problems(result.problems))
    return compile_as_needed(result.resources, mesh or MeshConfig())


def _path_of(name: str) -> str:
    """The path to write into commands: of a revision, the path in the working tree."""
    return name.partition(":")[2] or "." if is_revision(name) else name


def asked_workloads(
    engines: Sequence[Engine], mesh: str | None, traffic: str | None = None
) -> tuple[list[AskedWorkload], list[str]]:
    """
    The workloads of a mesh description, else those that the policies tell apart.

    Returns:
        The workloads, and what had to be left out.
    """
    if not mesh or not policy_files.has_workloads(policy_files.description_files(mesh, traffic)):
        return targets_of(engines)
    described = policy_files.read_workloads(mesh, traffic).workloads
    callers = tuple(dict.fromkeys(str(workload.spiffe_id) for workload in described))
    found = []
    for workload in described:
        ports = [*(port.number for port in workload.inbound), *(server.port for server in workload.servers)]
        name = f"{workload.namespace}/{workload.name}"
        found.append(AskedWorkload(name, workload.workload, workload.is_gateway, tuple(ports), callers))
    return found, []


ComparedBefore = dict[tuple[object, ...], Difference]
"""What was found for workloads to which the same applies."""


def _compare(
    old: Engine, new: Engine, asked: AskedWorkload, seconds: float, known: ComparedBefore
) -> diff_report.Compared:
    if asked.before is None and are_same(old, new, asked.workload):
        return diff_report.Compared(asked, None, None)
    ends = time.monotonic() + seconds
    before, after = old.for_workload(asked.before or asked.workload), new.for_workload(asked.workload)
    pair = PolicyPair(before, after, asked.is_gateway, asked.ports, asked.callers)
    key = (applying(before), applying(after), asked.is_gateway, asked.ports)
    if key not in known:
        known[key] = difference(pair, lambda: time.monotonic() > ends)
    return diff_report.Compared(asked, pair, known[key])
