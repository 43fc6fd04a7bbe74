"""``authz audit``: read the audit trail back — tail it, search it by time and by what it says, verify its chain."""

import contextlib
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from authz.audit.chain import VerifyReport, read_public_key, verify_chain
from authz.audit.entry import encode_record
from authz.audit.query import RecordFilter, Skipped, audit_files, find, follow, read_lines
from authz.audit.render import EFFECT_STYLES, render_line, render_parts, text
from authz.cli import output as out
from authz.core.attributes import Json
from authz.core.decided import Record

NO = 3
_SPAN = re.compile(r"(\d+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_INDENT = 14  # below the effect, so that the times stand out
_COLUMNS = ("TIME", "EFFECT", "WHO", "WHAT", "WHY", "DECISION")

Command = TypeVar("Command", bound=Callable[..., object])


def parse_time(value: str, now: float) -> float:
    """Parse ``10m``, ``2h30m`` (ago) or RFC 3339, local time when it names no zone. Raises ValueError."""
    if re.fullmatch(f"({_SPAN.pattern})+", value):
        return now - sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(value))
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise ValueError(f"`{value}` is no time: expected `10m`, `2h30m` or `2026-01-31T12:00:00Z`") from None


class _Time(click.ParamType[float]):
    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_time(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


WHEN = _Time()


def _configured_file() -> Path:
    """The file sink of the service's own setting, when it is in the environment."""
    sinks = [name.strip().partition(":") for name in os.environ.get("AUTHZ_AUDIT", "").split(",")]
    return next((Path(path) for kind, _, path in sinks if kind == "file" and path), Path("audit.jsonl"))


def _reading(command: Command) -> Command:
    """Options of every command that reads records."""
    for option in reversed(
        (
            click.option(
                "--log",
                "path",
                type=click.Path(path_type=Path),
                default=_configured_file,
                show_default="the file of AUTHZ_AUDIT, else audit.jsonl",
                help="Audit file (its rotated files are read too), or a directory of them.",
            ),
            out.answer_form("table", "json"),
        )
    ):
        command = option(command)
    return command


def _filtering(command: Command) -> Command:
    """Options that choose among records."""
    for option in reversed(
        (
            click.option(
                "--workload", default="", help="Destination, `reviews-v2` or `reviews-v2.bookinfo`; * allowed."
            ),
            click.option("--principal", default="", help="Source principal, `*/sa/productpage`; * allowed."),
            click.option("--effect", type=click.Choice(["allow", "deny"]), default=None, help="What was decided."),
            click.option(
                "--rule", default="", help="`policy`, `ns/policy`, `ns/policy/index` or Istio's name; * allowed."
            ),
        )
    ):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """
    Read the audit trail: what was decided, for whom, and why.

    \b
    authz audit tail -f --log /var/log/authz/audit.jsonl
    authz audit since 10m --effect deny --workload reviews-v2
    authz audit show 6b019f90c2eb880000000001
    """


@audit.command()
@_reading
@_filtering
@click.option("-n", "number", type=click.IntRange(0), default=20, show_default=True, help="Records to show first.")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on as decisions are made, until Ctrl-C.")
def tail(path: Path, output: str, number: int, *, is_following: bool, **chosen: str | None) -> None:
    """
    Show the newest records.

    \b
    authz audit tail -n 5
    authz audit tail -f --effect deny
    """
    wanted = _filter(chosen)
    _require(path, is_following)
    if not is_following:
        _print(deque(_records(path, wanted), maxlen=number), output)
        return
    # Opened before the older records are read, so that none falls in between; what both see is shown once.
    appended = follow(path if not path.is_dir() else audit_files(path)[-1], wanted, _wait)
    last = deque(_records(path, wanted), maxlen=number)
    shown = {text(record.get("decision_id")) for record in last}
    for record in last:
        _say(record, output)
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it, and no failure
        for record in appended:
            if text(record.get("decision_id")) not in shown:
                _say(record, output)
                sys.stdout.flush()


@audit.command()
@_reading
@_filtering
@click.argument("when", type=WHEN)
def since(path: Path, output: str, when: float, **chosen: str | None) -> None:
    """
    Show records since WHEN: `10m` ago, or a time.

    \b
    authz audit since 10m --effect deny
    authz audit since 2026-11-21T13:00:00Z --principal '*/sa/productpage' -o json
    """
    _require(path)
    _print(_records(path, _filter(chosen, since=when)), output)


@audit.command()
@_reading
@_filtering
@click.argument("begin", type=WHEN)
@click.argument("end", type=WHEN)
def between(path: Path, output: str, begin: float, end: float, **chosen: str | None) -> None:
    """
    Show records from BEGIN to END, both included.

    \b
    authz audit between 2h 1h --workload reviews-v2
    authz audit between 2026-11-21T13:00:00Z 2026-11-21T13:05:00Z -o json
    """
    if begin > end:
        raise click.UsageError("BEGIN is later than END")
    _require(path)
    _print(_records(path, _filter(chosen, since=begin, until=end)), output)


@audit.command()
@_reading
@click.argument("wanted_id", metavar="ID")
def show(path: Path, output: str, wanted_id: str) -> None:
    """
    Show one decision by its id, the `x-authz-decision-id` of a denied response.

    ID may also be a trace id or an `x-request-id`: of several decisions that share it a table is shown.

    \b
    authz audit show 6b019f90c2eb880000000001 --log /var/log/authz/audit.jsonl
    """
    _require(path)
    found = list(_records(path, RecordFilter(any_id=wanted_id)))
    if not found:
        click.echo(f"no record of decision, trace or request `{wanted_id}` in {path}", err=True)
        sys.exit(NO)
    if len(found) == 1 and output == "table":
        _print_record(found[0])
    else:
        _print(found, output)


@audit.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--public-key",
    type=click.File("rb"),
    help="Ed25519 key in PEM that must have signed the checkpoints. Without it only accidents are found.",
)
@out.answer_form("table", "json")
def verify(paths: tuple[Path, ...], public_key: BinaryIO | None, output: str) -> None:
    """
    Verify that nothing was changed, removed or added in chained audit files.

    \b
    authz audit verify /var/log/authz/ --public-key audit.pub
    """
    try:
        key = read_public_key(public_key.read()) if public_key else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    files = [file for path in paths for file in audit_files(path)]
    try:
        lines = ((str(file), number, line) for file in files for number, line in read_lines(file))
        report = verify_chain(lines, key)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        click.echo(json.dumps(_report_json(report)))
    else:
        _print_report(report, is_signed=key is not None)
    if not report.is_intact:
        sys.exit(NO)


def _filter(chosen: dict[str, str | None], *, since: float | None = None, until: float | None = None) -> RecordFilter:
    return RecordFilter(
        since,
        until,
        workload=chosen["workload"] or "",
        principal=chosen["principal"] or "",
        effect=chosen["effect"] or "",
        rule=chosen["rule"] or "",
    )


def _require(path: Path, is_following: bool = False) -> None:
    """An absent file is no empty answer: it is the wrong path, except for one that is about to be written."""
    if not audit_files(path) and (not is_following or path.is_dir()):
        raise click.ClickException(f"no audit file at {path}; name it with --log")


def _records(path: Path, wanted: RecordFilter) -> Iterator[Record]:
    skipped = Skipped()
    try:
        for found in find(audit_files(path), wanted, skipped):
            yield found.record
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if skipped.lines:
        where = ", ".join(skipped.places)
        click.echo(f"{skipped.lines} line{'s' if skipped.lines > 1 else ''} skipped, no records: {where}", err=True)


def _wait() -> bool:
    time.sleep(0.2)
    return True


def _say(record: Record, output: str) -> None:
    """One record: a line, or for people at a terminal a line and what led to it below."""
    if output == "json":
        click.echo(encode_record(record).decode())
    elif sys.stdout.isatty():
        _stack(_console(), record)
    else:
        click.echo(render_line(record))


def _stack(console: Console, record: Record) -> None:
    """No terminal is as broad as a record; nothing is cut, above all not the id by which one goes on."""
    time_, effect, who, what, why, decision_id = render_parts(record)
    style = EFFECT_STYLES.get(text(record.get("effect")), "")
    head = Text.assemble(f"{time_}  ", (effect, style), f"  {who}  ", (what, "bold"))
    console.print(head, overflow="fold")
    console.print(Padding(Text.assemble(f"{why}  ", (decision_id, "dim"), overflow="fold"), (0, 0, 0, _INDENT)))


def _print(records: Iterable[Record], output: str) -> None:
    if output == "json" or sys.stdout.isatty():
        is_none = True
        for record in records:
            is_none = False
            _say(record, output)
        if is_none and output != "json":
            click.echo("no records", err=True)
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold")
    rows = 0
    for record in records:
        rows += 1
        parts = render_parts(record)
        style = EFFECT_STYLES.get(text(record.get("effect")), "")
        table.add_row(
            *(
                Text(part, style=style if column == "EFFECT" else "")
                for column, part in zip(_COLUMNS, parts, strict=True)
            )
        )
    if rows:
        _console().print(table)
    else:
        click.echo("no records", err=True)


def _console() -> Console:
    """A pipe gets whole lines: only a terminal has a width."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=1000, highlight=False, soft_wrap=True)


def _print_record(record: Record) -> None:
    """The line, then every field that says something, then what came closest."""
    console = _console()
    style = EFFECT_STYLES.get(text(record.get("effect")), "")
    console.print(Text(render_line(record), style=style))
    for name, value in _flat(record):
        console.print(Text(f"  {name:<28}{text(value)}"))
    nearest = record.get("nearest")
    if isinstance(nearest, dict):
        place = f" ({text(nearest.get('file'))}:{text(nearest.get('line'))})" if nearest.get("file") else ""
        console.print(Text(f"  nearest miss: {text(nearest.get('rule'))}{place}", style="bold"))
        failed = nearest.get("failed")
        for one in failed if isinstance(failed, list) else []:
            console.print(Text(f"    {_failed(one)}"))


def _failed(one: Json) -> str:
    if not isinstance(one, dict):
        return ""
    wanted = [f"one of {_values(one.get('expected'))}"] if one.get("expected") else []
    wanted += [f"none of {_values(one.get('excluded'))}"] if one.get("excluded") else []
    actual = one.get("actual")
    got = "not delivered" if actual is None else f"got {_values(actual)}" if actual else "got no value"
    return f"{text(one.get('field'))} ({text(one.get('key'))}): expected {' and '.join(wanted)}, {got}"


def _values(values: Json) -> str:
    return ", ".join(f"`{text(value)}`" for value in values) if isinstance(values, list) else ""


def _flat(value: Json, prefix: str = "") -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if prefix or name not in ("nearest", "chain"):
                yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
    elif value is not None and value != "":
        yield prefix, value


def _print_report(report: VerifyReport, *, is_signed: bool) -> None:
    for chain in report.chains.values():
        ending = "ended in order" if chain.is_final else f"{chain.unsealed} lines after the last checkpoint not sealed"
        sealed = f"{chain.checkpoints} checkpoints{'' if is_signed else ' (signatures not checked: no --public-key)'}"
        click.echo(f"chain {chain.chain_id} from {chain.first}: {chain.lines} lines, {sealed}, {ending}")
        for problem in chain.problems:
            click.echo(f"  {problem}")
    for problem in report.problems:
        click.echo(problem)
    if not report.chains:
        click.echo("no chained lines: the service writes a chain when an audit signing key is set")
    click.echo("intact" if report.is_intact else "NOT intact")


def _report_json(report: VerifyReport) -> dict[str, Json]:
    return {
        "intact": report.is_intact,
        "unchained_lines": report.unchained,
        "problems": list(report.problems),
        "chains": [
            {
                "id": c.chain_id,
                "first": c.first,
                "lines": c.lines,
                "checkpoints": c.checkpoints,
                "unsealed": c.unsealed,
                "final": c.is_final,
                "problems": list(c.problems),
            }
            for c in report.chains.values()
        ],
    }
