"""``authz replay``: recorded traffic against other policies, or against those of then."""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import click

from authz.analysis.replay.replay import CHANGES, Replay, ReplayOutcome, ReplayReport
from authz.audit.query import RecordFilter, Skipped
from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.audit import WHEN
from authz.cli.replay_views import ReplayQuestion, print_markdown, print_text, report_json
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.cli.trail_option import TRAILS, TrailPlace, found_records, refuse_stdin_twice
from authz.cli.truth_options import truth_access
from authz.core.attributes import Workload
from authz.core.decided import Record
from authz.core.engine import Engine
from authz.core.uncollected import WithoutCollector
from authz.service.loading.archive import Archive
from authz.service.loading.described import described_workloads
from authz.truth.truth_address import TruthAccess

PROGRESS_SECONDS = 0.5
_KEPT = 16
"""Versions of policies held at once."""


@click.command("replay", short_help="Decide recorded traffic again, by other policies.")
@click.argument("audit", nargs=-1, required=True, metavar="AUDIT...", type=TRAILS)
@truth_access
@click.option(
    "--policies",
    "-p",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True),
    help="The new policies: file or directory; may be repeated.",
)
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Istio's MeshConfig; WorkloadEntries in it say the labels of workloads in place of the records.",
)
@TRAFFIC
@click.option("--as-of", is_flag=True, help="Decide each record by the policies of then, and compare; needs --archive.")
@click.option(
    "--archive",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What `authz serve --archive` kept: shows how tokens were judged and providers asked.",
)
@click.option("--since", type=WHEN, help="Only records since then: `2h30m` ago, or a time.")
@click.option("--until", type=WHEN, help="Only records until then.")
@click.option("--workload", default="", help="Only this destination, `reviews-v2` or `reviews-v2.bookinfo`; * allowed.")
@click.option("--strict", is_flag=True, help="What cannot be said, or is assumed, counts as a change.")
@out.answer_form("text", "json", "markdown")
def command(
    audit: tuple[TrailPlace, ...],
    access: TruthAccess,
    policies: tuple[str, ...],
    mesh: str | None,
    traffic: str | None,
    archive: Path | None,
    since: float | None,
    until: float | None,
    workload: str,
    output: str,
    *,
    as_of: bool,
    strict: bool,
) -> None:
    """
    Say what other policies would have changed in recorded traffic (exit 0: nothing, 3: something).

    AUDIT: files of the trail, with their rotated ones, directories of them, `-` for stdin, or the stream of a fleet,
    nats://HOST:PORT/FLEET. What a record lacks is never guessed: where the new policies ask for it and it matters, the
    answer is that it cannot be said.

    \b
    authz replay /var/log/authz/audit.jsonl --policies new-policies/
    authz replay audit/ --policies policies/ --mesh mesh.yaml --since 24h --workload reviews-v2 -o markdown
    authz replay audit.jsonl --as-of --archive /var/lib/authz/archive
    authz replay nats://localhost:4222/shop --policies new-policies/ --since 1h
    """
    if as_of == bool(policies):
        raise click.UsageError("give either the new policies with --policies, or --as-of for those of then")
    if as_of and archive is None:
        raise click.UsageError("--as-of needs --archive, the directory of `authz serve --archive`")
    refuse_stdin_twice(audit)
    check_traffic(mesh, traffic)
    wanted, skipped = RecordFilter(since, until, workload=workload), Skipped()
    with WithoutCollector(for_good=True):
        asked = ReplayQuestion(audit, policies, policy_files.settings_file(mesh, traffic), as_of)
        replay = _prepared(asked, described_by(mesh, traffic), archive)
        replay.take_all(watched(found_records(audit, access, wanted, skipped)))
    report = replay.report()
    if skipped.lines:
        out.remark(f"{out.count(skipped.lines, 'line')} skipped, no records: {', '.join(skipped.places)}")
    if not report.records:
        raise click.ClickException("no record of a decision was found")
    if output == "json":
        out.print_json(report_json(report, asked, skipped.lines))
    elif output == "markdown":
        print_markdown(report, asked)
    else:
        print_text(report, asked)
    raise SystemExit(out.Exit.NO if _is_change(report, as_of=as_of, strict=strict) else out.Exit.YES)


def _prepared(asked: ReplayQuestion, described: dict[tuple[str, str], Workload], archive: Path | None) -> Replay:
    """Load what decides. Raises LoadError, OSError."""
    kept = Archive(archive) if archive is not None else None

    @lru_cache(maxsize=_KEPT)
    def then(version: str) -> Engine | None:
        snapshot = kept.snapshot(version) if kept is not None else None
        return snapshot.engine if snapshot is not None else None

    if asked.is_as_of:
        return Replay(then, described, is_as_of=True)
    loaded = policy_files.load(asked.policies, asked.mesh)
    asked.version = loaded.engine.version
    asked.engine = loaded.engine
    return Replay(lambda version: loaded.engine, described, then)


def described_by(mesh: str | None, traffic: str | None = None) -> dict[tuple[str, str], Workload]:
    """The workloads of a mesh description by (namespace, name); none without one. Raises LoadError, OSError."""
    more = policy_files.description_files(mesh, traffic)[1:] if mesh and traffic else ()
    workloads = described_workloads(Path(mesh) if mesh else None, more=more)
    return {(one.namespace, one.name): one for one in workloads if one.name}


def _is_change(report: ReplayReport, *, as_of: bool, strict: bool) -> bool:
    outcomes = [*CHANGES, *([ReplayOutcome.OTHER_RULE] if as_of else [])]
    if strict:
        outcomes += [ReplayOutcome.UNSAID, ReplayOutcome.NOT_KEPT]
    return bool(report.count(*outcomes)) or (strict and report.assumed > 0)


def watched(records: Iterable[Record]) -> Iterator[Record]:
    """The records, counted on a terminal's stderr while they pass."""
    if not out.is_terminal():
        yield from records
        return
    due = time.monotonic() + PROGRESS_SECONDS
    is_shown = False
    for number, record in enumerate(records, 1):
        if number % 1024 == 0 and time.monotonic() > due:
            sys.stderr.write(f"\r{number:,} records ")
            sys.stderr.flush()
            due, is_shown = time.monotonic() + PROGRESS_SECONDS, True
        yield record
    if is_shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
