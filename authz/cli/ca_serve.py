"""``authz ca serve``: the authority as a process."""

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, PEM_FILE, load, trust_domain_of
from authz.cli.truth_options import ENTRIES_PUBLIC_KEYS, common_state, truth_options

if TYPE_CHECKING:
    from authz.control.authority.authority_server import AuthorityServer  # grpc is slow to import
    from authz.truth.truth_client import TruthClient


@click.command()
@DIRECTORY
@click.option("--entries", type=PEM_FILE, help="Registration entries: who may have which identity.")
@click.option("--revocations", type=PEM_FILE, help="Serial numbers and SPIFFE IDs that are refused.")
@click.option(
    "--federate",
    multiple=True,
    metavar="DOMAIN=FILE",
    help="Another trust domain's bundle, PEM or a SPIFFE document; may be repeated.",
)
@click.option("--federation", type=PEM_FILE, help="Trust domains whose bundles are fetched from their endpoints.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Secret discovery and the SPIFFE Workload API for local processes.",
)
@click.option("--listen", default="", help="host:port, mutual TLS: secret discovery and renewal for SVID holders.")
@click.option("--enrol", default="", help="host:port, TLS: the first certificate for bearers of a join token.")
@click.option(
    "--bundle-endpoint", default="", help="host:port, HTTPS: our trust bundle for other trust domains, keys of tokens."
)
@click.option(
    "--bundle-certificate", type=PEM_FILE, help="Web certificate of the bundle endpoint (https_web); else our own SVID."
)
@click.option("--bundle-key", type=PEM_FILE, help="Its private key.")
@click.option("--jwt-issuer", default="", help="`iss` of JWT-SVIDs, for verifiers that ask for one.")
@click.option(
    "--dns", multiple=True, default=("localhost",), help="Name in this server's certificate; may be repeated."
)
@ENTRIES_PUBLIC_KEYS
@truth_options
@click.option("--admin", default="", help="host:port on loopback, or unix:PATH: /metrics, /healthz and /readyz.")
def serve(
    directory: Path,
    entries: Path | None,
    revocations: Path | None,
    federate: tuple[str, ...],
    federation: Path | None,
    socket: Path | None,
    listen: str,
    enrol: str,
    bundle_endpoint: str,
    bundle_certificate: Path | None,
    bundle_key: Path | None,
    jwt_issuer: str,
    dns: tuple[str, ...],
    admin: str,
    entries_keys: tuple[Path, ...],
    truth: "TruthClient | None",
) -> None:
    """
    Hand out and renew SVIDs until SIGTERM. Envoys keep what they have while this is down.

    \b
    authz ca serve --ca ca --entries entries.yaml --socket run/sds.sock
    authz ca serve --ca ca --entries entries.yaml --listen 0.0.0.0:7443 --enrol 0.0.0.0:7444
    authz ca serve --ca ca --entries entries.yaml --socket run/sds.sock --federation federation.yaml \\
      --bundle-endpoint 0.0.0.0:8443 --dns ca.example
    authz ca serve --ca ca-b --listen 0.0.0.0:7443 --enrol 0.0.0.0:7444 --dns b.example \\
      --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    from authz.control.authority.authority_files import AuthorityFiles
    from authz.control.authority.authority_server import AuthorityServer, Doors  # grpc is slow to import
    from authz.control.authority.bundle_endpoint import EndpointDoor

    if not (socket or listen or enrol or bundle_endpoint):
        raise click.UsageError("at least one of --socket, --listen, --enrol and --bundle-endpoint is needed")
    if bool(bundle_certificate) != bool(bundle_key) or (bundle_certificate and not bundle_endpoint):
        raise click.UsageError("--bundle-certificate and --bundle-key go together, with --bundle-endpoint")
    pairs = [item.partition("=") for item in federate]
    if not all(file for _, _, file in pairs):
        raise click.UsageError("--federate is DOMAIN=FILE")
    load(directory)  # so that a missing file is reported as everywhere else
    federated = tuple((trust_domain_of(domain), Path(file)) for domain, _, file in pairs)
    files = AuthorityFiles(directory, entries, revocations, federated, federation, truth is not None)
    endpoint = EndpointDoor(bundle_endpoint, bundle_certificate, bundle_key) if bundle_endpoint else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "httpx"):  # a line for every bundle that is fetched is too much
        logging.getLogger(name).setLevel(logging.WARNING)
    doors = Doors(socket, listen, enrol, dns, admin, endpoint=endpoint)
    common = common_state(truth, files, entries_keys)
    asyncio.run(_serve(AuthorityServer(files, doors, jwt_issuer=jwt_issuer, common=common)))


async def _serve(server: "AuthorityServer") -> None:
    from authz.service.ports.handshakes import HANDSHAKES
    from authz.service.ports.log import other_log_level, set_log_level  # with it come the settings
    from authz.service.ports.signals import on_signals

    stopping = asyncio.Event()
    on_signals(stopping.set, {signal.SIGUSR2: lambda: set_log_level(other_log_level("info"))}, terminal.remark)
    if server.doors.listen or server.doors.enrol:
        HANDSHAKES.of_grpc()
    await server.start()
    ports = ", ".join(f"{door} port {port}" for door, port in server.ports.items())
    terminal.remark(f"serving secrets{f' ({ports})' if ports else ''}")
    try:
        await stopping.wait()
    finally:
        await server.stop()
