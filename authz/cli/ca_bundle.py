"""``authz ca bundle`` and ``authz ca federation``: our trust bundle for others, and theirs for us."""

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, PEM_FILE, load, own_bundle, trust_domain_of
from authz.core.errors import LoadError
from authz.identity.federation import Relationship, read_relationships

FILE = click.argument("file", type=PEM_FILE)


@click.group()
def bundle() -> None:
    """
    Our trust bundle, as others want it.

    \b
    authz ca bundle show --ca ca --format spiffe > cluster.local.json
    """


@bundle.command("show")
@DIRECTORY
@click.option(
    "--format",
    "form",
    type=click.Choice(["pem", "spiffe", "jwks"]),
    default="pem",
    help="PEM, the SPIFFE bundle document, or the token keys alone.",
)
def bundle_show(directory: Path, form: str) -> None:
    """
    Print the trust bundle: roots as PEM, roots and token keys as SPIFFE's JWK Set, or the token keys alone.

    \b
    authz ca bundle show --ca ca > bundle.pem
    authz ca bundle show --ca ca --format spiffe
    authz ca bundle show --ca ca --format jwks
    """
    authority = load(directory)
    if form == "pem":
        click.echo(authority.bundle_pem.decode("ascii"), nl=False)
        return
    from authz.control.authority.authority_files import AuthorityFiles
    from authz.control.authority.bundle_endpoint import REFRESH_HINT_SECONDS, sequence
    from authz.identity.bundle_document import write_bundle_document, write_key_set

    if form == "jwks":
        click.echo(write_key_set(own_bundle(directory).jwt_keys, "sig").decode())
        return
    found = write_bundle_document(own_bundle(directory), sequence(AuthorityFiles(directory)), REFRESH_HINT_SECONDS)
    click.echo(found.decode(), nl=False)


@click.group()
def federation() -> None:
    """
    Bundles of other trust domains, from their bundle endpoints.

    \b
    authz ca federation validate federation.yaml
    authz ca federation refresh federation.yaml --out bundles
    """


@federation.command("validate")
@FILE
@click.option("--trust-domain", default="cluster.local", help="Our own trust domain.")
def federation_validate(file: Path, trust_domain: str) -> None:
    """
    Check a file of relationships, every problem at once. Exit code: 0 good, 3 not.

    \b
    authz ca federation validate federation.yaml --trust-domain cluster.local
    """
    found, problems = read_relationships(str(file), file.read_bytes(), trust_domain_of(trust_domain))
    terminal.print_problems(problems)
    if problems:
        sys.exit(terminal.Exit.NO)
    rows = [(str(r.trust_domain), r.profile.value, r.url, str(r.endpoint_id or "")) for r in found]
    terminal.print_table(("trust domain", "profile", "endpoint", "endpoint's SPIFFE ID"), rows)


@federation.command("refresh")
@FILE
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of the bundles."
)
@click.option("--watch", is_flag=True, help="Keep fetching, at the pace that each bundle asks for, until SIGTERM.")
def federation_refresh(file: Path, out: Path, watch: bool) -> None:
    """
    Fetch every bundle to OUT/<trust domain>.json. Exit code 3: one could not be fetched.

    For `peer_trust_bundles` of an authorization server that has no authority beside it.

    \b
    authz ca federation refresh federation.yaml --out bundles
    authz ca federation refresh federation.yaml --out bundles --watch
    """
    found, problems = read_relationships(str(file), file.read_bytes(), None)
    if problems:
        raise LoadError(problems)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    failed = asyncio.run(_refresh(found, out, watch))
    if failed:
        sys.exit(terminal.Exit.NO)


async def _refresh(relationships: tuple[Relationship, ...], out: Path, watch: bool) -> bool:
    """Whether a bundle could not be fetched."""
    from authz.control.federation.bundle_follower import BundleFollower
    from authz.service.ports.signals import on_signals

    follower = BundleFollower(relationships, out, time.time)
    if not watch:
        for relationship in relationships:
            await follower.refresh(relationship)
        return bool(follower.failures)
    stopping = asyncio.Event()
    on_signals(stopping.set, {signal.SIGUSR2: lambda: None}, terminal.remark)
    following = asyncio.create_task(follower.run())
    await stopping.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return False
