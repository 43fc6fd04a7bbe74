"""``authz ca authority``: which authorities sign below one root, and one that will not come back."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, load
from authz.cli.truth_options import truth_options
from authz.core.attributes import Json
from authz.core.errors import SettingsError
from authz.identity.announcement import Announcement, check_name, read_announcement

if TYPE_CHECKING:
    from authz.control.authority.known_authorities import KnownAuthority
    from authz.identity.bundle import TrustBundle
    from authz.truth.truth_client import TruthClient

LATELY_SECONDS = 300.0
"""Whoever was heard of within this time is not forgotten without --force."""
NOT_BELIEVED = "not believed"


@click.group("authority")
def authority() -> None:
    """
    The authorities that sign below one root, as the truth of the fleet knows them.

    \b
    authz ca authority list --ca ca --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    authz ca authority forget b --ca ca --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """


@authority.command("list")
@DIRECTORY
@terminal.answer_form("table", "json")
@truth_options
def authority_list(directory: Path, output: str, truth: "TruthClient | None") -> None:
    """
    Show every authority, when it was heard of last, and the state in which it has each root.

    \b
    authz ca authority list --ca ca --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    from authz.control.authority.known_authorities import known_authorities  # nats is slow to import
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with _needed(truth) as client:
        bundle = load(directory).trust_bundle
        found = known_authorities(TruthBucket(client, SECURITY))
    if output == "json":
        rows: list[Json] = [_json(one, bundle) for one in found]
        terminal.print_json({"authorities": rows})
        return
    terminal.print_table(
        ("AUTHORITY", "HEARD", "ROOTS"),
        [(one.name, f"{one.silent_seconds:.0f}s ago", _states(one, bundle)) for one in found],
    )


@authority.command("forget")
@click.argument("name")
@DIRECTORY
@click.option("--force", is_flag=True, help="Even if it was heard of in the last five minutes.")
@truth_options
def authority_forget(name: str, directory: Path, force: bool, truth: "TruthClient | None") -> None:
    """
    Forget an authority that will not come back, so that no change of the root waits for it. Exit 3: it is not there.

    What it signed stays good, and is judged as before, until its root is retired. It is no revocation: if its keys were
    stolen, change the root. One that lives announces itself again.

    \b
    authz ca authority forget b --ca ca --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    from authz.control.authority.known_authorities import forget_authority, known_authorities
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with _needed(truth) as client:
        _refuse_name(name, directory)
        bucket = TruthBucket(client, SECURITY)
        found = {one.name: one for one in known_authorities(bucket)}.get(name)
        if found is not None and found.silent_seconds < LATELY_SECONDS and not force:
            told = f"`{name}` was heard of {found.silent_seconds:.0f} seconds ago"
            raise SettingsError(f"{told}: stop it, or use --force")
        forget_authority(bucket, name)
    terminal.say(f"{name} is forgotten" if found is not None else f"there is no authority `{name}`")
    sys.exit(terminal.Exit.YES if found is not None else terminal.Exit.NO)


def _refuse_name(name: str, directory: Path) -> None:
    """Raises SettingsError for what is no name, and for that of the authority that is here."""
    try:
        check_name(name)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if name == load(directory).name:
        raise SettingsError(f"`{name}` is the authority in `{directory}`")


def _needed(truth: "TruthClient | None") -> "TruthClient":
    if truth is None:
        raise click.UsageError("--truth is needed: without it each authority knows the files in its `others/`")
    return truth


def _announced(one: "KnownAuthority", bundle: "TrustBundle") -> Announcement | None:
    try:
        return read_announcement(one.announced, bundle)
    except ValueError:
        return None


def _states(one: "KnownAuthority", bundle: "TrustBundle") -> str:
    announced = _announced(one, bundle)
    if announced is None:
        return NOT_BELIEVED
    return ", ".join(f"{root} {state}" for root, state in announced.states.items())


def _json(one: "KnownAuthority", bundle: "TrustBundle") -> Json:
    announced = _announced(one, bundle)
    return {
        "authority": one.name,
        "silent_seconds": round(one.silent_seconds, 1),
        "is_believed": announced is not None,
        "roots": dict[str, Json](announced.states) if announced is not None else {},
    }
