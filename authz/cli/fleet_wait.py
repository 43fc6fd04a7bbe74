"""``authz fleet wait``: until every live replica and proxy has acknowledged a revision."""

from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.fleet_source import Look, fleet_options, looking_at
from authz.cli.fleet_status import read_seconds
from authz.cli.fleet_views import remark_reasons
from authz.truth.fleet_merge import FleetView
from authz.truth.fleet_waiting import await_revision

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient


@click.command()
@fleet_options
@click.option("--revision", required=True, help="A number, or a digest of policies; a higher number will do as well.")
@click.option("--timeout", callback=read_seconds, default="60s", help="How long to wait.")
def wait(
    truth: "TruthClient | None", admin: tuple[str, ...], revision: str, timeout: float,
) -> None:  # fmt: skip
    """
    Wait until every live replica and proxy has acknowledged a revision (exit 0), or say who has not (exit 3).

    Proxies that are connected nowhere are not waited for: they get it when they connect.

    \b
    authz fleet wait --truth nats://127.0.0.1:4222/shop --revision 7
    authz fleet wait --admin 127.0.0.1:15014 --revision 7 --timeout 2m
    """
    with looking_at(truth, admin) as look:
        is_there = await_fleet(look, revision, timeout)
    raise SystemExit(terminal.Exit.YES if is_there else terminal.Exit.NO)


def await_fleet(look: Look, revision: str, seconds: float) -> bool:
    """
    Wait, and say how it ended.

    Raises:
        AuthzError: nobody answered at the end.
    """
    return say_waited(await_revision(look, revision, seconds), revision)


def say_waited(view: FleetView, revision: str) -> bool:
    """How waiting for a revision ended: how many have it, or who has not. For every command that changed something."""
    live = [one for one in view.proxies if one.state != "missing"]
    if view.has(revision):
        counted = terminal.count(len(view.replicas), "replica"), terminal.count(len(live), "proxy", "proxies")
        terminal.say(f"revision {revision}: {counted[0]} and {counted[1]} have acknowledged it")
        if missing := len(view.proxies) - len(live):
            told = terminal.count(missing, "proxy is", "proxies are")
            terminal.remark(f"{told} connected nowhere, and not waited for: `authz fleet status --lagging` names them")
        return True
    late = list(view.without(revision))
    if not view.replicas:
        terminal.remark("no replica has reported what it runs")
    else:
        whole = len(view.replicas) + len(live)
        terminal.remark(f"revision {revision}: {len(late)} of {whole} have not acknowledged it")
        remark_reasons(late, view.now)
    return False
