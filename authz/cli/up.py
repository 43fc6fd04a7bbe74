"""``authz up``: a mesh of one's own as plain processes of this machine."""

import asyncio
import signal
from pathlib import Path

import click
from rich.console import Console

from authz.cli.terminal import Exit
from authz.local.decision_lines import show_decisions
from authz.local.event_screen import Screen
from authz.local.stopping import unless
from authz.mesh.nouns import Enforce
from authz.starter.mesh_plan import read_pair
from authz.up.invitation import invitation
from authz.up.own_commands import count_own_steps
from authz.up.own_mesh import AUDIT_LOG, OwnMesh, read_own_mesh
from authz.up.own_supervisor import OwnSupervisor


@click.command("up", short_help="Start that mesh on this machine, to try it.")
@click.argument("folder", metavar="[DIR]", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option(
    "--run", "runs", metavar="NAME=COMMAND", multiple=True,
    help="How a service is started, in place of what up.yaml says; may be repeated.",
)  # fmt: skip
@click.option(
    "--enforce", type=click.Choice([e.value for e in Enforce]), default=Enforce.CHECK.value,
    help="Who decides: the server, which is asked about every request, or every Envoy by itself with native filters.",
)  # fmt: skip
def command(folder: Path, runs: tuple[str, ...], enforce: str) -> None:
    """
    Start an authority, the authorization server and an Envoy beside each service of the mesh in DIR, to try it.

    Plain processes on this machine: no Docker, no root. It says what to open and try, follows edits of policies and
    description, shows each decision as it is made, and stops cleanly on Ctrl-C.

    \b
    authz init shop --service web:8080 --service api:9000 --call web:api --ingress web
    authz up shop --run api='python3 -m http.server 9000'
    """
    try:
        commands = dict(read_pair(text, "=", "NAME=COMMAND, for example api='python3 api.py'") for text in runs)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    own = read_own_mesh(folder, commands, Enforce(enforce))
    raise SystemExit(asyncio.run(_run(own, Console(highlight=False, emoji=False))))


async def _run(own: OwnMesh, console: Console) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    screen = Screen(console, count_own_steps(own))
    supervisor = OwnSupervisor(own, screen.report)
    try:
        with screen:
            if not await unless(stopping, supervisor.start):
                return Exit.FAILED
        console.print(invitation(own), soft_wrap=True)
        console.print("\n[bold]Decisions[/bold]")
        tail = asyncio.create_task(show_decisions(console, own.state / AUDIT_LOG, own.mesh, own.policies))
        await stopping.wait()
        tail.cancel()
        return Exit.YES
    finally:
        if console.is_terminal:
            console.print("[dim]stopping …[/dim]")
        await supervisor.stop()
