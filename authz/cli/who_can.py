"""``authz who-can``: who is let through, by which rules; what a caller can reach; and the matrix of all workloads."""

import difflib
import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import click

from authz.analysis.access.granted import AccessQuestions
from authz.analysis.invariants.invariant import AskedValues, RequestSet
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.sets.model import PolicyPair
from authz.cli import policy_files, who_can_views
from authz.cli import terminal as out
from authz.cli.asked_request import asked_values
from authz.cli.diff import SECONDS, asked_workloads
from authz.cli.request_options import LINES
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.cli.who_can_views import AskedAccess, AskedCaller, WhoCan
from authz.core.catalog import condition_attribute
from authz.core.engine import Engine
from authz.core.uncollected import WithoutCollector

_PRINCIPAL = condition_attribute("source.principal")
_SPIFFE = "spiffe://"
ANONYMOUS = "anonymous"


@click.command("who-can", short_help="Who can do something? What can a caller reach?")
@click.option(
    "--policies", "-p", metavar="PATH", multiple=True, required=True, type=click.Path(exists=True, allow_dash=True),
    help="File or directory of policies; may be repeated.",
)  # fmt: skip
@click.option(
    "--mesh", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
    help="Istio's MeshConfig, or a mesh description: then its workloads are asked about.",
)  # fmt: skip
@TRAFFIC
@click.option("--to", metavar="WORKLOAD", multiple=True, help="Only of this workload, stars allowed; may be repeated.")
@click.option(
    "--from", "caller", metavar="CALLER",
    help=f"Only this caller: a workload of the mesh description, an identity, or `{ANONYMOUS}`.",
)  # fmt: skip
@click.option("--method", metavar="METHOD", help="Only requests with this method.")
@click.option("--path", metavar="PATH", help="Only requests with this path; stars and path templates as in policies.")
@click.option("--host", metavar="HOST", help="Only requests to this host.")
@click.option("--port", metavar="PORT", help="Only requests to this port of the workload.")
@click.option(
    "--header", "-H", "headers", metavar="'NAME: VALUE'", multiple=True, type=LINES,
    help="Only requests with this header, stars as in policies; may be repeated.",
)  # fmt: skip
@click.option(
    "--claims", metavar="JSON|@FILE",
    help="Only requests with a token that has these claims: of every list all values, stars as in policies.",
)  # fmt: skip
@click.option(
    "--matrix", is_flag=True, help="All workloads of the mesh description by all, and callers without identity."
)
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(0), default=SECONDS,
    help="Time for each workload; what is not known by then is not decided.",
)  # fmt: skip
@out.answer_form("text", "json", "jsonl", "csv")
def command(
    policies: tuple[str, ...], mesh: str | None, traffic: str | None, to: tuple[str, ...], caller: str | None,
    method: str | None, path: str | None, host: str | None, port: str | None, headers: tuple[str, ...],
    claims: str | None, matrix: bool, seconds: float, output: str,
) -> None:  # fmt: skip
    """
    Tell who is let through, in the words of the rules that allow it, without what other rules take away
    (docs/proofs.md).

    Every grant has a request that was decided by the engine; where none is shown, none exists. Exit code 0: somebody
    can, 3: nobody can, 1: not decided.

    \b
    authz who-can -p policies/ --mesh mesh.yaml --to ratings-v1 --method DELETE
    authz who-can -p policies/ --mesh mesh.yaml --from reviews-v1
    authz who-can -p policies/ --path /admin* --claims '{"groups": "admin"}' --header 'x-team: red'
    authz who-can -p policies/ --mesh mesh.yaml --matrix -o csv
    """
    if matrix and caller is not None:
        raise click.UsageError("--matrix asks about all callers; leave --from out")
    check_traffic(mesh, traffic)
    asked = asked_values({"method": method, "path": path, "host": host, "port": port}, headers, claims)
    with WithoutCollector(for_good=True):
        loaded = policy_files.load(policies, mesh, traffic)
        workloads, left_out = asked_workloads([loaded.engine], mesh, traffic)
        known = _known_callers(mesh, traffic)
        if matrix and not known:
            raise click.UsageError("--matrix needs a mesh description: name one with --mesh")
        if matrix:
            callers = [*_by_identity(known), AskedCaller(ANONYMOUS, "")]
        else:
            callers = [_caller(caller, known)] if caller is not None else [AskedCaller("", None)]
        questions = {one: RequestSet((*asked, *_of(one))) for one in callers}
        meant = _meant(workloads, to)
        found = WhoCan(
            policies,
            policy_files.settings_file(mesh, traffic) or "",
            loaded.engine.version,
            tuple(callers),
            meant,
            _answers(loaded.engine, meant, questions, seconds),
            tuple(left_out) if not to or "*" in "".join(to) else (),
        )
        code = who_can_views.write(found, output, matrix=matrix)
    raise SystemExit(code)


def _answers(
    engine: Engine, workloads: Sequence[AskedWorkload], questions: dict[AskedCaller, RequestSet], seconds: float
) -> Iterator[AskedAccess]:
    """Workload by workload, each with its own time."""
    for workload in workloads:
        applying = engine.for_workload(workload.workload)
        natural = (*workload.callers, *(one.spiffe_id for one in questions if one.spiffe_id))
        pair = PolicyPair(applying, applying, workload.is_gateway, workload.ports, natural)
        about = AccessQuestions(pair, list(questions.values()), _until(time.monotonic() + seconds))
        for one, question in questions.items():
            yield AskedAccess(one, workload, pair, about.access(question))


def _until(ends: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > ends


def _of(caller: AskedCaller) -> Sequence[AskedValues]:
    if caller.spiffe_id is None:
        return ()
    if not caller.spiffe_id:
        return (AskedValues(_PRINCIPAL, not_values=("*",)),)
    return (AskedValues(_PRINCIPAL, (caller.spiffe_id.removeprefix(_SPIFFE),)),)


def _known_callers(mesh: str | None, traffic: str | None) -> list[AskedCaller]:
    """The workloads of a mesh description with their identities; nothing without one."""
    if not mesh or not policy_files.has_workloads(policy_files.description_files(mesh, traffic)):
        return []
    described = policy_files.read_workloads(mesh, traffic).workloads
    return [AskedCaller(f"{one.namespace}/{one.name}", str(one.spiffe_id)) for one in described]


def _by_identity(known: Sequence[AskedCaller]) -> list[AskedCaller]:
    """Workloads that share an identity are one caller: no policy can tell them apart by it."""
    found: dict[str | None, AskedCaller] = {}
    for one in known:
        before = found.get(one.spiffe_id)
        found[one.spiffe_id] = one if before is None else replace(before, name=f"{before.name}, {one.name}")
    return list(found.values())


def _caller(text: str, known: Sequence[AskedCaller]) -> AskedCaller:
    if text == ANONYMOUS:
        return AskedCaller(ANONYMOUS, "")
    identity = text.removeprefix(_SPIFFE)
    if "/ns/" in identity or text.startswith(_SPIFFE):
        if "*" in identity or not all(identity.split("/")):
            raise click.BadParameter("expected one whole identity, without stars", param_hint="--from")
        return AskedCaller(identity, _SPIFFE + identity)
    named = [one for one in known if text in (one.name, one.name.partition("/")[2])]
    if len({one.spiffe_id for one in named}) == 1:
        return named[0]
    if named:
        several = " or ".join(f"`{one.name}`" for one in named)
        raise click.BadParameter(f"more than one workload is called `{text}`: say {several}", param_hint="--from")
    names = [*(one.name.partition("/")[2] for one in known), *(one.name for one in known), ANONYMOUS]
    close = difflib.get_close_matches(text, names, 1, 0.5)
    advice = f"did you mean `{close[0]}`?" if close else "name a workload of --mesh, or an identity"
    raise click.BadParameter(f"no workload is called `{text}`; {advice}", param_hint="--from")


def _meant(workloads: Sequence[AskedWorkload], patterns: Sequence[str]) -> Sequence[AskedWorkload]:
    """The workloads of ``--to``. Raises a usage error for one that means none."""
    found: dict[str, AskedWorkload] = {}
    for pattern in patterns:
        meant = [
            one
            for one in workloads
            if any(fnmatch.fnmatchcase(name, pattern) for name in (one.workload.name, one.name))
        ]
        if not meant:
            names = ", ".join(f"`{one.name}`" for one in workloads[:20])
            raise click.BadParameter(f"no workload is called `{pattern}`; there are {names}", param_hint="--to")
        found |= {one.name: one for one in meant}
    return list(found.values()) if patterns else workloads
