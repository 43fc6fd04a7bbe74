"""``authz prove``: invariants of policies, proved for all requests or refuted by one."""

import fnmatch
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from authz.analysis.invariants.invariant import Invariant, InvariantFile, WorkloadSet
from authz.analysis.invariants.invariant_reader import CODE, read_invariants
from authz.analysis.invariants.proof import Proof, prove
from authz.analysis.offline.as_json import decision_json
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.witness import command_of
from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.diff import SECONDS, asked_workloads
from authz.cli.diff_report import answer, describe
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.core.attributes import Json
from authz.core.errors import LoadError, Problem, Severity, sort_problems
from authz.core.uncollected import WithoutCollector


@dataclass(frozen=True, slots=True)
class Proved:
    """One invariant for one workload."""

    invariant: Invariant
    asked: AskedWorkload
    proof: Proof
    command: str
    """The command that decides the refutation; empty without one."""

    @property
    def result(self) -> str:
        """``proved``, ``refuted`` or ``not decided``."""
        if self.proof.is_proved:
            return "proved"
        return "refuted" if self.proof.witness is not None else "not decided"


@click.command("prove", short_help="Prove invariants of policies, for all requests.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--policies", "-p", metavar="PATH", multiple=True, type=click.Path(exists=True, allow_dash=True),
    help="File or directory of policies, in place of the file's `policyFiles`; may be repeated.",
)  # fmt: skip
@click.option(
    "--mesh", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
    help="MeshConfig or mesh description, in place of the file's `meshFile`.",
)  # fmt: skip
@TRAFFIC
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(0), default=SECONDS,
    help="Time for each invariant of a workload; what is not known by then is not decided.",
)  # fmt: skip
@out.answer_form("text", "json")
@click.option("-v", "--verbose", is_flag=True, help="Name every workload for which an invariant is proved.")
def command(
    files: tuple[str, ...], policies: tuple[str, ...], mesh: str | None, traffic: str | None, seconds: float,
    output: str, verbose: bool,
) -> None:  # fmt: skip
    """
    Prove what policies must keep: requests that are never allowed, always allowed, or allowed only if (docs/proofs.md).

    Every refutation is a request that was decided by the engine. Exit code 0: all proved, 3: some refuted, 1: not
    decided.

    \b
    authz prove invariants.yaml
    authz prove docs/examples/invariants/baseline.yaml --policies policies/ --mesh mesh.yaml
    """
    found: list[Proved] = []
    with WithoutCollector(for_good=True):
        for name in files:
            read = read_invariants(name, Path(name).read_bytes())
            if any(problem.is_error for problem in read.problems):
                raise LoadError(read.problems)
            found += _prove(read, policies, mesh, traffic, seconds)
    if output == "json":
        out.print_json(_as_json(found))
    else:
        _print(found, verbose=verbose)
    for one in found:
        if one.proof.unconfirmed is not None:
            said = f"{one.invariant.id}: {one.asked.name}: the engine does not confirm"
            out.remark(f"internal: {said} {describe(one.proof.unconfirmed)}; please report it")
    results = {one.result for one in found}
    raise SystemExit(
        out.Exit.FAILED if "not decided" in results else out.Exit.NO if "refuted" in results else out.Exit.YES
    )


def _prove(
    read: InvariantFile, policies: tuple[str, ...], mesh: str | None, traffic: str | None, seconds: float
) -> Iterator[Proved]:
    folder = Path(read.file).parent
    paths = policies or tuple(str(folder / name) for name in read.policy_files)
    mesh = mesh or (str(folder / read.mesh_file) if read.mesh_file else None)
    if not paths:
        raise click.UsageError(f"{read.file} names no `policyFiles`; name the policies with --policies")
    check_traffic(mesh, traffic)
    loaded = policy_files.load(paths, mesh, traffic)
    settings = policy_files.settings_file(mesh, traffic) or ""
    workloads, left_out = asked_workloads([loaded.engine], mesh, traffic)
    has_names = mesh is not None and not any(one.name.endswith(")") for one in workloads)
    problems: list[Problem] = []
    todo: list[tuple[Invariant, AskedWorkload]] = []
    for invariant in read.invariants:
        meant = list(_meant(invariant.to, workloads, has_names=has_names))
        todo += [(invariant, asked) for asked in meant]
        if not meant or (left_out and invariant.to.names == ("*",)):
            why = left_out[0] if meant else "no workload is meant"
            advice = "" if has_names else "names need --mesh or `meshFile`; or write `to: {namespace: …, labels: …}`"
            problems.append(Problem(Severity.ERROR, CODE, f"`{invariant.id}`: {why}", invariant.location, help=advice))
    if problems:
        raise LoadError(sort_problems(problems))
    for invariant, asked in todo:
        ends = time.monotonic() + seconds
        applying = loaded.engine.for_workload(asked.workload)
        pair = PolicyPair(applying, applying, asked.is_gateway, asked.ports, asked.callers)
        proof = prove(invariant, pair, lambda ends=ends: time.monotonic() > ends)  # type: ignore[misc]  # bound now, not at the call
        command = command_of(pair, proof.witness, paths, settings) if proof.witness is not None else ""
        yield Proved(invariant, asked, proof, command)


def _meant(to: WorkloadSet, workloads: Iterable[AskedWorkload], *, has_names: bool) -> Iterator[AskedWorkload]:
    """The workloads of a set: of the mesh description, else the one of this namespace and these labels."""
    if not has_names and to.is_described:
        pairs = ",".join(f"{name}={value}" for name, value in sorted(to.labels))
        yield AskedWorkload(f"{to.namespace} ({pairs or 'no labels'})", to.workload)
        return
    for asked in workloads:
        workload = asked.workload
        names = (workload.name, asked.name)
        if (
            (not to.names or _is_one(names, to.names))
            and not _is_one(names, to.not_names)
            and to.namespace in ("", workload.namespace)
            and to.labels <= workload.labels
            and to.kind in ("", "gateway" if asked.is_gateway else "sidecar")
        ):
            yield asked


def _is_one(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _print(found: list[Proved], *, verbose: bool) -> None:
    for invariant in dict.fromkeys(one.invariant for one in found):
        own = [one for one in found if one.invariant == invariant]
        proved = [one.asked.name for one in own if one.result == "proved"]
        if proved:
            names = ", ".join(proved) if verbose else out.count(len(proved), "workload")
            out.say(f"proved       {invariant.id}: {names}", "green")
        for one in own:
            if one.proof.witness is not None and one.proof.decision is not None:
                out.say(f"refuted      {invariant.id}: {one.asked.name}  {invariant.location}", "bold red")
                out.say(f"  request: {describe(one.proof.witness)}")
                out.say(f"  answer:  {answer(one.proof.decision)}")
                for line in one.command.splitlines():
                    out.say(f"    {line}")
            for reason in one.proof.undecided:
                out.say(f"not decided  {invariant.id}: {one.asked.name}: {reason}", "bold yellow")
    results = [one.result for one in found]
    parts = [f"{results.count(name)} {name}" for name in ("proved", "refuted", "not decided") if name in results]
    out.say(", ".join(parts), "bold")


def _as_json(found: list[Proved]) -> dict[str, Json]:
    """The answer with the documented fields (docs/proofs.md)."""
    return {
        "format": 1,
        "ok": all(one.result == "proved" for one in found),
        "proofs": [
            {
                "invariant": one.invariant.id,
                "file": one.invariant.location.file,
                "line": one.invariant.location.line,
                "workload": one.asked.name,
                "result": one.result,
                "request": describe(one.proof.witness) if one.proof.witness is not None else None,
                "decision": decision_json(one.proof.decision) if one.proof.decision is not None else None,
                "command": one.command or None,
                "not_decided": list(one.proof.undecided),
            }
            for one in found
        ],
    }
