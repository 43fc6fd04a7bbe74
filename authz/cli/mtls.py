"""``authz mtls``: on the way to STRICT, from what was recorded."""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from authz.analysis.graph.plaintext import (
    DAY_SECONDS,
    KnownWorkload,
    ObservedWorkload,
    Seen,
    StrictPlan,
    address_names,
    plan_strict,
    span,
)
from authz.audit.query import RecordFilter, Skipped, record_time
from authz.cli import terminal
from authz.cli.trail_option import TRAILS, TrailPlace, found_records, refuse_stdin_twice
from authz.cli.truth_options import truth_access
from authz.core.attributes import Json, read_field
from authz.core.decided import Record
from authz.core.errors import LoadError
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.sources.policies.directory import read_directory
from authz.truth.truth_address import TruthAccess

_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_SECONDS}


class _Span(click.ParamType[float]):
    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not re.fullmatch(f"({_SPAN.pattern})+", str(value)):
            self.fail(f"`{value}` is not a span of time: expected `90s`, `30m`, `1d12h`", param, ctx)
        return sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(str(value)))


@click.group("mtls", short_help="Find out where STRICT mutual TLS is safe.")
def command() -> None:
    """
    Mutual TLS: who does not speak it yet.

    \b
    authz mtls plan audit/ --mesh mesh.yaml --min-window 7d
    """


@command.command()
@click.argument("audit", nargs=-1, required=True, metavar="AUDIT...", type=TRAILS)
@click.option(
    "--mesh",
    "mesh_path",
    type=click.Path(exists=True, path_type=Path),
    help="Mesh description: it names senders, leaves gateways out, and shows workloads that nobody called.",
)
@click.option("--min-window", type=_Span(), default="1d", help="A shorter observation proves nothing.")
@terminal.answer_form("table", "json", name="form")
@truth_access
def plan(
    audit: tuple[TrailPlace, ...], mesh_path: Path | None, min_window: float, form: str, access: TruthAccess
) -> None:
    """
    Say who still sends to what without mutual TLS, and where STRICT is safe.

    AUDIT: files of the trail, directories of them, `-` for stdin, or the stream of a fleet, nats://HOST:PORT/FLEET.

    Exit 0 when it is safe for every workload, 3 when not. No data does not mean safe, and what `audit_drop` leaves out
    of the record is no data. Plaintext to a port that is already STRICT ends in the handshake and is in no record.

    \b
    authz mtls plan audit.jsonl
    authz mtls plan audit/ --mesh mesh.yaml --min-window 7d
    authz mtls plan nats://127.0.0.1:4222/shop --mesh mesh.yaml
    """
    refuse_stdin_twice(audit)
    mesh = _read(mesh_path) if mesh_path is not None else None
    skipped = Skipped()
    found = plan_strict(
        _requests(found_records(audit, access, RecordFilter(), skipped), skipped),
        _known(mesh),
        _names(mesh),
        min_window,
    )
    if form == "json":
        terminal.print_json(_json(found))
    else:
        _print(found)
    if skipped.lines:
        terminal.remark(f"{terminal.count(skipped.lines, 'line')} skipped, no records: {', '.join(skipped.places)}")
    raise SystemExit(terminal.Exit.YES if found.is_safe else terminal.Exit.NO)


def _requests(records: Iterable[Record], skipped: Skipped) -> Iterator[Seen]:
    for record in records:
        seen = _seen(record)
        if seen is None:
            skipped.note(f"decision {str(record.get('decision_id'))[:100]}")
        else:
            yield seen


def _seen(record: Record) -> Seen | None:
    """None for a record that does not say when, or whether it was mutual TLS: nothing may be concluded from it."""
    time, is_mtls = record_time(record), read_field(record, "source", "mtls")
    if time is None or not isinstance(is_mtls, bool):
        return None
    port, ip = read_field(record, "destination", "port"), read_field(record, "source", "ip")
    account = read_field(record, "destination", "service_account")
    return Seen(
        time,
        str(read_field(record, "destination", "namespace") or ""),
        str(read_field(record, "destination", "workload") or account or ""),
        port if isinstance(port, int) else 0,
        ip if isinstance(ip, str) else "",
        is_mtls,
        record.get("effect") == "allow",
    )


def _read(path: Path) -> Mesh:
    mesh, problems = read_mesh_description(read_directory(path))
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return mesh


def _known(mesh: Mesh | None) -> Iterator[KnownWorkload]:
    for workload in mesh.workloads if mesh is not None else ():
        yield KnownWorkload(workload.namespace, workload.name, workload.is_gateway)


def _names(mesh: Mesh | None) -> dict[str, str]:
    workloads = mesh.workloads if mesh is not None else ()
    pairs = [(address, w.name) for w in workloads for address in {w.address, w.compose_address} if address]
    return address_names(pairs, _is_loopback)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _print(found: StrictPlan) -> None:
    rows = [
        (
            f"{workload.namespace}/{workload.name or '(unnamed)'}",
            str(sender.port or "?"),
            f"{sender.source_ip or 'unknown'}{f' ({sender.source})' if sender.source else ''}",
            str(sender.allowed),
            str(sender.refused),
            _time(sender.last_seen),
        )
        for workload in found.workloads
        for sender in workload.senders
    ]
    if rows:
        terminal.print_table(("WITHOUT MTLS TO", "PORT", "FROM", "ALLOWED", "REFUSED", "LAST SEEN"), rows)
        terminal.say()
    verdicts = [
        (f"{w.namespace}/{w.name or '(unnamed)'}", "safe" if w.is_safe else "NOT safe", str(w.mtls), w.problem)
        for w in found.workloads
    ]
    if verdicts:
        terminal.print_table(("WORKLOAD", "STRICT", "WITH MTLS", "WHY NOT"), verdicts)
        terminal.say()
    for namespace, is_safe in found.namespaces().items():
        terminal.say(f"namespace {namespace}: STRICT is {'safe' if is_safe else 'NOT safe'}")
    if not found.end:
        terminal.say("no requests were recorded, so nothing is known to be safe")
        return
    terminal.say(f"observed for {span(found.window_seconds)}, {_time(found.begin)} to {_time(found.end)}")


def _json(found: StrictPlan) -> Json:
    return {
        "safe": found.is_safe,
        "window": {
            "begin": _time(found.begin) if found.end else None,
            "end": _time(found.end) if found.end else None,
            "seconds": round(found.window_seconds, 3),
        },
        "namespaces": dict(found.namespaces()),
        "workloads": [_workload(workload) for workload in found.workloads],
    }


def _workload(workload: ObservedWorkload) -> Json:
    return {
        "namespace": workload.namespace,
        "workload": workload.name,
        "safe": workload.is_safe,
        "problem": workload.problem or None,
        "with_mtls": workload.mtls,
        "without_mtls": workload.plaintext,
        "first_seen": _time(workload.first_seen) if workload.last_seen else None,
        "last_seen": _time(workload.last_seen) if workload.last_seen else None,
        "senders": [
            {
                "source_ip": sender.source_ip or None,
                "source_workload": sender.source or None,
                "port": sender.port or None,
                "allowed": sender.allowed,
                "refused": sender.refused,
                "last_seen": _time(sender.last_seen),
            }
            for sender in workload.senders
        ],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
