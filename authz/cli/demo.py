"""``authz demo``: Bookinfo on real Envoys, or its scenarios as a table."""

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from authz.cli.scenario_table import print_results
from authz.cli.terminal import Exit
from authz.demo.bookinfo import DemoSupervisor
from authz.demo.checks.compose import Containers, copy_inputs
from authz.demo.checks.identity import OUTAGE_SECONDS
from authz.demo.checks.runner import Result, run_check
from authz.demo.checks.world import World
from authz.demo.commands import count_steps
from authz.demo.inputs import CHECKOUT, POLICIES, TRAFFIC, Inputs, find_inputs
from authz.demo.keycloak import find_keycloak
from authz.demo.layout import DemoError, Layout
from authz.demo.prepare import plan
from authz.demo.programs import envoy_shows_roots
from authz.demo.screen import invitation
from authz.envoy.options import Authz, Secrets
from authz.local.decision_lines import show_decisions
from authz.local.event_screen import Screen
from authz.local.ready import ask
from authz.local.stopping import unless
from authz.mesh.nouns import Enforce

ISSUERS = ("demo", "keycloak")
SERVERS = ("grpcio", "envoy")
"""The values of ``authz serve --server``; the first is the default."""


@click.command("demo", short_help="Start Bookinfo on real Envoys.")
@click.option("--check", is_flag=True, help="Run the scenarios through the real Envoys, print a table, and stop.")
@click.option(
    "--state", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), default=Path(".authz/demo"),
    help="Where certificates, sockets and logs are kept.",
)  # fmt: skip
@click.option(
    "--policies", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Policies in force; edit them while it runs.  [default: those of the demo]",
)  # fmt: skip
@click.option(
    "--mesh", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The mesh description.  [default: that of the demo]",
)  # fmt: skip
@click.option(
    "--traffic", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="More documents of the mesh description; edit them while it runs.  [default: those of the demo, for its mesh]",
)  # fmt: skip
@click.option("--port-offset", metavar="N", type=int, default=0, help="Add N to every port (policies are copied then).")
@click.option(
    "--secrets", type=click.Choice([s.value for s in Secrets]), default=Secrets.SDS.value, show_default=True,
    help="How proxies get certificates: from the authority over SDS, or as files.",
)  # fmt: skip
@click.option(
    "--authz", type=click.Choice([a.value for a in Authz]), default=Authz.SERVER.value, show_default=True,
    help="Who answers checks: a separate server, or every proxy itself.",
)  # fmt: skip
@click.option(
    "--enforce", type=click.Choice([e.value for e in Enforce]), default=Enforce.CHECK.value, show_default=True,
    help="Who decides: the check, or every Envoy by itself with native filters.",
)  # fmt: skip
@click.option(
    "--issuer", type=click.Choice(ISSUERS), default=ISSUERS[0], show_default=True,
    help="Who signs people in: a small issuer of the demo's, or a real Keycloak.",
)  # fmt: skip
@click.option(
    "--keycloak", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="An unpacked Keycloak, for --issuer keycloak.  [default: that of `make keycloak`]",
)  # fmt: skip
@click.option(
    "--server", type=click.Choice(SERVERS), help=f"What hosts the authorization server.  [default: {SERVERS[0]}]"
)
@click.option("--run", "pattern", metavar="PATTERN", default="", help="With --check: only scenarios that contain this.")
@click.option(
    "--outage", metavar="SECONDS", type=click.FloatRange(1), default=OUTAGE_SECONDS, show_default=True,
    help="With --check: how many seconds the certificate authority is down.",
)  # fmt: skip
@click.option("--compose", is_flag=True, help="With --check: start the containers of docker-compose.yaml instead.")
@click.option("--build/--no-build", default=True, help="With --compose: build the image, or take it as it is.")
@click.option("--keep", is_flag=True, help="With --check: leave the demo running afterwards, until Ctrl-C.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the check's answer."
)
def command(
    check: bool,
    state: Path,
    policies: Path | None,
    mesh: Path | None,
    traffic: Path | None,
    port_offset: int,
    secrets: str,
    authz: str,
    enforce: str,
    issuer: str,
    keycloak: Path | None,
    server: str | None,
    pattern: str,
    outage: float,
    compose: bool,
    build: bool,
    keep: bool,
    form: str,
) -> None:
    """
    Start Istio's Bookinfo with a real Envoy beside each service, and this authorization server behind them.

    Plain processes on this machine: no Docker, no root. It says what to open and try, shows each decision as it is
    made, and stops cleanly on Ctrl-C. Its policies are those of the checkout where there is one; elsewhere they are
    copied to authz-demo/, to be edited there.

    \b
    authz demo                       until Ctrl-C
    authz demo --check               about 170 scenarios, expected and actual; exit 0 or 3
    authz demo --check --run egress  some of them
    authz demo --check --compose     the same, among containers; with --enforce native, too
    authz demo --authz embedded      without a server: every proxy decides by itself
    authz demo --issuer keycloak     people sign in at a real Keycloak
    """
    if not check and (keep or pattern or compose or form != "table" or outage != OUTAGE_SECONDS):
        raise click.UsageError("--keep, --run, --outage, --compose and --output need --check")
    _refuse_mixed(authz, enforce, server, compose=compose)
    _refuse_missing(outage, secrets, issuer, keycloak, compose=compose)
    console = Console(stderr=check, highlight=False, emoji=False)
    if compose:
        containers = _containers(policies, traffic, state, Enforce(enforce), elsewhere=bool(mesh or port_offset))
        among = _check_containers(containers, console, pattern=pattern, build=build, keep=keep, form=form)
        raise SystemExit(asyncio.run(among))
    inputs = _inputs(policies, mesh, traffic, console, check=check)
    layout = plan(
        state,
        inputs.policies,
        inputs.mesh,
        offset=port_offset,
        copy=check,
        secrets=Secrets(secrets),
        authz=Authz(authz),
        server=server or SERVERS[0],
        enforce=Enforce(enforce),
        keycloak=find_keycloak(keycloak, Path()) if issuer == ISSUERS[1] else None,
        traffic=inputs.traffic,
    )
    checking = Checking(pattern, outage) if check else None
    raise SystemExit(asyncio.run(_run(layout, console, checking, keep=keep, form=form)))


def _refuse_mixed(authz: str, enforce: str, server: str | None, *, compose: bool) -> None:
    """Refuse options that make each other pointless."""
    if server is not None and authz == Authz.EMBEDDED.value:
        raise click.UsageError("--server is for a separate server, which --authz embedded does not start")
    if compose and (server is not None or authz == Authz.EMBEDDED.value):
        raise click.UsageError("--compose takes neither --authz nor --server: its containers run what their file says")
    if enforce == Enforce.NATIVE.value and authz == Authz.EMBEDDED.value:
        raise click.UsageError(
            "--enforce native leaves proxies nothing to ask, so it does not go with --authz embedded"
        )


def _refuse_missing(outage: float, secrets: str, issuer: str, keycloak: Path | None, *, compose: bool) -> None:
    """Refuse options about a process that does not run then."""
    if outage != OUTAGE_SECONDS and (compose or secrets != Secrets.SDS.value):
        raise click.UsageError("--outage needs the authority as a process: --secrets sds without --compose")
    if keycloak is not None and issuer != ISSUERS[1]:
        raise click.UsageError("--keycloak needs --issuer keycloak")
    if compose and issuer == ISSUERS[1]:
        raise click.UsageError("--compose takes no --issuer: docker-compose.override.example.yaml has Keycloak")


def _inputs(policies: Path | None, mesh: Path | None, traffic: Path | None, console: Console, *, check: bool) -> Inputs:
    """Take what was named, and for the rest what the demo brings; say what people should know before it starts."""
    if check and not envoy_shows_roots():
        console.print("left out: authz rotation drill, for which Envoy must be 1.40 or newer", soft_wrap=True)
    if policies is not None and mesh is not None:
        return Inputs(policies, mesh, traffic=traffic)
    found = find_inputs(Path(), to_edit=not check)
    if found.note:
        console.print(found.note, soft_wrap=True)
    rules = traffic or (found.traffic if mesh is None else None)  # those of the demo are about its own services
    return Inputs(policies or found.policies, mesh or found.mesh, traffic=rules)


def _containers(
    policies: Path | None, traffic: Path | None, state: Path, enforce: Enforce, *, elsewhere: bool
) -> Containers:
    if elsewhere:
        raise click.UsageError("--compose takes neither --mesh nor --port-offset: addresses are those of its file")
    root = _compose_root()
    copies = copy_inputs(root, policies or root / POLICIES, traffic or root / TRAFFIC, state)
    return Containers(root, copies, enforce)


def _compose_root() -> Path:
    """Find the working directory, else the checkout that holds this package."""
    for directory in (Path(), CHECKOUT):
        if (directory / "docker-compose.yaml").exists():
            return directory
    raise click.UsageError("--compose starts the containers of docker-compose.yaml: run it in a checkout")


@dataclass(frozen=True, slots=True)
class Checking:
    """Which scenarios, and how long the authority is dead in one of them."""

    pattern: str
    outage_seconds: float


async def _run(layout: Layout, console: Console, checking: Checking | None, *, keep: bool, form: str) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    screen = Screen(console, count_steps(layout))
    supervisor = DemoSupervisor(layout, screen.report)
    try:
        with screen:
            if not await unless(stopping, supervisor.start):
                return Exit.FAILED
        if checking is None:
            return await _stay(supervisor, console, stopping)
        results: list[Result] = []
        screen.is_quiet = True
        if not await unless(stopping, lambda: _check(supervisor, checking, results, console)):
            return Exit.FAILED
        print_results(results, form)
        if keep:
            screen.is_quiet = False
            await _stay(supervisor, console, stopping)
        if not results:
            raise DemoError(f"no scenario contains `{checking.pattern}`")
        return Exit.YES if all(result.is_ok for result in results) else Exit.NO
    finally:
        if console.is_terminal:
            console.print("[dim]stopping …[/dim]")
        await supervisor.stop()


async def _check_containers(
    containers: Containers, console: Console, *, pattern: str, build: bool, keep: bool, form: str
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    results: list[Result] = []

    async def work() -> None:
        with console.status("starting containers …"):
            began = time.monotonic()
            await containers.up(build=build)
        told = f"{len(containers.ids)} containers healthy [dim]{time.monotonic() - began:.1f} s[/dim]"
        console.print(f"[green]✓[/green] {told}")
        with console.status("checking …") as status:
            async for result in containers.check(pattern):
                results.append(result)
                status.update(f"checking … {len(results)}: {escape(result.scenario.name)}")

    try:
        if not await unless(stopping, work):
            return Exit.FAILED
        print_results(results, form)
        if keep:
            console.print("the containers stay until Ctrl-C")
            await stopping.wait()
    finally:
        with console.status("stopping …"):
            await containers.down()
    if not results:
        raise DemoError(f"no scenario contains `{pattern}`")
    return Exit.YES if all(result.is_ok for result in results) else Exit.NO


async def _stay(supervisor: DemoSupervisor, console: Console, stopping: asyncio.Event) -> int:
    console.print()
    layout = supervisor.layout
    has_page = not await ask(f"http:{layout.admin_port}/", layout.state)
    console.print(invitation(layout, has_page=has_page), soft_wrap=True)
    console.print("\n[bold]Decisions[/bold]")
    tail = asyncio.create_task(show_decisions(console, layout.audit_log, layout.mesh, layout.policies))
    await stopping.wait()
    tail.cancel()
    return Exit.YES


async def _check(supervisor: DemoSupervisor, checking: Checking, results: list[Result], console: Console) -> None:
    world = World(supervisor.layout, supervisor)
    with console.status("checking …") as status:
        async for result in run_check(world, checking.pattern, checking.outage_seconds):
            results.append(result)
            status.update(f"checking … {len(results)}: {result.scenario.name}")
