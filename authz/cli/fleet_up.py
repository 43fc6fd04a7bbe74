"""``authz fleet up``: several controls and the servers of their truth as plain processes of this machine."""

import asyncio
import logging
import signal
from pathlib import Path

import click
from rich.console import Console

from authz.cli.terminal import Exit
from authz.local.event_screen import Screen
from authz.local.stopping import unless
from authz.up.fleet_invitation import fleet_invitation
from authz.up.fleet_plan import FIRST_PORT, MOST_REPLICAS, FleetPlan, plan_fleet
from authz.up.fleet_supervisor import FleetSupervisor


@click.command("up")
@click.option(
    "--mesh", "mesh_path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The description of the mesh: a YAML file.",
)  # fmt: skip
@click.option(
    "--policies", required=True, type=click.Path(exists=True, path_type=Path), help="The first policies: a directory."
)
@click.option(
    "--replicas", type=click.IntRange(1, MOST_REPLICAS), default=3, show_default=True,
    help="How many controls, and servers of the truth.",
)  # fmt: skip
@click.option(
    "--dir", "folder", type=click.Path(file_okay=False, path_type=Path), default="fleet", show_default=True,
    help="Where all that the fleet keeps is put.",
)  # fmt: skip
@click.option("--fleet", "name", default="fleet", show_default=True, help="Its name.")
@click.option("--first-port", metavar="N", type=int, default=FIRST_PORT, show_default=True, help="Ports start at N.")
def up(mesh_path: Path, policies: Path, replicas: int, folder: Path, name: str, first_port: int) -> None:
    """
    Start a fleet on this machine, to try it: a NATS cluster that keeps its truth, and as many controls.

    Plain processes: no Docker, no root. It says how a machine joins, and stops on Ctrl-C; what it keeps in --dir is
    there again at the next start. On real machines, type the commands of docs/fleet.md.

    \b
    authz fleet up --mesh mesh.yaml --policies policies/
    authz fleet up --mesh mesh.yaml --policies policies/ --replicas 1 --dir /tmp/fleet
    """
    plan = plan_fleet(folder, name, mesh_path, policies, replicas, first_port)
    raise SystemExit(asyncio.run(_run(plan, Console(highlight=False, emoji=False))))


async def _run(plan: FleetPlan, console: Console) -> int:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of what the client of NATS does with TLS
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    screen = Screen(console, 2 * len(plan.replicas) + 2)
    supervisor = FleetSupervisor(plan, screen.report)
    try:
        with screen:
            if not await unless(stopping, supervisor.start):
                return Exit.FAILED
        console.print(fleet_invitation(plan), soft_wrap=True)
        await stopping.wait()
        return Exit.YES
    finally:
        if console.is_terminal:
            console.print("[dim]stopping …[/dim]")
        await supervisor.stop()
