"""``authz ca root``: change the root with overlap, each step guarded by a look at the Envoys."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, KEY_TYPE, PEM_FILE, adopted_authority, load
from authz.cli.changed_roots import ChangedRoots, OwnRoots
from authz.cli.envoy_admin import read_proxies
from authz.cli.truth_options import truth_options
from authz.core.errors import SettingsError
from authz.identity.announcement import TRUSTED
from authz.identity.authority import AuthorityState
from authz.identity.ca import CertificateAuthority
from authz.identity.drift import still_served, trusts
from authz.identity.keys import KeyType
from authz.identity.rotation import activate, prepare, retire, taint

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient  # nats is slow to import

ADMIN = click.option(
    "--admin", "admins", multiple=True, help="Admin interface of an Envoy to look at first; may be repeated."
)
UNCHECKED = click.option("--unchecked", is_flag=True, help="Do not look at any Envoy first.")
WAIT = click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="With --truth: so many seconds the other authorities may take.",
)


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
@truth_options
@WAIT
def root_prepare(
    directory: Path,
    key_type: str,
    root_file: Path | None,
    chain: Path | None,
    key: Path | None,
    truth: "TruthClient | None",
    seconds: float,
) -> None:
    """
    Trust a second root; it signs nothing yet. With --truth, every authority gets an intermediate below it.

    Exit code 3: an authority did not follow in time; the same command again goes on waiting.

    \b
    authz ca root prepare --ca ca
    authz ca root prepare --ca ca --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    now = time.time()
    with _roots(truth, directory, seconds) as roots:
        before = roots.load()
        adopted = adopted_authority(root_file, chain, key, now, before.trust_domain)
        prepared = [one for one in before.authorities if one.state is AuthorityState.PREPARED]
        if not (prepared and truth is not None and adopted is None):
            changed = _step(
                lambda: roots.publish(lambda ca: prepare(ca, now, key_type=KeyType(key_type), adopted=adopted))
            )
            prepared = list(changed.authorities[-1:])
        made = prepared[0]
        roots.wait(f"cannot sign below {made.id} yet", lambda states: states.get(made.id) == made.state)
        terminal.say(f"prepared {made.id}; activate it when every proxy trusts it")


@root.command("activate")
@DIRECTORY
@click.argument("authority_id", default="")
@ADMIN
@UNCHECKED
@truth_options
@WAIT
def root_activate(
    directory: Path,
    authority_id: str,
    admins: tuple[str, ...],
    unchecked: bool,
    truth: "TruthClient | None",
    seconds: float,
) -> None:
    """
    Sign with the prepared authority. Exit code 3: an Envoy does not trust it yet, or an authority cannot sign with it.

    \b
    authz ca root activate --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """
    _require_look(admins, unchecked, truth)
    with _roots(truth, directory, seconds) as roots:
        before = roots.load()
        active = _step(lambda: activate(before, authority_id)).active
        roots.wait(f"cannot sign below {active.id} yet", lambda states: states.get(active.id, TRUSTED) != TRUSTED)
        if not admins and not unchecked:
            roots.wait_for_holders(f"does not trust {active.id} yet", lambda report: report.lacking.get(active.id))
        proxies = read_proxies(admins).items()
        blind = [name for name, served in proxies if not trusts(served, active.root.serial_number)]
        _refuse_if(blind, f"does not trust {active.id} yet")
        changed = _step(lambda: roots.publish(lambda ca: activate(ca, authority_id)))
        roots.wait(f"does not sign below {active.id} yet", lambda states: states.get(active.id) == active.state)
        terminal.say(f"active is {changed.active.id}; {before.active.id} is old")


@root.command("taint")
@DIRECTORY
@click.argument("authority_id", default="")
@truth_options
@WAIT
def root_taint(directory: Path, authority_id: str, truth: "TruthClient | None", seconds: float) -> None:
    """
    Have everything that an old authority signed renewed.

    \b
    authz ca root taint --ca ca
    """
    with _roots(truth, directory, seconds) as roots:
        roots.load()
        changed = _step(lambda: roots.publish(lambda ca: taint(ca, authority_id)))
        tainted = {one.id for one in changed.authorities if one.state is AuthorityState.TAINTED}
        roots.wait(
            "does not renew yet what the old one signed",
            lambda states: all(states.get(one) == AuthorityState.TAINTED for one in tainted),
        )
        terminal.say("tainted; retire it when no proxy serves its certificates any more")


@root.command("retire")
@DIRECTORY
@click.argument("authority_id", default="")
@ADMIN
@UNCHECKED
@truth_options
@WAIT
def root_retire(
    directory: Path,
    authority_id: str,
    admins: tuple[str, ...],
    unchecked: bool,
    truth: "TruthClient | None",
    seconds: float,
) -> None:
    """
    Stop trusting an authority. Exit code 3: an Envoy still serves its certificates, or an authority still trusts it.

    \b
    authz ca root retire --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """
    _require_look(admins, unchecked, truth)
    with _roots(truth, directory, seconds) as roots:
        before = roots.load()
        changed = _step(lambda: retire(before, authority_id))
        kept = [authority.id for authority in changed.authorities if authority.state is not AuthorityState.PREPARED]
        gone = {one.id for one in before.authorities} - {one.id for one in changed.authorities}
        active = changed.active.id
        roots.wait(f"does not sign below {active} yet", lambda states: states.get(active) == AuthorityState.ACTIVE)
        if not admins and not unchecked:
            roots.wait_for_holders(
                f"still has a certificate below {', '.join(gone)}",
                lambda report: tuple(name for one in gone for name in report.signed.get(one, ())),
            )
        issued = list(roots.issued())
        late = [name for name, served in read_proxies(admins).items() if still_served(served, issued, kept)]
        _refuse_if(late, "still serves its certificates")
        _step(lambda: roots.publish(lambda ca: retire(ca, authority_id)))
        roots.wait(f"still trusts {', '.join(gone)}", lambda states: not gone & states.keys())
        terminal.say(f"retired; trusted are {', '.join(a.id for a in changed.authorities)}")


@contextmanager
def _roots(truth: "TruthClient | None", directory: Path, seconds: float) -> Iterator[ChangedRoots]:
    load(directory)  # so that a missing file is reported as everywhere else
    if truth is None:
        yield OwnRoots(directory)
        return
    from authz.cli.common_roots import CommonRoots  # nats is slow to import

    with truth:
        yield CommonRoots(truth, directory, seconds)


def _step(change: Callable[[], CertificateAuthority]) -> CertificateAuthority:
    try:
        return change()
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _require_look(admins: tuple[str, ...], unchecked: bool, truth: "TruthClient | None") -> None:
    if (admins and unchecked) or not (admins or unchecked or truth):
        raise click.UsageError("give --admin for every Envoy, or --unchecked")


def _refuse_if(names: list[str], what: str) -> None:
    if names:
        for name in names:
            terminal.say(f"{name} {what}")
        sys.exit(terminal.Exit.NO)
