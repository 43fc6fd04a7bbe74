"""Records on a terminal, in a pipe and as JSON, and what a verification of their chain found."""

import sys
from collections.abc import Iterable, Iterator

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from authz.audit.chain import VerifyReport
from authz.audit.entry import encode_record
from authz.audit.record_line import EFFECT_STYLES, render_line, render_parts, text
from authz.core.attributes import Json
from authz.core.decided import Record

_INDENT = 14  # below the effect, so that the times stand out
_COLUMNS = ("TIME", "EFFECT", "WHO", "WHAT", "WHY", "DECISION")


def say(record: Record, output: str) -> None:
    """Print one record: a line, or for people at a terminal a line and what led to it below."""
    if output == "json":
        click.echo(encode_record(record).decode())
    elif sys.stdout.isatty():
        _stack(_console(), record)
    else:
        click.echo(render_line(record))


def _stack(console: Console, record: Record) -> None:
    """No terminal is as wide as a record, and nothing is cut, least of all the id that leads on."""
    time_, effect, who, what, why, decision_id = render_parts(record)
    style = EFFECT_STYLES.get(text(record.get("effect")), "")
    head = Text.assemble(f"{time_}  ", (effect, style), f"  {who}  ", (what, "bold"))
    console.print(head, overflow="fold")
    console.print(Padding(Text.assemble(f"{why}  ", (decision_id, "dim"), overflow="fold"), (0, 0, 0, _INDENT)))


def print_records(records: Iterable[Record], output: str) -> None:
    """Print each record as ``say`` does, or a table where nobody watches; that there is none goes to stderr."""
    if output == "json" or sys.stdout.isatty():
        is_none = True
        for record in records:
            is_none = False
            say(record, output)
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


def print_record(record: Record) -> None:
    """Print the line, then every field that says something, then what came closest."""
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
    note = text(one.get("note")) if one.get("note") else ""
    got = note if note.startswith("got ") else f"{got}; {note}" if note else got
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


def print_report(report: VerifyReport, *, is_signed: bool) -> None:
    """Every chain with its problems, then the verdict in one word; ``is_signed``: signatures were checked."""
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


def report_json(report: VerifyReport) -> dict[str, Json]:
    """Every chain with its problems and the verdict, as one JSON object."""
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
