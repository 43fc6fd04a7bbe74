"""``authz bundle fetch`` and ``allow``, and where ``push`` puts a bundle."""

import logging
import random
import signal
import ssl
import sys
import time
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

import click
import httpx

from authz.cli import terminal
from authz.cli.truth_options import truth_access
from authz.core.errors import FetchError, SettingsError
from authz.identity.secret_files import write_file
from authz.service.loading.revision_trial import make_trial
from authz.sources.published.bundle_source import read_headers
from authz.sources.published.opening import PublishedPolicies, open_follower
from authz.sources.published.policy_address import AddressKind, read_address
from authz.sources.published.policy_cache import PolicyCache
from authz.truth.truth_address import TruthAccess

_PUT_SECONDS = 60.0
EXISTING = click.Path(exists=True, path_type=Path)
PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
CACHE = click.option(
    "--cache", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of the last good ones."
)


@click.command("fetch")
@click.argument("address")
@CACHE
@click.option("--fleet", default="", help="For a bundle: the fleet that it must be for.")
@click.option("--public-key", "keys", multiple=True, type=PEM, help="For a bundle: PEM; may be repeated.")
@click.option("--signers", type=EXISTING, help="For a repository: allowed signers of SSH, or a home of GnuPG.")
@click.option("--mesh", type=PEM, help="Mesh settings to try policies by, instead of those of a bundle.")
@click.option("--headers", type=PEM, help="File of headers for the server, `name: value` lines.")
@click.option("--ca", type=PEM, help="PEM bundle that alone vouches for the server.")
@truth_access
@click.option("--watch", is_flag=True, help="Go on asking, until SIGTERM.")
@click.option("--poll", type=click.FloatRange(1), default=30.0, metavar="SECONDS", help="How often, with --watch.")
def fetch(
    address: str, cache: Path, fleet: str, keys: tuple[Path, ...], signers: Path | None, mesh: Path | None,
    headers: Path | None, ca: Path | None, access: TruthAccess, watch: bool, poll: float,
) -> None:  # fmt: skip
    """
    Fetch published policies as a server does, for commands that take a path: the path is printed.

    What is older than the last one, or refused for anything else, is not taken: exit code 3, and what is kept stays.

    \b
    authz bundle fetch https://bundles.example/shop.tar.gz --cache cache --public-key keys/bundle.pub --fleet shop
    authz bundle fetch git+https://git.example/policies.git#main --cache cache --watch
    authz bundle fetch nats://truth.example/shop --cache cache --public-key keys/bundle.pub --truth-ca bundle.pem
    authz analyze cache/current/policies
    """
    where = read_address(address)
    if where.kind is AddressKind.PATH:
        raise SettingsError(f"`{address}` is a path, which commands take as it is")
    form = "%(asctime)s %(levelname)s %(name)s %(message)s" if watch else "authz: error: %(message)s"
    logging.basicConfig(level=logging.INFO if watch else logging.ERROR, format=form, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    told = PublishedPolicies(cache, fleet, keys, signers, ca, headers, poll, access)
    follower, kept = open_follower(where, told, make_trial(mesh, time.time), clock=time.time, share=random.random)
    try:
        if watch:
            follower.begin()
            terminal.remark(f"revision {follower.status.revision} of {where} is in {kept.policies}")
            follower.follow()
            stopping = Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stopping.set())
            stopping.wait()
            return
        if not follower.ask():
            sys.exit(terminal.Exit.NO)  # the log has said why
    finally:
        follower.stop()
    click.echo(kept.policies)


@click.command("allow")
@CACHE
@click.option("--revision", required=True, help="The number of a bundle, or the whole id of a commit.")
def allow(cache: Path, revision: str) -> None:
    """
    Let one older revision in, once: a server takes it the next time that its source offers it.

    \b
    authz bundle allow --cache /var/lib/authz/policies --revision 41
    """
    if not cache.is_dir():
        raise SettingsError(f"`{cache}`: there is no such directory; it is `policies_cache` of the server")
    PolicyCache(cache).allow(revision)
    click.echo(f"revision {revision} may be taken once")


def put(data: bytes, url: str, headers: Path | None, ca: Path | None) -> str:
    """
    Send a bundle, and say where it went.

    Raises:
        FetchError: the server does not take it.
        SettingsError: the address or a file cannot be used.
        OSError: it cannot be written.
    """
    if "://" not in url:
        write_file(Path(url), data)
        return url
    address = read_address(url)
    if address.kind is AddressKind.FILE:
        write_file(Path(unquote(urlsplit(address.place).path)), data)
        return str(address)
    if address.kind is not AddressKind.HTTP:
        raise SettingsError(f"`{address}` takes no bundle: a path, file:///… or https://… does")
    tls = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    given = {"content-type": "application/gzip", "user-agent": "authz"} | read_headers(headers)
    try:
        answer = httpx.put(address.place, content=data, headers=given, verify=tls, timeout=_PUT_SECONDS)
    except (httpx.HTTPError, OSError) as error:
        raise FetchError(f"{address}: {error}") from error
    if not answer.is_success:
        raise FetchError(f"{address}: status {answer.status_code}, expected 2xx")
    return str(address)
