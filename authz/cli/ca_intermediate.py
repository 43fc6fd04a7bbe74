"""``authz ca intermediate``: the certificate that signs, and other authorities below the same root."""

import shutil
import time
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, KEY_TYPE, PEM_FILE, adopted_authority, load, time_of
from authz.core.errors import SettingsError
from authz.identity.announcement import OTHERS_DIRECTORY
from authz.identity.announcing import another_authority, keep_announced
from authz.identity.ca import STATE_FILE, CertificateAuthority
from authz.identity.jwt_keys import change_jwt_keys
from authz.identity.keys import KeyType
from authz.identity.rotation import renew
from authz.identity.secret_files import write_file


@click.group()
def intermediate() -> None:
    """
    The certificate that signs, below the root.

    \b
    authz ca intermediate renew --ca ca
    authz ca intermediate issue --ca ca --name b --out ca-b
    """


@intermediate.command("renew")
@DIRECTORY
@KEY_TYPE
@click.option(
    "--chain", type=PEM_FILE, help="Your own intermediate first, without the root. By default one is made here."
)
@click.option("--key", type=PEM_FILE, help="The key of your own intermediate.")
def intermediate_renew(directory: Path, key_type: str, chain: Path | None, key: Path | None) -> None:
    """
    Sign with another intermediate of the same root, before the one in use expires. Nobody's trust changes.

    \b
    authz ca intermediate renew --ca ca
    authz ca intermediate renew --ca ca --chain intermediate.pem --key intermediate.key
    """
    if (chain is None) != (key is None):
        raise click.UsageError("your own intermediate needs --chain and --key")
    now = time.time()
    before = load(directory)
    own_root = directory / before.active.id / "root.crt" if chain is not None else None
    adopted = adopted_authority(own_root, chain, key, now, before.trust_domain)
    try:
        changed = renew(before, now, key_type=KeyType(key_type), adopted=adopted)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    changed.save(directory)
    end = min(c.not_valid_after_utc.timestamp() for c in (*changed.active.chain, changed.active.root))
    terminal.say(f"{changed.active.id} signs with another intermediate, until {time_of(end)}")


@intermediate.command("issue")
@DIRECTORY
@KEY_TYPE
@click.option("--name", required=True, help="Of the new authority, among those of this trust domain.")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The new authority's directory."
)
def intermediate_issue(directory: Path, key_type: str, name: str, out: Path) -> None:
    """
    Make another authority below the same root, with an intermediate of its own and without the root's key.

    Whatever one of them signs is accepted wherever the other is, and each renews what the other signed. Run this where
    the root's key is, and bring the new directory to the other machine by a way that keeps its key secret.

    \b
    authz ca intermediate issue --ca ca --name b --out ca-b
    """
    if (out / STATE_FILE).exists():
        raise SettingsError(f"`{out}` already holds an authority")
    ca, now = load(directory), time.time()
    try:
        made = another_authority(ca, name, now, key_type=KeyType(key_type))
        made.save(out)
        _introduce(directory, ca, out, made, now)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    end = min(c.not_valid_after_utc.timestamp() for c in (*made.active.chain, made.active.root))
    terminal.say(f"authority `{name}` below {made.active.id} in {out}, its intermediate until {time_of(end)}")


def _introduce(directory: Path, ca: CertificateAuthority, out: Path, made: CertificateAuthority, now: float) -> None:
    """Tell the new authority of all others, and this one of the new. Raises ValueError, OSError."""
    for other in ca.others:
        file = Path(OTHERS_DIRECTORY) / f"{other.name}.json"
        (out / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(directory / file, out / file)
    both = ((directory, ca, out), (out, made, directory))
    for place, one, to in both:
        keys = change_jwt_keys(place, lambda keys: keys.kept_current(now))
        data = keep_announced(place, one, keys, now)
        (to / OTHERS_DIRECTORY).mkdir(exist_ok=True)
        write_file(to / OTHERS_DIRECTORY / f"{one.name}.json", data)
    for place in (directory, out):
        load(place).save_intermediates(place)
