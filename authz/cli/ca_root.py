"""``authz ca root``: change the root with overlap, each step guarded by a look at the Envoys."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, KEY_TYPE, PEM_FILE, adopted_authority, load
from authz.cli.envoy_admin import read_proxies
from authz.core.errors import SettingsError
from authz.identity.authority import AuthorityState
from authz.identity.ca import CertificateAuthority
from authz.identity.drift import still_served, trusts
from authz.identity.keys import KeyType
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.rotation import activate, prepare, retire, taint


@click.group()
def root() -> None:
    """
    Change the root with overlap: prepare, activate, taint, retire.

    \b
    authz ca root prepare --ca ca
    authz ca root activate --ca ca --admin run/web.admin.sock
    authz ca root taint --ca ca
    authz ca root retire --ca ca --admin run/web.admin.sock
    """


@root.command("prepare")
@DIRECTORY
@KEY_TYPE
@click.option("--root", "root_file", type=PEM_FILE, help="Bring your own root.")
@click.option("--chain", type=PEM_FILE, help="Your own intermediate first, without the root.")
@click.option("--key", type=PEM_FILE, help="The key of the intermediate, or of the root when there is none.")
def root_prepare(directory: Path, key_type: str, root_file: Path | None, chain: Path | None, key: Path | None) -> None:
    """
    Trust a second root; it signs nothing yet.

    \b
    authz ca root prepare --ca ca
    """
    now = time.time()
    before = load(directory)
    adopted = adopted_authority(root_file, chain, key, now, before.trust_domain)
    changed = _step(lambda: prepare(before, now, key_type=KeyType(key_type), adopted=adopted))
    changed.save(directory)
    terminal.say(f"prepared {changed.authorities[-1].id}; activate it when every proxy trusts it")


ADMIN = click.option(
    "--admin", "admins", multiple=True, help="Admin interface of an Envoy to look at first; may be repeated."
)
UNCHECKED = click.option("--unchecked", is_flag=True, help="Do not look at any Envoy first.")


@root.command("activate")
@DIRECTORY
@click.argument("authority_id", default="")
@ADMIN
@UNCHECKED
def root_activate(directory: Path, authority_id: str, admins: tuple[str, ...], unchecked: bool) -> None:
    """
    Sign with the prepared authority. Exit code 3: an Envoy does not trust it yet.

    \b
    authz ca root activate --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """
    _require_look(admins, unchecked)
    before = load(directory)
    changed = _step(lambda: activate(before, authority_id))
    serial = changed.active.root.serial_number
    blind = [name for name, served in read_proxies(admins).items() if not trusts(served, serial)]
    _refuse_if(blind, f"does not trust {changed.active.id} yet")
    changed.save(directory)
    terminal.say(f"active is {changed.active.id}; {before.active.id} is old")


@root.command("taint")
@DIRECTORY
@click.argument("authority_id", default="")
def root_taint(directory: Path, authority_id: str) -> None:
    """
    Have everything that an old authority signed renewed.

    \b
    authz ca root taint --ca ca
    """
    changed = _step(lambda: taint(load(directory), authority_id))
    changed.save(directory)
    terminal.say("tainted; retire it when no proxy serves its certificates any more")


@root.command("retire")
@DIRECTORY
@click.argument("authority_id", default="")
@ADMIN
@UNCHECKED
def root_retire(directory: Path, authority_id: str, admins: tuple[str, ...], unchecked: bool) -> None:
    """
    Stop trusting an authority. Exit code 3: an Envoy still serves its certificates.

    \b
    authz ca root retire --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """
    _require_look(admins, unchecked)
    changed = _step(lambda: retire(load(directory), authority_id))
    kept = [authority.id for authority in changed.authorities if authority.state is not AuthorityState.PREPARED]
    issued = list(Ledger(directory / LEDGER_FILE).read())
    late = [name for name, served in read_proxies(admins).items() if still_served(served, issued, kept)]
    _refuse_if(late, "still serves its certificates")
    changed.save(directory)
    terminal.say(f"retired; trusted are {', '.join(a.id for a in changed.authorities)}")


def _step(change: Callable[[], CertificateAuthority]) -> CertificateAuthority:
    try:
        return change()
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _require_look(admins: tuple[str, ...], unchecked: bool) -> None:
    if bool(admins) == unchecked:
        raise click.UsageError("give --admin for every Envoy, or --unchecked")


def _refuse_if(names: list[str], what: str) -> None:
    if names:
        for name in names:
            terminal.say(f"{name} {what}")
        sys.exit(terminal.Exit.NO)
