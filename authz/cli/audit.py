"""``authz audit``: read the audit trail back — tail it, search it by time and by what it says, verify its chain."""

import contextlib
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import click

from authz.audit.chain import read_public_key, verify_chain
from authz.audit.query import RecordFilter, Skipped, audit_files, read_lines
from authz.audit.record_line import text
from authz.cli import terminal as out
from authz.cli.record_views import print_record, print_records, print_report, report_json, say
from authz.cli.trail_option import TrailPath, TrailPlace, following, found_records, newest_records
from authz.cli.truth_options import truth_access
from authz.core.decided import Record
from authz.service.loading.archive import Archive
from authz.settings.written_settings import read_sinks
from authz.truth.truth_address import SCHEME, TruthAccess

NO = 3
_SPAN = re.compile(r"(\d+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_Command = TypeVar("_Command", bound=Callable[..., object])


def parse_time(value: str, now: float) -> float:
    """Parse ``10m``, ``2h30m`` (ago) or RFC 3339, local time when it names no zone. Raises ValueError."""
    if re.fullmatch(f"({_SPAN.pattern})+", value):
        return now - sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(value))
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise ValueError(f"`{value}` is not a time: expected `10m`, `2h30m` or `2026-01-31T12:00:00Z`") from None


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


def _configured_place() -> str:
    """The file or stream of the service's own setting, when it is in the environment."""
    for sink in read_sinks(os.environ.get("AUTHZ_AUDIT", "")):
        if sink.startswith(("file:", f"{SCHEME}://")):
            return sink.removeprefix("file:")
    return "audit.jsonl"


def _reading(command: _Command) -> _Command:
    """Options of every command that reads records."""
    for option in reversed(
        (
            click.option(
                "--log",
                "path",
                type=TrailPath(path_type=Path),
                default=_configured_place,
                show_default="the file or address of AUTHZ_AUDIT, else audit.jsonl",
                help="Audit file (its rotated files are read too), a directory of them, or nats://HOST:PORT/FLEET.",
            ),
            truth_access,
            out.answer_form("table", "json"),
        )
    ):
        command = option(command)
    return command


def _filtering(command: _Command) -> _Command:
    """Options that choose among records."""
    for option in reversed(
        (
            click.option(
                "--workload", default="", help="Destination, `reviews-v2` or `reviews-v2.bookinfo`; * allowed."
            ),
            click.option("--principal", default="", help="Source principal, `*/sa/productpage`; * allowed."),
            click.option(
                "--effect", type=click.Choice(["allow", "deny"]), default=None, help="Only decisions with this result."
            ),
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
    authz audit since 10m --log nats://localhost:4222/shop
    authz audit show 6b019f90c2eb880000000001
    """


@audit.command()
@_reading
@_filtering
@click.option("-n", "number", type=click.IntRange(0), default=20, show_default=True, help="Records to show first.")
@click.option(
    "-f", "--follow", "is_following", is_flag=True, help="Keep printing decisions as they are made, until Ctrl-C."
)
def tail(
    path: TrailPlace, access: TruthAccess, output: str, number: int, *, is_following: bool, **chosen: str | None
) -> None:
    """
    Show the newest records.

    \b
    authz audit tail -n 5
    authz audit tail -f --effect deny
    """
    wanted, skipped = _filter(chosen), Skipped()
    _require(path, is_following)
    if not is_following:
        print_records(newest_records(path, access, wanted, number, skipped), output)
        _say_skipped(skipped)
        return
    # Begun before the older records are read, so that none falls in between; what both see is shown once.
    with following(path, access, wanted, _wait) as appended:
        last = newest_records(path, access, wanted, number, skipped) if _is_there(path) else deque[Record]()
        _say_skipped(skipped)
        shown = {text(record.get("decision_id")) for record in last}
        for record in last:
            say(record, output)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, and no failure
            for record in appended:
                if text(record.get("decision_id")) not in shown:
                    say(record, output)
                    sys.stdout.flush()


@audit.command()
@_reading
@_filtering
@click.argument("when", type=WHEN)
def since(path: TrailPlace, access: TruthAccess, output: str, when: float, **chosen: str | None) -> None:
    """
    Show records since WHEN: `10m` ago, or a time.

    \b
    authz audit since 10m --effect deny
    authz audit since 2026-11-21T13:00:00Z --principal '*/sa/productpage' -o json
    """
    _require(path)
    print_records(_records(path, access, _filter(chosen, since=when)), output)


@audit.command()
@_reading
@_filtering
@click.argument("begin", type=WHEN)
@click.argument("end", type=WHEN)
def between(path: TrailPlace, access: TruthAccess, output: str, begin: float, end: float, **chosen: str | None) -> None:
    """
    Show records from BEGIN to END, both included.

    \b
    authz audit between 2h 1h --workload reviews-v2
    authz audit between 2026-11-21T13:00:00Z 2026-11-21T13:05:00Z -o json
    """
    if begin > end:
        raise click.UsageError("BEGIN is later than END")
    _require(path)
    print_records(_records(path, access, _filter(chosen, since=begin, until=end)), output)


@audit.command()
@_reading
@click.argument("wanted_id", metavar="ID")
@click.option(
    "--archive",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What `authz serve --archive` kept: the decision is explained by the policies of then.",
)
def show(path: TrailPlace, access: TruthAccess, output: str, wanted_id: str, archive: Path | None) -> None:
    """
    Show one decision by its id, the `x-authz-decision-id` of a denied response.

    ID may also be a trace id or an `x-request-id`: several decisions that share it are shown as a table.

    \b
    authz audit show 6b019f90c2eb880000000001 --log /var/log/authz/audit.jsonl
    authz audit show 6b019f90c2eb880000000001 --archive /var/lib/authz/archive
    """
    _require(path)
    found = list(_records(path, access, RecordFilter(any_id=wanted_id)))
    if not found:
        click.echo(f"no record of decision, trace or request `{wanted_id}` in {path}", err=True)
        sys.exit(NO)
    if archive is not None:
        from authz.cli.as_of import explained_again, print_again

        answers = [explained_again(record, Archive(archive)) for record in found]
        if output == "json":
            found = [{**record, "as_of": answer.as_json()} for record, answer in zip(found, answers, strict=True)]
            print_records(found, output)
            return
        for record, answer in zip(found, answers, strict=True):
            print_record(record)
            print_again(answer)
        return
    if len(found) == 1 and output == "table":
        print_record(found[0])
    else:
        print_records(found, output)


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
        click.echo(json.dumps(report_json(report)))
    else:
        print_report(report, is_signed=key is not None)
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


def _is_there(path: TrailPlace) -> bool:
    return not isinstance(path, Path) or bool(audit_files(path))


def _require(path: TrailPlace, is_following: bool = False) -> None:
    """An absent file is no empty answer: it is the wrong path, except for one that is about to be written."""
    if not _is_there(path) and (not is_following or not isinstance(path, Path) or path.is_dir()):
        raise click.ClickException(f"no audit file at {path}; name it with --log")


def _records(path: TrailPlace, access: TruthAccess, wanted: RecordFilter) -> Iterator[Record]:
    skipped = Skipped()
    try:
        yield from found_records((path,), access, wanted, skipped)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    _say_skipped(skipped)


def _say_skipped(skipped: Skipped) -> None:
    if skipped.lines:
        where = ", ".join(skipped.places)
        click.echo(f"{skipped.lines} line{'s' if skipped.lines > 1 else ''} skipped, no records: {where}", err=True)


def _wait() -> bool:
    time.sleep(0.2)
    return True
