"""
The candidate in the truth of a fleet, laid out where readers look for one, or taken away.

    CACHE/candidates/8-0123456789ab/   the policies of candidate 8, and its signed manifest
    CACHE/candidate                    a link to these policies: what readers follow; none: there is no candidate
    CACHE/candidate.json               the newest one that was laid out, and whether it is over

What is in force is always safe, so whatever is doubtful takes a candidate away: another revision beside it than the one
that it was compared with, its end, or a start at which the truth does not answer. One that is over stays so, and so
does one that was signed and of which the truth once said that it was taken back, whether or not it ever was here.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from authz.bundles.manifest import BundleRefused, read_manifest
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.strict_json import read_strict_json
from authz.bundles.whole_bundle import Bundle, read_bundle, refuse_candidate
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.canary.candidate_terms import CandidateTerms
from authz.core.errors import AuthzError, LoadError
from authz.sources.published.bundle_source import BundleTrust
from authz.sources.published.delivery import NotTaken
from authz.sources.published.policy_cache import FOLDER_MODE, PolicyCache, RevisionTrial, write_members, write_whole
from authz.truth.policy_head import MAX_REASON, CandidateAbort, PolicyHead, PushedCandidate
from authz.truth.policy_revisions import KeptHead, PolicyRevisions
from authz.truth.truth_client import TruthAway, TruthChanged, TruthRefused

_log = logging.getLogger("authz.published")
LINK, FOLDER, NOTE, MANIFEST = "candidate", "candidates", "candidate.json", "manifest.json"
AGAIN_SECONDS = 300.0
"""After so long one whose policies cannot be used is read again: what holds for the mesh here may be other then."""
_KEPT = 2
"""Unpacked ones: a reader may be within the one before."""


@dataclass(frozen=True, slots=True)
class LastCandidate:
    """The newest candidate that was laid out here, or seen when it was over."""

    owner: str = ""
    """The fleet."""
    number: int = 0
    digest: str = ""
    is_over: bool = False
    aborted: str = ""
    """Why it was taken back here; empty when it was not, or the truth does not let us say so."""


class CandidateFollower:
    """``begin`` once, then ``look`` after every asking, in the thread of the asking. A ``PublishedCandidate``."""

    def __init__(
        self, revisions: PolicyRevisions, trust: BundleTrust, cache: PolicyCache, trial: RevisionTrial,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """
        Args:
            revisions: in the truth.
            trust: whose candidates are laid out.
            cache: already open; what is in force is there, too.
            trial: judges its policies before readers see them.
            clock: seconds since the epoch.
        """
        self.problem = self.aborted = ""
        self.by = "a control plane"
        """Who takes a candidate back by ``abort``."""
        self.wake: Callable[[], None] = lambda: None
        """Has ``look`` called soon; from any thread."""
        self.path = cache.directory / LINK
        self._revisions = revisions
        self._trust = trust
        self._cache = cache
        self._trial = trial
        self._clock = clock
        self.standing: CandidateStanding | None = None
        self._told_of: PushedCandidate | None = None
        self._is_early = False
        self._laid: CandidateTerms | None = None
        self._expires: int | None = None
        self._last, self._is_noted, self._damage = LastCandidate(), True, ""
        self._wanted_abort: tuple[int, str] | None = None
        self._unsigned = ""
        self._unusable = ("", 0.0, "")

    def begin(self) -> None:
        """Take away what an earlier process laid out: the truth may say otherwise by now. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self._damage = self._recall()

    def _recall(self) -> str:
        """Read which candidate was the last; why that is not known, which keeps every candidate away."""
        file = self._cache.directory / NOTE
        try:
            last = LastCandidate(**read_strict_json(file.read_bytes()))
            if [type(value) for value in asdict(last).values()] != [str, int, str, bool, str]:
                raise ValueError("other types")
        except FileNotFoundError:
            last = LastCandidate()
        except (OSError, ValueError, TypeError):
            return f"`{file}` cannot be read, and says which candidate was over: remove it to take the next one"
        self._last = last
        return ""

    def look(self) -> None:
        """Ask the truth, and lay out what it names or take it away. Never raises: ``problem`` says why."""
        self._look()
        self.standing = self._stands()

    def _stands(self) -> CandidateStanding | None:
        """What became of the one that the truth was last heard to name."""
        known = self._told_of
        number, digest = (known.number, known.digest) if known is not None else (0, "")
        if known is not None and self.aborted:
            return CandidateStanding(number, digest, CandidateState.ABORTED, self.aborted)
        if self.problem:
            state = CandidateState.WAITING if self._is_early else CandidateState.REFUSED
            return CandidateStanding(number, digest, state, self.problem)
        return None if self._laid is None else CandidateStanding(number, digest, CandidateState.SHADOW)

    def _look(self) -> None:
        if self._damage:
            self._damage = self._recall()
            self._note(self._damage)
            if self._damage:
                return
        try:
            if self._expires is not None and self._clock() >= self._expires:
                self._end("it has expired")
            if not self._is_noted:
                self._remember(self._last)
            wanted, self._wanted_abort = self._wanted_abort, None
            if wanted is not None and wanted[0] == self._last.number:
                self._end(wanted[1], aborted=wanted[1])
            found = self._told(self._revisions.head())
            self._note(self._follow(found.head if found is not None else None))
        except TruthAway:
            return  # nothing is known to be otherwise
        except (AuthzError, OSError) as error:
            self._note(f"{error.filename or self.path}: {error.strerror}" if isinstance(error, OSError) else str(error))
        except Exception as error:  # a mistake of ours must not end the following of what is in force
            _log.exception("the candidate could not be followed")
            self._note(f"internal error: {type(error).__name__}")

    def terms(self, path: Path) -> CandidateTerms | None:
        """As ``PublishedCandidate``."""
        try:
            return read_manifest((path.resolve().parent / MANIFEST).read_bytes()).candidate
        except (OSError, BundleRefused):
            return None

    def replaced_at(self) -> float:
        """As ``PublishedCandidate``."""
        return self._cache.swapped_at()

    def abort(self, number: int, reason: str) -> None:
        """As ``PublishedCandidate``; where our role may not, or another one is there, nothing happens."""
        if number != self._last.number or not self._last.is_over:
            self._wanted_abort = number, " ".join(reason.split())[:MAX_REASON]
            self.wake()

    def _told(self, kept: KeptHead | None) -> KeptHead | None:
        """What stands there once it says that the candidate was taken back here. Raises TruthAway, TruthRefused."""
        last, wanted = self._last, kept.head.candidate if kept is not None else None
        is_last = wanted is not None and (wanted.number, wanted.digest) == (last.number, last.digest)
        if kept is None or wanted is None or not is_last or not last.aborted or wanted.aborted is not None:
            return kept
        aborted = CandidateAbort(int(self._clock()), self.by, last.aborted)
        try:
            self._revisions.amend(replace(kept.head, candidate=replace(wanted, aborted=aborted)), kept)
        except TruthChanged:
            self.wake()
        except TruthRefused as error:
            _log.error("that candidate %s was taken back here is not told to others: %s", last.number, error)
            self._remember(replace(last, aborted=""))
        return self._revisions.head()

    def _follow(self, head: PolicyHead | None) -> str:
        """Do what the head says; why its candidate is not laid out. Raises TruthAway, TruthRefused, OSError."""
        wanted = head.candidate if head is not None else None
        aborted = wanted.aborted if wanted is not None else None
        is_last = wanted is not None and (wanted.number, wanted.digest) == (self._last.number, self._last.digest)
        self.aborted = f"{aborted.by}: {aborted.reason}" if aborted is not None else ""
        self._told_of, self._is_early = wanted, False
        if wanted is None:
            self._end("it is no candidate any more")
            return ""
        if aborted is not None:
            self._end("it was taken back")
            self._note_over(wanted)
            return ""
        try:
            self._refuse_old(wanted)
            if is_last and self._laid is not None:
                self._refuse_beside(self._laid)
                return ""
            bundle, terms = self._judged(wanted)
            self._refuse_beside(terms)
            new = self._unpacked(wanted, bundle)
        except (NotTaken, TruthRefused) as error:
            self._end(str(error))
            return str(error)
        self._lay_out(wanted, new)
        self._laid, self._expires = terms, bundle.manifest.expires
        _log.info("candidate %s of the policies is there: %s", wanted.number, terms)
        return ""

    def _judged(self, wanted: PushedCandidate) -> tuple[Bundle, CandidateTerms]:
        """Raises NotTaken, TruthAway, TruthRefused."""
        data = self._revisions.archive(wanted, MAX_PACKED_BYTES)
        try:
            bundle = read_bundle(data)
            terms = refuse_candidate(bundle, self._trust.keys, fleet=self._trust.fleet, now=self._clock())
        except BundleRefused as error:
            raise NotTaken(f"candidate {wanted.number} is refused: {error}") from error
        if terms.number != wanted.number:
            raise NotTaken(f"the head says candidate {wanted.number}, and its bundle is {terms.number}")
        return bundle, terms

    def _note_over(self, wanted: PushedCandidate) -> None:
        """
        Remember that one is over that never was here, so that nobody can bring it back here. Raises TruthAway, OSError.

        Only if it was signed: whoever has no key could else use up all numbers.
        """
        last = self._last
        is_known = last.owner == self._trust.fleet and wanted.number <= last.number
        if is_known or wanted.digest == self._unsigned:
            return
        try:
            self._judged(wanted)
        except (NotTaken, TruthRefused):
            self._unsigned = wanted.digest
        else:
            self._remember(LastCandidate(self._trust.fleet, wanted.number, wanted.digest, is_over=True))

    def _refuse_beside(self, terms: CandidateTerms) -> None:
        """Refuse one beside anything else than what it was compared with. Raises NotTaken."""
        taken = self._cache.taken()
        number = taken.number if taken is not None and taken.owner == self._trust.fleet else 0
        self._is_early = terms.base > number
        if terms.base != number:
            raise NotTaken(
                f"candidate {terms.number} was compared with revision {terms.base}, and {number} is in force here"
            )

    def _refuse_old(self, wanted: PushedCandidate) -> None:
        """Refuse what is over or older: whoever has no key cannot bring it back here. Raises NotTaken."""
        last = self._last
        if last.owner != self._trust.fleet or wanted.number > last.number:
            return
        if wanted.number < last.number:
            raise NotTaken(f"candidate {wanted.number} is older than {last.number}, which was here: push it again")
        if wanted.digest != last.digest:
            raise NotTaken(f"candidate {wanted.number} was here with other files: push it again")
        if last.is_over:
            raise NotTaken(f"candidate {wanted.number} was here and is over: push it again")

    def _remember(self, last: LastCandidate) -> None:
        if last != self._last or not self._is_noted:
            self._last, self._is_noted = last, False
            write_whole(self._cache.directory / NOTE, json.dumps(asdict(last)).encode())
            self._is_noted = True

    def _end(self, why: str, *, aborted: str = "") -> None:
        """Take away what is laid out, or was by an earlier process, for good. Raises OSError."""
        number, self._laid, self._expires = self._last.number, None, None
        if number and not self._last.is_over:
            self.path.unlink(missing_ok=True)
            self.aborted = f"{self.by}: {aborted}" if aborted else self.aborted
            _log.info("candidate %s of the policies is gone: %s", number, why)
            self._remember(replace(self._last, is_over=True, aborted=aborted))

    def _unpacked(self, wanted: PushedCandidate, bundle: Bundle) -> Path:
        """A new folder of one whose policies can be used. Raises NotTaken, OSError."""
        digest, until, words = self._unusable
        if digest == wanted.digest and self._clock() < until:
            raise NotTaken(words)
        new = self._cache.directory / FOLDER / f"{wanted.number}-{wanted.digest[:12]}-{os.urandom(4).hex()}"
        try:
            (new / "traffic").mkdir(FOLDER_MODE, parents=True)  # as of a revision: who tries it may look there
            write_members(new, {**bundle.files, MANIFEST: bundle.manifest_bytes})
            self._trial(new, None)
        except BaseException as error:
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, LoadError):
                first = next((str(one).partition("\n")[0] for one in error.problems if one.is_error), "")
                words = f"candidate {wanted.number} cannot be used, {error}: {first}"
                self._unusable = wanted.digest, self._clock() + AGAIN_SECONDS, words
                raise NotTaken(words) from error
            raise
        return new

    def _lay_out(self, wanted: PushedCandidate, new: Path) -> None:
        """Have readers see it. Raises OSError."""
        try:
            self._remember(LastCandidate(self._trust.fleet, wanted.number, wanted.digest))  # the one before is over
            link = self._cache.directory / f".{LINK}.{os.urandom(4).hex()}"
            link.symlink_to((new / "policies").relative_to(self._cache.directory), target_is_directory=True)
            link.rename(self.path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        others = sorted((one for one in new.parent.iterdir() if one != new), key=lambda one: one.stat().st_mtime)
        for folder in others[: 1 - _KEPT or None]:
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.error("the candidate of the policies is not there: %s", problem)
        self.problem = problem
