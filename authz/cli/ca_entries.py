"""``authz ca token`` and ``authz ca entry``: how workloads prove who they are, and who may have which identity."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.ca_common import push_rules, show_rules, store_common_token
from authz.cli.ca_files import DIRECTORY, PEM_FILE, load, time_of, trust_domain_of
from authz.cli.truth_options import truth_options
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.join_tokens import TOKEN_BYTES, TOKEN_TTL_SECONDS, TOKENS_DIRECTORY, TokenDirectory, make_token
from authz.identity.registration import read_entries

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient  # nats is slow to import


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
@truth_options
def token_create(spiffe_id: str, directory: Path, ttl: float, truth: "TruthClient | None") -> None:
    """
    Make a token for SPIFFE_ID, good once. It is shown now and never again. With --truth any authority takes it.

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
    if truth is None:
        TokenDirectory(directory / TOKENS_DIRECTORY).store(kept)
    else:
        store_common_token(truth, kept)
    click.echo(text)
    terminal.remark(f"for {wanted}, until {time_of(kept.expires_at)}")


@click.group()
def revocation() -> None:
    """
    Revocations that several authorities have in common.

    \b
    authz ca revocation push revoked.txt --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    authz ca revocation show --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """


IF_REVISION = click.option(
    "--if-revision", type=click.IntRange(0), help="Only if this is the revision in force; 0: if there is none."
)


def _push(truth: "TruthClient | None", key: str, file: Path, trust_domain: str, if_revision: int | None) -> None:
    if truth is None:
        raise click.UsageError("--truth is needed: a file that only one authority has is given to `authz ca serve`")
    revision = push_rules(truth, key, file, trust_domain_of(trust_domain), if_revision)
    terminal.say(f"{key}: revision {revision}")


def _show(truth: "TruthClient | None", key: str) -> None:
    if truth is None:
        raise click.UsageError("--truth is needed")
    data, revision = show_rules(truth, key)
    terminal.remark(f"{key}: revision {revision}")
    click.echo(data.decode(errors="replace"), nl=False)


@revocation.command("push")
@click.argument("file", type=PEM_FILE)
@IF_REVISION
@truth_options
def revocation_push(file: Path, if_revision: int | None, truth: "TruthClient | None") -> None:
    """
    Replace the serial numbers and SPIFFE IDs that every authority refuses. Exit code: 0 done, 3 they have problems.

    \b
    authz ca revocation push revoked.txt --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _push(truth, "revocations", file, "cluster.local", if_revision)


@revocation.command("show")
@truth_options
def revocation_show(truth: "TruthClient | None") -> None:
    """
    Print what every authority refuses, and its revision.

    \b
    authz ca revocation show --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _show(truth, "revocations")


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


@entry.command("push")
@click.argument("file", type=PEM_FILE)
@click.option("--trust-domain", default="cluster.local", help="The trust domain of its identities.")
@IF_REVISION
@truth_options
def entry_push(file: Path, trust_domain: str, if_revision: int | None, truth: "TruthClient | None") -> None:
    """
    Replace the entries that all authorities have in common. Exit code: 0 done, 3 they have problems.

    \b
    authz ca entry push entries.yaml --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _push(truth, "entries", file, trust_domain, if_revision)


@entry.command("common")
@truth_options
def entry_common(truth: "TruthClient | None") -> None:
    """
    Print the entries that all authorities have in common, and their revision.

    \b
    authz ca entry common --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _show(truth, "entries")
