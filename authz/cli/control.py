"""``authz control``: one process to which the Envoys of a fleet connect, and what it knows of them."""

import asyncio
import logging
import re
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

import click

from authz.canary.canary_source import CanarySource
from authz.cli import control_status, terminal
from authz.cli.ca_files import DIRECTORY, PEM_FILE, load
from authz.cli.canary_options import canary_options
from authz.cli.control_policies import PolicyPlace, opened, policy_place
from authz.cli.control_records import RecordPlace, record_options
from authz.cli.mesh_files import ca_bundles
from authz.cli.mesh_options import JWKS_CA_BUNDLE, VALIDATE, WHO_ANSWERS, WORKERS, who_decides
from authz.cli.truth_options import ENTRIES_PUBLIC_KEYS, common_state, key_sharing, truth_options
from authz.envoy.options import Authz, RenderOptions
from authz.mesh.nouns import Enforce
from authz.truth.fleet_report import check_replica_name

if TYPE_CHECKING:
    from authz.control.fleet.control_plane import ControlPlane
    from authz.control.fleet.fleet_reporter import Replica
    from authz.truth.truth_client import TruthClient


@click.group("control", invoke_without_command=True, short_help="Serve a fleet of Envoys their configuration.")
@policy_place
@click.option(
    "--mesh",
    "mesh_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The description of the mesh: a YAML file; by default that of the bundle of --policies.",
)
@click.option(
    "--traffic",
    type=click.Path(exists=True, path_type=Path),
    help="More of the description: a YAML file, or a directory of them.",
)
@canary_options
@record_options
@DIRECTORY
@click.option("--entries", type=PEM_FILE, help="Registration entries: who may have which identity.")
@click.option("--revocations", type=PEM_FILE, help="Serial numbers and SPIFFE IDs that are refused.")
@ENTRIES_PUBLIC_KEYS
@truth_options
@click.option("--listen", default="", help="host:port, mutual TLS: discovery, secrets and renewal for SVID holders.")
@click.option("--enrol", default="", help="host:port, TLS: the first certificate for bearers of a join token.")
@click.option(
    "--dns", multiple=True, default=("localhost",), help="Name in this server's certificate; may be repeated."
)
@click.option("--admin", default="", help="host:port on loopback, or unix:PATH: /fleet, /metrics, /healthz, /readyz.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    default="control-state",
    show_default=True,
    help="Directory for what outlives this process: what was last in force, who was connected, issuers of logins.",
)
@who_decides(Enforce.NATIVE)
@WHO_ANSWERS
@WORKERS
@VALIDATE
@JWKS_CA_BUNDLE
@click.option(
    "--gone-after",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long a proxy that was connected is away until others send it nothing; 0: for ever.",
)
@click.option(
    "--replica",
    default="",
    metavar="NAME",
    help="With --truth: the name by which the fleet knows this process; the machine's and the port without it.",
)
@click.option("--otlp", default="", help="OpenTelemetry collector of the proxies: host:port or the path of a socket.")
@click.pass_context
def command(
    ctx: click.Context,
    place: PolicyPlace,
    mesh_path: Path | None,
    traffic: Path | None,
    directory: Path,
    entries: Path | None,
    revocations: Path | None,
    entries_keys: tuple[Path, ...],
    listen: str,
    enrol: str,
    dns: tuple[str, ...],
    admin: str,
    keep: Path,
    enforce: str,
    authz: str,
    workers: int,
    validate: str,
    jwks_ca_bundle: tuple[str, ...],
    gone_after: float,
    otlp: str,
    truth: "TruthClient | None",
    replica: str,
    canary: CanarySource | None,
    records: RecordPlace,
) -> None:
    """
    Serve every Envoy of a mesh its configuration, policies and trust until SIGTERM, and say what each has taken.

    A proxy is known by its SVID and gets exactly what is its own. A change that cannot be used keeps what is in force.
    Envoys keep what they have while this is down. The authority is in it: do not run `authz ca serve` beside it.

    \b
    authz control --policies policies/ --mesh mesh.yaml --listen 0.0.0.0:7443 --enrol 0.0.0.0:7444 \\
        --dns control.example --admin 127.0.0.1:15014
    authz control --policies https://bundles.example/shop.tar.gz --policies-fleet shop \\
        --policies-public-keys bundle.pub --listen 0.0.0.0:7443
    authz control status --admin 127.0.0.1:15014

    SIGUSR1 opens files of --audit again, SIGUSR2 switches the log level to debug and back.
    """
    if ctx.invoked_subcommand is not None:
        return
    if canary is not None and not canary.selection and not records.are_taken:
        help_text = "who gets it; with --audit it may decide in shadow alone"
        raise click.UsageError(f"--candidate needs --canary or --canary-workload: {help_text}")
    if not place.address or not listen or (mesh_path is None and not place.may_have_mesh):
        raise click.UsageError("--policies, --mesh and --listen are needed")
    load(directory)  # so that a missing file is reported as everywhere else
    from authz.control.authority.authority_files import AuthorityFiles
    from authz.control.authority.authority_server import AuthorityServer, Doors  # grpc is slow to import
    from authz.control.envoy_validation import Validator
    from authz.control.fleet.control_plane import ControlPlane, MeshSources

    _log()
    options = RenderOptions(authz=Authz(authz), enforce=Enforce(enforce), workers=workers, otlp=otlp)
    files = AuthorityFiles(directory, entries, revocations, is_common=truth is not None)
    doors = Doors(None, listen, enrol, dns, admin)
    server = AuthorityServer(files, doors, common=common_state(truth, files, entries_keys))
    shown, own = Validator.of(validate), _replica(truth, replica, listen)
    access = truth.access if truth is not None else None
    make = partial(ControlPlane, clock=time, say=terminal.remark, validator=shown, gone_after=gone_after, replica=own)
    make = partial(make, records=records.receiver(keep, access, time))
    kept = place.kept_below(keep, access)
    with opened(kept, mesh_path, traffic) as found:
        chosen = canary or found.canary(own.name)
        chosen = replace(chosen, is_shadowed=records.are_taken) if chosen is not None else None
        sources = MeshSources(*found.paths, keep, ca_bundles(jwks_ca_bundle), chosen, key_sharing(truth))
        asyncio.run(_serve(make(sources, options, server, source=found.status), server.ports, truth))


command.add_command(control_status.status)


def _replica(truth: "TruthClient | None", name: str, listen: str) -> "Replica":
    """Where this process reports what it and its proxies run; nobody waits for the connection, which begins now."""
    from authz.control.fleet.fleet_reporter import Replica, ReportStore

    machine = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:50].strip("-")
    name = check_replica_name(name or f"{machine or 'control'}-{listen.rpartition(':')[2]}")
    if truth is None:
        return Replica(name)
    from authz.truth.report_store import ReportReader, ReportWriter

    truth.begin()
    return Replica(name, ReportStore(ReportWriter(truth, name), ReportReader(truth, but=name)))


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "httpx", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _serve(plane: "ControlPlane", ports: dict[str, int], truth: "TruthClient | None") -> None:
    from authz.service.loading.garbage import DISCOVERY, settle
    from authz.service.ports.handshakes import HANDSHAKES
    from authz.service.ports.log import other_log_level, set_log_level  # with it come the settings
    from authz.service.ports.signals import on_signals

    stopping = asyncio.Event()
    others = {signal.SIGUSR1: plane.reopen, signal.SIGUSR2: lambda: set_log_level(other_log_level("info"))}

    def stop() -> None:
        if stopping.is_set():  # by a signal before, after which the farewell may take a while
            plane.reporter.hurry()
        stopping.set()

    on_signals(stop, others, terminal.remark)
    HANDSHAKES.of_grpc()
    try:
        await plane.start()
        settle(DISCOVERY)  # a walk over a large mesh takes seconds, in which no proxy is answered
        shown = ", ".join(f"{door} port {port}" for door, port in ports.items())
        terminal.remark(f"serving discovery ({shown})")
        tasks = {asyncio.create_task(plane.run()), asyncio.create_task(stopping.wait())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
    finally:
        await plane.stop()
        if truth is not None:
            await asyncio.to_thread(truth.stop)
