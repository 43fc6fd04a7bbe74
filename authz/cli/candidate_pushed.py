"""``authz candidate`` for a candidate that was pushed to the truth of a fleet: looked at, promoted, taken back."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from authz.bundles.manifest import time_text
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Bundle, read_bundle, refuse_candidate
from authz.canary.candidate_terms import CandidateTerms
from authz.cli import terminal
from authz.cli.candidate_views import standing_lines, standings_json
from authz.cli.fleet_source import look_through
from authz.cli.policy_publishing import finish
from authz.cli.policy_push import (
    Proposal,
    in_force,
    known_keys,
    not_policies,
    of_policies,
    own_name,
    prepare,
    revisions_of,
)
from authz.cli.policy_views import candidate_json, told_candidates
from authz.core.attributes import Json
from authz.truth.fleet_candidate import FleetCandidate
from authz.truth.policy_head import CandidateAbort, PushedCandidate
from authz.truth.truth_address import TruthAccess

if TYPE_CHECKING:
    from authz.truth.policy_revisions import PolicyRevisions


def show_pushed(url: str, access: TruthAccess, output: str) -> NoReturn:
    """
    Say which candidate is beside what is in force, and who has it; end the command: with 3 when it is taken back or
    some replica refuses it.

    Raises:
        SettingsError, TruthAway, TruthRefused, DamagedHead, BundleRefused: it cannot be looked at.
    """
    with revisions_of(url, access) as revisions:
        kept = revisions.head()
        candidate = kept.head.candidate if kept is not None else None
        terms = read_bundle(revisions.archive(candidate, MAX_PACKED_BYTES)).manifest.candidate if candidate else None
        view = look_through(revisions.client)() if candidate is not None else None
    own = FleetCandidate(candidate.number, candidate.digest) if candidate is not None else None
    aborted = candidate.aborted if candidate is not None else None
    if output == "json":
        told: dict[str, Json] = {"revision": kept.head.number if kept is not None else None}
        told |= candidate_json(candidate, terms) if candidate is not None else {"candidate": None}
        terminal.print_json(told | (standings_json(view, own) if view is not None and own is not None else {}))
    elif candidate is None or terms is None:
        terminal.say(f"revision {kept.head.number}: no candidate" if kept is not None else "nothing was pushed yet")
    else:
        terminal.say(f"candidate {candidate.number} beside revision {terms.base}, {terms}")
        terminal.say(f"  pushed by {candidate.author} at {time_text(candidate.created)}")
        for line in candidate.message.splitlines():
            terminal.say(f"    {line}")
        if aborted is not None:
            terminal.say(f"  taken back by {aborted.by} at {time_text(aborted.at)}: {aborted.reason}")
        for line in standing_lines(view, own) if view is not None and own is not None else ():
            terminal.say(f"  {line}")
    is_refused = view is not None and own is not None and any(True for _ in own.refusing(view))
    sys.exit(terminal.Exit.NO if aborted is not None or is_refused else terminal.Exit.YES)


def promote_pushed(
    url: str, access: TruthAccess, number: int | None, key: Path | None, keys: tuple[Path, ...], message: str,
    author: str, if_revision: int | None, *, dry_run: bool, output: str, wait: float,
) -> None:  # fmt: skip
    """
    Put the policies of a candidate in force for all, as a new revision; ends the command with 3 where it is over.

    Args:
        number: which one; None: the one beside what is in force.
        key: signs; the candidate must have been signed by it, too, or by one of ``keys``.
        if_revision: the revision that must be in force; None: the one that the candidate was compared with.

    Raises:
        BundleRefused: it was signed by somebody else, or is none.
        SettingsError, TruthAway, TruthRefused, DamagedHead, OSError: it cannot be done.
    """
    with revisions_of(url, access) as revisions:
        before, kept = in_force(revisions, if_revision)
        candidate = _wanted(revisions, before.head.candidate if before is not None else None, number, if_revision)
        if before is None or kept is None:
            _refuse("nothing is in force")
        bundle = read_bundle(revisions.archive(candidate, MAX_PACKED_BYTES))
        terms = _known(bundle, key, keys)
        if if_revision is None and terms.base != before.head.number:
            _refuse(
                f"candidate {terms.number} was compared with revision {terms.base}, and {before.head.number} is in "
                f"force: look at both, then say so with --if-revision {before.head.number}"
            )
        files = {**not_policies(kept.files), **of_policies(bundle.files)}
        manifest = bundle.manifest
        lifetime = manifest.expires - manifest.created if manifest.expires is not None else None
        said = f"candidate {terms.number}: {message or candidate.message}".removesuffix(": ")
        provenance = replace(manifest.provenance, author=author or own_name())
        pushed = prepare(Proposal(url, files, kept, before, said, provenance, lifetime))
        pushed = replace(pushed, head=replace(pushed.head, promoted_from=terms.number))
        finish(revisions, pushed, key, dry_run=dry_run, output=output, wait=wait)


def abort_pushed(url: str, access: TruthAccess, reason: str, author: str, output: str) -> None:
    """
    Take the candidate back, whoever has it; ends the command with 3 where there is none.

    Raises:
        SettingsError, TruthAway, TruthRefused, TruthChanged, DamagedHead: it cannot be done, or nobody knows whether it
            is.
    """
    from authz.truth.truth_client import TruthChanged

    with revisions_of(url, access) as revisions:
        for _ in range(_ATTEMPTS):
            kept = revisions.head()
            candidate = kept.head.candidate if kept is not None else None
            if kept is None or candidate is None or candidate.aborted is not None:
                _refuse("it was taken back before" if candidate is not None else "there is no candidate")
            aborted = CandidateAbort(int(time.time()), author or own_name(), reason)
            candidate = replace(candidate, aborted=aborted)
            try:
                revisions.amend(replace(kept.head, candidate=candidate), kept)
                break
            except TruthChanged:  # perhaps by a control plane that takes it back itself
                continue
        else:
            raise TruthChanged("others change the policies all the time: try again")
    if output == "json":
        terminal.print_json({"revision": kept.head.number, **candidate_json(candidate)})
    else:
        terminal.say(
            f"candidate {candidate.number} is taken back; revision {kept.head.number} is in force for all", "green"
        )


_ATTEMPTS = 10


def _wanted(
    revisions: "PolicyRevisions", beside: PushedCandidate | None, number: int | None, if_revision: int | None
) -> PushedCandidate:
    """The one to promote; one that is over only by its number and with ``if_revision``."""
    if beside is not None and number in (None, beside.number) and beside.aborted is None:
        return beside
    known = {one.number: one for one in told_candidates(revisions.history())}
    last = known.get(number) if number is not None else next(iter(known.values()), None)
    if last is None:
        _refuse(f"there is no candidate {number}" if number is not None else "there is no candidate")
    if number is None or if_revision is None:
        back = f"was taken back by {last.aborted.by}: {last.aborted.reason}" if last.aborted is not None else "is over"
        _refuse(f"candidate {last.number} {back}; to promote it all the same, give its number and --if-revision")
    return last


def _refuse(why: str) -> NoReturn:
    terminal.remark(f"{why}; nothing was done")
    sys.exit(terminal.Exit.NO)


def _known(bundle: Bundle, key: Path | None, keys: tuple[Path, ...]) -> CandidateTerms:
    """What somebody else put there is not signed again. Raises BundleRefused, OSError."""
    return refuse_candidate(bundle, known_keys(key, keys), fleet=bundle.manifest.fleet, now=time.time())
