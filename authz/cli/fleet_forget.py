"""``authz fleet forget``: a replica that will not come back."""

from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.truth_options import truth_options
from authz.truth.fleet_report import check_replica_name

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient


@click.command()
@click.argument("replica")
@truth_options
def forget(truth: "TruthClient | None", replica: str) -> None:
    """
    Take away what a REPLICA reported that will not come back, so that nobody waits for it. Exit 3: there is none.

    One that ends in order needs no such thing, and one that lives reports again.

    \b
    authz fleet forget control-2 --truth nats://127.0.0.1:4222/shop
    """
    if truth is None:
        raise click.UsageError("say where: --truth")
    check_replica_name(replica)
    from authz.truth.report_store import ReportReader  # nats is slow to import

    with truth as client:
        was_there = ReportReader(client).forget(replica)
    terminal.say(f"{replica} is forgotten" if was_there else f"no replica `{replica}` has reported")
    raise SystemExit(terminal.Exit.YES if was_there else terminal.Exit.NO)
