"""What is to be pushed to the truth of a fleet is signed, put there by compare-and-swap, and waited for."""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.bundles.manifest import time_text
from authz.bundles.whole_bundle import sign_bundle
from authz.canary.candidate_terms import CandidateTerms
from authz.cli import diff_report, terminal
from authz.cli.bundle_contents import signing_key
from authz.cli.candidate_views import say_taken, standings_json
from authz.cli.fleet_source import look_through
from authz.cli.fleet_wait import say_waited
from authz.cli.policy_views import candidate_json, head_json
from authz.core.attributes import Json
from authz.truth.fleet_candidate import FleetCandidate
from authz.truth.fleet_merge import FleetView
from authz.truth.fleet_waiting import await_candidate, await_revision
from authz.truth.policy_head import PolicyHead

if TYPE_CHECKING:
    from authz.truth.policy_revisions import KeptHead, PolicyRevisions

SETTLE_SECONDS = 20.0
"""For a push without an answer to be found out about."""
UNKNOWN = ": nobody knows whether {}; `authz policies history` says so once the truth answers"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is to be pushed, compared with what is in force."""

    head: PolicyHead
    archive: bytes
    before: "KeptHead | None"
    changes: Mapping[str, tuple[str, ...]]
    """Names of files: ``added``, ``changed``, ``removed``."""
    report: diff_report.DiffReport | None
    """None where nothing was in force."""
    terms: CandidateTerms | None = None
    """Of a candidate, which is then that of ``head``; None: ``head`` itself is new."""

    @property
    def shown(self) -> str:
        """For people: ``revision 7``, ``candidate 8``."""
        return f"candidate {self.terms.number}" if self.terms is not None else f"revision {self.head.number}"


def finish(
    revisions: "PolicyRevisions", pushed: Pushed, key: Path | None, *, dry_run: bool, output: str, wait: float = 0.0
) -> None:
    """Say what changes; sign and push unless it is a dry run, and wait for the fleet. Ends the command."""
    if output == "text":
        _say_changes(pushed)
    if not dry_run:
        if key is None:
            raise click.UsageError("--key is needed, or --dry-run")
        pushed = signed(pushed, key)
        publish(revisions, pushed)
    if output == "text":
        there = (
            f"is beside revision {pushed.head.number}, {pushed.terms}" if pushed.terms is not None else "is in force"
        )
        said = f"would be {pushed.shown}; nothing is pushed" if dry_run else f"{pushed.shown} {there}"
        terminal.say(said, "" if dry_run else "green")
        _say_ended(pushed, dry_run=dry_run)
    awaited = _await(revisions, pushed, wait) if wait and not dry_run else None
    if output == "json":
        own, terms = pushed.head.candidate, pushed.terms
        told: dict[str, Json] = {"pushed": not dry_run, **head_json(pushed.head)}
        if own is not None and terms is not None:
            told = {"pushed": not dry_run, **candidate_json(own, terms)}
        told["changes"] = {name: list(names) for name, names in pushed.changes.items()}
        told["diff"] = diff_report.as_json(pushed.report) if pushed.report is not None else None
        if awaited is not None:
            told |= {"acknowledged": awaited.is_done, **awaited.told}
        terminal.print_json(told)
    elif awaited is not None:
        awaited.say()
    if awaited is not None and not awaited.is_done:
        raise SystemExit(terminal.Exit.NO)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """How waiting ended."""

    is_done: bool
    told: Mapping[str, Json]
    say: Callable[[], object]


def _await(revisions: "PolicyRevisions", pushed: Pushed, seconds: float) -> _Awaited:
    """Raises AuthzError: nobody answered at the end."""
    look, own = look_through(revisions.client), pushed.head.candidate
    if pushed.terms is None or own is None:
        revision = str(pushed.head.number)
        view = await_revision(look, revision, seconds)
        without: list[Json] = [one.name for one in view.without(revision)]
        return _Awaited(view.has(revision), {"without": without}, lambda: say_waited(view, revision))
    candidate = FleetCandidate(own.number, own.digest)
    is_beside = True

    def look_at_both() -> FleetView:
        nonlocal is_beside
        found = revisions.head()
        beside = found.head.candidate if found is not None else None
        is_beside = beside is not None and beside.digest == own.digest and beside.aborted is None
        return look()

    seen = await_candidate(look_at_both, candidate, seconds, is_there=lambda: is_beside)
    return _Awaited(
        candidate.is_taken(seen),
        standings_json(seen, candidate),
        lambda: say_taken(seen, candidate, is_there=is_beside),
    )


def signed(pushed: Pushed, key: Path) -> Pushed:
    """With a signature, and the digest of the whole. Raises BundleRefused, OSError."""
    archive = sign_bundle(pushed.archive, signing_key(key))
    digest = hashlib.sha256(archive).hexdigest()
    head, own = pushed.head, pushed.head.candidate
    if pushed.terms is not None and own is not None:
        head = replace(head, candidate=replace(own, digest=digest))
    else:
        head = replace(head, digest=digest)
    return replace(pushed, head=head, archive=archive)


def publish(revisions: "PolicyRevisions", pushed: Pushed) -> None:
    """
    Put it in force; ends the command with 3 on a conflict.

    When nobody answers it is pushed again: of the same compare-and-swap at most one succeeds, and then it is known.

    Raises:
        TruthAway: nobody knows whether it is in force, or it certainly is not; the message says which.
        TruthRefused, DamagedHead: it is not.
    """
    from authz.truth.truth_client import TruthAway, TruthChanged, TruthUntouched

    until = time.monotonic() + SETTLE_SECONDS
    is_said, is_untouched = False, True
    while True:
        try:
            try:
                revisions.publish(pushed.head, pushed.archive, pushed.before)
            except TruthChanged:
                if not revisions.is_published(pushed.head):
                    found = revisions.head()
                    if found == pushed.before:  # after an election a server may know less than who leads
                        raise TruthUntouched("the servers of the truth do not agree yet") from None
                    conflict(found.head if found is not None else None)
        except TruthAway as error:
            is_untouched = is_untouched and isinstance(error, TruthUntouched)
            if time.monotonic() > until:
                known = (
                    "; nothing was pushed"
                    if is_untouched
                    else UNKNOWN.format(f"{pushed.shown} is {'in force' if pushed.terms is None else 'there'}")
                )
                raise TruthAway(f"{error}{known}") from error
            if not is_said:
                terminal.remark(f"{error}; trying again …")
            is_said = True
            time.sleep(0.2)
        else:
            return


def conflict(head: PolicyHead | None) -> None:
    """Say which revision is in force instead, and end the command with 3."""
    if head is None:
        terminal.remark("nothing is in force; nothing was pushed")
    else:
        why = f": {head.message}" if head.message else ""
        terminal.remark(
            f"revision {head.number} is in force, pushed by {head.author} at {time_text(head.created)}{why}"
            f"{_beside(head)}; nothing was pushed. Look at it (`authz policies show`), and push again."
        )
    sys.exit(terminal.Exit.NO)


def _beside(head: PolicyHead) -> str:
    """What is said of a candidate, which may be what has changed."""
    if head.candidate is None:
        return ""
    aborted = head.candidate.aborted
    back = f", taken back by {aborted.by}: {aborted.reason}" if aborted is not None else ""
    return f"; beside it is candidate {head.candidate.number}, pushed by {head.candidate.author}{back}"


def _say_ended(pushed: Pushed, *, dry_run: bool) -> None:
    """The candidate that this ends."""
    before = pushed.before.head.candidate if pushed.before is not None else None
    if before is not None and before.aborted is None and before.number != pushed.head.promoted_from:
        terminal.say(f"candidate {before.number} {'would be' if dry_run else 'is'} over")


def _say_changes(pushed: Pushed) -> None:
    for what, names in pushed.changes.items():
        for name in names:
            terminal.say(f"{what:8} {name}")
    if pushed.report is not None:
        diff_report.write(pushed.report, "text")
