"""``authz ca token`` and ``authz ca entry``: how workloads prove who they are, and who may have which identity."""

import os
import sys
import time
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_files import DIRECTORY, PEM_FILE, load, time_of, trust_domain_of
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.join_tokens import TOKEN_BYTES, TOKEN_TTL_SECONDS, TOKENS_DIRECTORY, make_token, store_token
from authz.identity.registration import read_entries


@click.group()
def token() -> None:
    """
    Join tokens: the first certificate of a workload that has no other proof.

    \b
    authz ca token create spiffe://cluster.local/ns/shop/sa/web --ca ca
    """


@token.command("create")
@click.argument("spiffe_id")
@DIRECTORY
@click.option("--ttl", type=click.FloatRange(1), default=TOKEN_TTL_SECONDS, help="Seconds.")
def token_create(spiffe_id: str, directory: Path, ttl: float) -> None:
    """
    Make a token for SPIFFE_ID, good once. It is shown now and never again.

    \b
    authz ca token create spiffe://cluster.local/ns/shop/sa/web --ca ca --ttl 600
    """
    authority = load(directory)
    try:
        wanted = SpiffeId.parse(spiffe_id)
        if wanted.trust_domain != authority.trust_domain:
            raise ValueError(f"`{wanted}` is not in the trust domain `{authority.trust_domain}`")
        text, kept = make_token(os.urandom(TOKEN_BYTES), wanted, time.time(), ttl)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    store_token(directory / TOKENS_DIRECTORY, kept)
    click.echo(text)
    terminal.remark(f"for {wanted}, until {time_of(kept.expires_at)}")


@click.group()
def entry() -> None:
    """
    Registration entries: who may have which identity.

    \b
    authz ca entry validate entries.yaml
    authz ca entry show entries.yaml
    """


@entry.command("validate")
@click.argument("file", type=PEM_FILE)
@click.option("--trust-domain", default="cluster.local", help="The trust domain of its identities.")
def entry_validate(file: Path, trust_domain: str) -> None:
    """
    Check a file of entries, every problem at once. Exit code: 0 good, 3 not.

    \b
    authz ca entry validate entries.yaml --trust-domain cluster.local
    """
    entries, problems = read_entries(str(file), file.read_bytes(), trust_domain_of(trust_domain))
    terminal.print_problems(problems)
    if problems:
        sys.exit(terminal.Exit.NO)
    terminal.say(terminal.count(len(entries), "entry", "entries"))


@entry.command("show")
@click.argument("file", type=PEM_FILE)
@click.option("--trust-domain", default="cluster.local", help="The trust domain of its identities.")
def entry_show(file: Path, trust_domain: str) -> None:
    """
    Show who may have what.

    \b
    authz ca entry show entries.yaml
    """
    entries, problems = read_entries(str(file), file.read_bytes(), trust_domain_of(trust_domain))
    if problems:
        raise LoadError(problems)
    rows = [
        (
            str(e.grant.spiffe_id),
            ", ".join(sorted(e.selectors)) or f"holder of {e.parent_id}",
            f"{e.grant.ttl_seconds:.0f} s",
            ", ".join(e.grant.dns),
        )
        for e in entries
    ]
    terminal.print_table(("identity", "for", "life", "DNS names"), rows)
