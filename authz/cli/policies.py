"""``authz policies``: revisions of policies in the truth of a fleet: pushed, listed, shown, rolled back."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.bundles.manifest import BundleRefused
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Bundle, read_bundle, refuse_bundle
from authz.cli import terminal
from authz.cli.bundle_contents import duration_seconds
from authz.cli.policy_publishing import finish
from authz.cli.policy_push import Proposal, in_force, known_keys, own_name, prepare, push, revisions_of
from authz.cli.policy_views import (
    bundle_json,
    candidate_json,
    head_json,
    history_rows,
    revision_lines,
    told_candidates,
    told_revisions,
)
from authz.cli.push_options import (
    AUTHOR,
    DRY_RUN,
    EXPIRES,
    IF_REVISION,
    KEY,
    MESSAGE,
    OVER_DAMAGED,
    PEM,
    WAIT,
)
from authz.cli.truth_options import TRUTH_URL, truth_access
from authz.core.attributes import Json
from authz.core.errors import FetchError
from authz.truth.policy_head import PolicyHead, PushedCandidate
from authz.truth.truth_address import TruthAccess

if TYPE_CHECKING:
    from authz.truth.policy_revisions import PolicyRevisions


@click.group("policies", short_help="Push policies to the truth of a fleet; its revisions.")
def command() -> None:
    """
    Revisions of the policies of a fleet (docs/truth.md).

    \b
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "first ones"
    authz policies history --to nats://127.0.0.1:4222/shop
    authz policies show 1 --to nats://127.0.0.1:4222/shop
    authz policies rollback 1 --to nats://127.0.0.1:4222/shop --key keys/bundle.key
    """


command.add_command(push)


@command.command("history")
@TRUTH_URL
@terminal.answer_form("table", "json")
@truth_access
def history(url: str, output: str, access: TruthAccess) -> None:
    """
    List the revisions and candidates that are kept, of the last 64 changes, the newest first.

    \b
    authz policies history --to nats://127.0.0.1:4222/shop
    """
    with revisions_of(url, access) as revisions:
        heads = revisions.history()
    if output == "json":
        told: dict[str, Json] = {"revisions": [head_json(head) for head in told_revisions(heads)]}
        terminal.print_json({**told, "candidates": [candidate_json(one) for one in told_candidates(heads)]})
    elif heads:
        terminal.print_table(("REVISION", "TIME", "AUTHOR", "FILES", "MESSAGE"), history_rows(heads))
    else:
        terminal.say("nothing was pushed yet")


@command.command("show")
@click.argument("revision", required=False, type=click.IntRange(1))
@TRUTH_URL
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Directory to write its files to.")
@terminal.answer_form("text", "json")
@truth_access
def show(revision: int | None, url: str, out: Path | None, output: str, access: TruthAccess) -> None:
    """
    Show one revision or candidate, by default the revision in force.

    --out writes its files to a directory that is not there yet.

    \b
    authz policies show 7 --to nats://127.0.0.1:4222/shop
    authz policies show 7 --to nats://127.0.0.1:4222/shop --out seven
    """
    with revisions_of(url, access) as revisions:
        head, bundle = _revision(revisions, revision)
    if out is not None:
        out.mkdir()
        for name, data in bundle.files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
    if output == "json":
        own = head_json(head) if isinstance(head, PolicyHead) else candidate_json(head, bundle.manifest.candidate)
        terminal.print_json({**own, **bundle_json(bundle)})
        return
    for line in revision_lines(head, bundle):
        terminal.say(line)


@command.command("rollback")
@click.argument("revision", type=click.IntRange(1))
@TRUTH_URL
@KEY
@click.option(
    "--public-key", "keys", multiple=True, type=PEM,
    help="PEM of another key by which the old revision may be signed; may be repeated.",
)  # fmt: skip
@MESSAGE
@AUTHOR
@EXPIRES
@IF_REVISION
@OVER_DAMAGED
@WAIT
@DRY_RUN
@terminal.answer_form("text", "json")
@truth_access
def rollback(
    revision: int, url: str, key: Path | None, keys: tuple[Path, ...], message: str, author: str, expires: str,
    if_revision: int | None, over_damaged: bool, wait: float, dry_run: bool, output: str, access: TruthAccess,
) -> None:  # fmt: skip
    """
    Push the content of an old revision as a new one: replicas never go back.

    What is signed again must have been signed by the same key, or by one of --public-key. It lives as long as before,
    from now on.

    \b
    authz policies rollback 6 --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "7 locked ops out"
    """
    if key is None and not keys:
        raise click.UsageError("--key is needed; with --dry-run a --public-key is enough")
    with revisions_of(url, access) as revisions:
        before, kept = in_force(revisions, if_revision, over_damaged=over_damaged)
        head, old = _revision(revisions, revision)
        _refuse_unknown(old, key, keys)
        manifest = old.manifest
        lifetime = manifest.expires - manifest.created if manifest.expires is not None else None
        if expires:
            lifetime = duration_seconds(expires)
        said = f"rollback to revision {revision}" + (f": {message}" if message else "")
        provenance = replace(manifest.provenance, author=author or own_name())
        pushed = prepare(Proposal(url, old.files, kept, before, said, provenance, lifetime), head.number)
        finish(revisions, pushed, key, dry_run=dry_run, output=output, wait=wait)


def _revision(revisions: "PolicyRevisions", number: int | None) -> tuple[PolicyHead | PushedCandidate, Bundle]:
    """One that is kept, or the one in force. Raises FetchError, BundleRefused, TruthAway, TruthRefused."""
    heads = revisions.history()
    every: list[PolicyHead | PushedCandidate] = [*told_candidates(heads), *told_revisions(heads)]
    found = [one for one in every if one.number == number] if number is not None else list(heads)
    if not found:
        kept = f"revisions {heads[0].number} to {heads[-1].number} are kept" if heads else "nothing was pushed yet"
        raise FetchError(f"there is no revision {number}: {kept}" if number is not None else kept)
    head = found[-1]
    bundle = read_bundle(revisions.archive(head, MAX_PACKED_BYTES))
    if bundle.manifest.revision != head.number:
        raise BundleRefused(f"the head says revision {head.number}, and its bundle is {bundle.manifest.revision}")
    return head, bundle


def _refuse_unknown(old: Bundle, key: Path | None, keys: tuple[Path, ...]) -> None:
    """What somebody else put there is not signed again. Raises BundleRefused, OSError."""
    known = known_keys(key, keys)
    created = float(old.manifest.created)  # that it has expired since is no matter
    refuse_bundle(old, known, fleet=old.manifest.fleet, now=min(created, time.time()))
