"""``authz generate``: least-privilege policies from recorded traffic."""

import click

from authz.analysis.replay.least_privilege import anonymous_rules, policies_text
from authz.analysis.replay.observed import Observed
from authz.audit.query import RecordFilter, Skipped
from authz.cli import terminal as out
from authz.cli.audit import WHEN
from authz.cli.replay import described_by, watched
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.cli.trail_option import TRAILS, TrailPlace, found_records, refuse_stdin_twice
from authz.cli.truth_options import truth_access
from authz.core.uncollected import WithoutCollector
from authz.truth.truth_address import TruthAccess

PATH_VALUES = 8
"""Names that people would still list."""


@click.command("generate", short_help="Write policies that allow what was recorded.")
@click.argument("audit", nargs=-1, required=True, metavar="AUDIT...", type=TRAILS)
@truth_access
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Mesh description: its WorkloadEntries say the labels of workloads in place of the records.",
)
@TRAFFIC
@click.option("--since", type=WHEN, help="Only records since then: `2h30m` ago, or a time.")
@click.option("--until", type=WHEN, help="Only records until then.")
@click.option("--workload", default="", help="Only this destination, `reviews-v2` or `reviews-v2.bookinfo`; * allowed.")
@click.option(
    "--min-count",
    type=click.IntRange(1),
    default=1,
    help="A caller with fewer requests at a workload is left out, and stands as a comment to be judged.",
)
@click.option(
    "--path-values",
    type=click.IntRange(1),
    default=PATH_VALUES,
    help="A segment of a path with more names becomes {*}; ids, numbers and UUIDs do so from the second on.",
)
def command(
    audit: tuple[TrailPlace, ...],
    access: TruthAccess,
    mesh: str | None,
    traffic: str | None,
    since: float | None,
    until: float | None,
    workload: str,
    min_count: int,
    path_values: int,
) -> None:
    """
    Write policies that allow what was allowed in recorded traffic, and nothing else, to stdout.

    One ALLOW policy for each workload, one rule for each caller: ports, methods, paths, and the token when every
    request had one. `authz replay` with the same trail and these policies then denies nothing but what is left out.

    \b
    authz generate /var/log/authz/audit.jsonl > generated.yaml
    authz generate audit/ --mesh mesh.yaml --since 7d --min-count 10 > generated.yaml
    authz replay audit/ --policies generated.yaml --mesh mesh.yaml
    """
    refuse_stdin_twice(audit)
    check_traffic(mesh, traffic)
    skipped = Skipped()
    with WithoutCollector(for_good=True):
        observed = Observed(path_values, described_by(mesh, traffic))
        wanted = RecordFilter(since, until, workload=workload)
        observed.take_all(watched(found_records(audit, access, wanted, skipped)))
    if skipped.lines:
        out.remark(f"{out.count(skipped.lines, 'line')} skipped, no records: {', '.join(skipped.places)}")
    if not observed.called:
        raise click.ClickException("no record of an allowed request was found, so there is nothing to write")
    click.echo(policies_text(observed, min_count), nl=False)
    for name in anonymous_rules(observed, min_count):
        out.remark(f"warning: {name} was called without identity and token; a rule for it admits everybody")
