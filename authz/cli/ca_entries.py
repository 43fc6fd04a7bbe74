"""``authz ca token`` and ``authz ca entry``: how workloads prove who they are, and who may have which identity."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz.bundles.manifest import BundleRefused
from authz.cli import terminal
from authz.cli.bundle_contents import duration_seconds, signing_key, verifying_keys
from authz.cli.ca_common import RulesSigning, push_rules, show_rules, store_common_token, wait_for_rules
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
        store_common_token(truth, kept, directory)
    click.echo(text)
    terminal.remark(f"for {wanted}, until {time_of(kept.expires_at)}")


@click.group()
def revocation() -> None:
    """
    Revocations that several authorities have in common.

    \b
    authz ca revocation push revoked.txt --key keys/bundle.key --truth nats://truth.example:4222/shop \\
      --truth-ca bundle.pem
    authz ca revocation show --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """


IF_REVISION = click.option(
    "--if-revision", type=click.IntRange(0), help="Only if this is the revision in force; 0: if there is none."
)
SIGNED_BY = click.option("--key", type=PEM_FILE, help="Ed25519 key that signs them, as `authz bundle keygen` makes it.")
EXPIRES = click.option(
    "--expires", default="", metavar="TIME", help="With --key: how long they may be taken: 30d, 12h, 90m."
)
NUMBER = click.option(
    "--number",
    type=click.IntRange(1),
    help="With --key: their number, larger than any before; by default that of the clock.",
)
PUBLIC_KEYS = click.option(
    "--public-key",
    "keys",
    multiple=True,
    type=PEM_FILE,
    help="One of these must have signed them, PEM; may be repeated.",
)


WAIT = click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0),
    default=0.0,
    help="With --key: so many seconds all authorities may take to say that they have them in force; else exit code 3.",
)


@dataclass(frozen=True, slots=True)
class _Pushing:
    """What both kinds are pushed with."""

    directory: Path
    if_revision: int | None
    signing: RulesSigning | None
    seconds: float


def _push_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what both kinds are pushed with; its function gets that as one argument, ``pushing``."""

    @wraps(command)
    def with_pushing(
        *arguments: Any,
        directory: Path,
        if_revision: int | None,
        key: Path | None,
        expires: str,
        number: int | None,
        seconds: float,
        **others: Any,
    ) -> Any:
        if key is None and (expires or number or seconds):
            raise click.UsageError("--expires, --number and --wait go with --key")
        signing = None
        if key is not None:
            signing = RulesSigning(signing_key(key), duration_seconds(expires) if expires else None, number)
        return command(*arguments, pushing=_Pushing(directory, if_revision, signing, seconds), **others)

    for option in (WAIT, NUMBER, EXPIRES, SIGNED_BY, IF_REVISION, DIRECTORY):
        with_pushing = option(with_pushing)
    return with_pushing


def _push(truth: "TruthClient | None", key: str, file: Path, trust_domain: str, pushing: _Pushing) -> None:
    if truth is None:
        raise click.UsageError("--truth is needed: a file that only one authority has is given to `authz ca serve`")
    from authz.truth.truth_client import TruthChanged  # nats is slow to import

    with truth:
        bundle = load(pushing.directory).trust_bundle if pushing.seconds else None
        try:
            pushed = push_rules(truth, key, file, trust_domain_of(trust_domain), pushing.if_revision, pushing.signing)
        except TruthChanged as error:
            terminal.remark(f"error: {error}")
            sys.exit(terminal.Exit.NO)
        terminal.say(pushed.said)
        if bundle is None:
            return
        late = wait_for_rules(truth, key, pushed.number, bundle, pushing.seconds)
    for name, silent in late:
        terminal.say(f"authority `{name}` does not say that it has them; it was heard of {silent:.0f} seconds ago")
    if late:
        sys.exit(terminal.Exit.NO)
    terminal.say("every authority has them in force")


def _show(truth: "TruthClient | None", key: str, keys: tuple[Path, ...]) -> None:
    if truth is None:
        raise click.UsageError("--truth is needed")
    known = verifying_keys(keys)
    try:
        data, said = show_rules(truth, key, known)
    except BundleRefused as error:
        terminal.remark(str(error))
        sys.exit(terminal.Exit.NO)
    terminal.remark(said)
    click.echo(data.decode(errors="replace"), nl=False)


@revocation.command("push")
@click.argument("file", type=PEM_FILE)
@truth_options
@_push_options
def revocation_push(file: Path, truth: "TruthClient | None", pushing: _Pushing) -> None:
    """
    Replace the serial numbers and SPIFFE IDs that every authority refuses.

    Exit code: 0 done; 3 they have problems, somebody else was faster, or with --wait: an authority does not say that
    it has them.

    \b
    authz ca revocation push revoked.txt --key keys/bundle.key --truth nats://truth.example:4222/shop \\
      --truth-ca bundle.pem
    """
    _push(truth, "revocations", file, "cluster.local", pushing)


@revocation.command("show")
@PUBLIC_KEYS
@truth_options
def revocation_show(truth: "TruthClient | None", keys: tuple[Path, ...]) -> None:
    """
    Print what every authority refuses, its revision and who signed it. Exit code 3: none of the keys did.

    \b
    authz ca revocation show --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _show(truth, "revocations", keys)


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
@truth_options
@_push_options
def entry_push(file: Path, trust_domain: str, truth: "TruthClient | None", pushing: _Pushing) -> None:
    """
    Replace the entries that all authorities have in common.

    Exit code: 0 done; 3 they have problems, somebody else was faster, or with --wait: an authority does not say that
    it has them.

    \b
    authz ca entry push entries.yaml --key keys/bundle.key --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _push(truth, "entries", file, trust_domain, pushing)


@entry.command("common")
@PUBLIC_KEYS
@truth_options
def entry_common(truth: "TruthClient | None", keys: tuple[Path, ...]) -> None:
    """
    Print the entries that all authorities have in common, their revision and who signed them. Exit 3: none of the keys.

    \b
    authz ca entry common --truth nats://truth.example:4222/shop --truth-ca bundle.pem
    """
    _show(truth, "entries", keys)
