"""``authz ca jwt``: JWT-SVIDs and the keys that sign them, from the command line."""

import sys
import time
from pathlib import Path
from typing import TextIO

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, load, time_of, trusted_bundles
from authz.core.attributes import Json
from authz.core.errors import SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.jwt_keys import ROTATION_SECONDS, JwtSigningKey, change_jwt_keys, read_jwt_keys
from authz.identity.jwt_svid import sign_jwt_svid, validate_jwt_svid
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import JWT_SVID, Issuance
from authz.identity.registration import JWT_SVID_TTL_SECONDS, MAX_JWT_SVID_TTL_SECONDS
from authz.identity.svid_validation import Rejection


@click.group()
def jwt() -> None:
    """
    JWT-SVIDs: mint, validate, rotate their keys.

    \b
    authz ca jwt mint spiffe://cluster.local/ns/shop/sa/web --audience reports --ca ca
    authz ca jwt show --ca ca
    """


@jwt.command()
@click.argument("spiffe_id")
@DIRECTORY
@click.option("--audience", multiple=True, required=True, help="Who is to accept the token; may be repeated.")
@click.option(
    "--ttl", type=click.FloatRange(1, MAX_JWT_SVID_TTL_SECONDS), default=JWT_SVID_TTL_SECONDS, help="Seconds."
)
@click.option("--jwt-issuer", default="", help="`iss`, for verifiers that ask for one.")
def mint(spiffe_id: str, directory: Path, audience: tuple[str, ...], ttl: float, jwt_issuer: str) -> None:
    """
    Sign a JWT-SVID for SPIFFE_ID and print it.

    \b
    authz ca jwt mint spiffe://cluster.local/ns/shop/sa/web --audience reports
    """
    authority, now = load(directory), time.time()
    try:
        wanted = SpiffeId.parse(spiffe_id)
        if wanted.trust_domain != authority.trust_domain:
            raise ValueError(f"`{wanted}` is not in the trust domain `{authority.trust_domain}`")
        key = change_jwt_keys(directory, lambda keys: keys.kept_current(now)).active(now)
        if key is None:
            raise ValueError("no key signs now: the next one starts later")
        issued = sign_jwt_svid(key, wanted, audience, now, ttl, jwt_issuer)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    record = Issuance(
        now,
        "command:mint",
        str(wanted),
        True,
        not_before=now,
        not_after=issued.expires_at,
        authority_id=issued.kid,
        kind=JWT_SVID,
        audience=audience,
    )
    Ledger(directory / LEDGER_FILE).record(record)
    click.echo(issued.token)
    terminal.remark(f"for {wanted}, until {time_of(issued.expires_at)}")


@jwt.command()
@click.argument("token_file", type=click.File("r"))
@DIRECTORY
@click.option("--audience", required=True, help="The audience that the token must have.")
def validate(token_file: TextIO, directory: Path, audience: str) -> None:
    """
    Validate a JWT-SVID from a file, or - for standard input. Exit code: 0 valid, 3 not, and why.

    Tokens of trust domains whose bundles were fetched are judged by those.

    \b
    authz ca jwt mint spiffe://cluster.local/ns/shop/sa/web --audience reports > token
    authz ca jwt validate token --audience reports
    """
    load(directory)
    answer = validate_jwt_svid(token_file.read().strip(), audience, trusted_bundles(directory), time.time())
    if isinstance(answer, Rejection):
        terminal.say(answer.reason)
        sys.exit(terminal.Exit.NO)
    terminal.say(f"{answer.spiffe_id}, valid until {time_of(answer.expires_at)}")


@jwt.command()
@DIRECTORY
@terminal.answer_form("table", "json", name="form")
def show(directory: Path, form: str) -> None:
    """
    Show the keys: which one signs, and how long.

    \b
    authz ca jwt show --ca ca
    """
    load(directory)
    now = time.time()
    rows = [_row(key, now) for key in _keys(directory)]
    if form == "json":
        names = ("kid", "state", "signs_from", "signs_until", "published_until")
        found: list[Json] = [dict(zip(names, row, strict=True)) for row in rows]
        terminal.print_json({"keys": found})
        return
    terminal.print_table(("key", "state", "signs from", "signs until", "published until"), rows)


@jwt.command()
@DIRECTORY
@click.option("--after", type=click.FloatRange(0), default=ROTATION_SECONDS, help="Seconds until the new key signs.")
@click.option("--revoke", is_flag=True, help="The new key signs at once, and no other key is published any more.")
def rotate(directory: Path, after: float, revoke: bool) -> None:
    """
    Make another key. Verifiers see it before it signs; with --revoke, tokens of the old ones are refused.

    \b
    authz ca jwt rotate --ca ca
    authz ca jwt rotate --ca ca --revoke      # a key was stolen
    """
    load(directory)
    now = time.time()
    try:
        keys = change_jwt_keys(directory, lambda before: before.revoked(now) if revoke else before.rotated(now, after))
    except ValueError as error:
        raise SettingsError(str(error)) from error
    made = keys.keys[-1]
    terminal.say(f"{made.kid} signs from {time_of(made.signs_from)}; {terminal.count(len(keys.keys), 'key')} published")


def _keys(directory: Path) -> tuple[JwtSigningKey, ...]:
    try:
        return read_jwt_keys(directory).keys
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _row(key: JwtSigningKey, now: float) -> tuple[str, str, str, str, str]:
    state = "prepared" if now < key.signs_from else "active" if now < key.signs_until else "old"
    return (key.kid, state, time_of(key.signs_from), time_of(key.signs_until), time_of(key.published_until))
