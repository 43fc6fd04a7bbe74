"""
Follows a source: asks it, tries what it delivers, and puts it where readers look, or keeps what is there.

A thread of its own that shares nothing with the loop that answers checks but the files of the cache.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from authz.core.errors import AuthzError, FetchError, LoadError, SettingsError
from authz.sources.published.delivery import Delivery, PolicySource
from authz.sources.published.policy_cache import PolicyCache, RevisionTrial, read_source_status
from authz.telemetry.status import PolicySourceStatus

if TYPE_CHECKING:
    from authz.sources.published.candidate_follower import CandidateFollower

_log = logging.getLogger("authz.published")
WAKE_SECONDS = 0.2
"""Over which the askings of all replicas are spread that hear of a change."""
LONGEST_PAUSE_SECONDS = 300.0
"""Between two askings of a source that fails, unless it is asked less often anyway."""


def pause_seconds(poll_seconds: float, failures: int, share: float) -> float:
    """
    How long to wait before the next asking: longer after each failure, and never all replicas at once.

    Args:
        poll_seconds: as the setting.
        failures: in a row.
        share: random, from 0 to 1: a fifth more or less.
    """
    longest = max(poll_seconds, LONGEST_PAUSE_SECONDS)
    return min(poll_seconds * 2.0 ** min(failures, 30), longest) * (0.8 + 0.4 * share)


class PolicyFollower:
    """``begin`` once, then ``follow`` or ``ask``, then ``stop``."""

    def __init__(
        self,
        source: PolicySource,
        cache: PolicyCache,
        trial: RevisionTrial,
        *,
        shown: str,
        clock: Callable[[], float],
        share: Callable[[], float],
        poll_seconds: float,
    ) -> None:
        """
        Args:
            source: what is asked.
            cache: where it is put, already open.
            trial: judges a revision before readers see it.
            shown: the source's address for people.
            clock: seconds since the epoch.
            share: random, from 0 to 1.
            poll_seconds: how often the source is asked.
        """
        self._source = source
        self._cache = cache
        self._trial = trial
        self._clock = clock
        self._share = share
        self._poll_seconds = poll_seconds
        self._tag = ""
        self._expires: float | None = None
        self._in_row = 0
        self.candidate: CandidateFollower | None = None
        """What follows the candidate at the same place, if there may be one."""
        self._is_away = False
        self._stopping, self._woken, self._installing = Event(), Event(), Lock()
        before = read_source_status(cache.directory) or PolicySourceStatus("")
        self.status = PolicySourceStatus(shown, before.revision, before.number, before.created, before.taken_at)

    def begin(self) -> None:
        """
        Ask once; put what is kept on disk in force when the source does not deliver.

        Raises:
            SettingsError: there is neither.
        """
        if self.ask():
            return
        problem = self.status.error
        try:
            kept = self._source.restore(self._cache.kept(), self._cache.taken(), self._clock())
            if kept is None:
                raise SettingsError(f"{problem}; and nothing is kept in `{self._cache.directory}` to start from")
            self._install(kept)
        except (AuthzError, OSError) as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{problem}; and what is kept cannot be used: {_said(error)}") from error
        self._expires = kept.expires
        self._note(self._of(kept), is_kept=True)
        _log.error("the policies in force are those kept on disk, revision %s: %s", kept.revision.name, problem)

    def ask(self) -> bool:
        """Ask once, for a candidate too; False when what is in force was kept. Never raises: the status says why."""
        is_taken = self._ask()
        with self._installing:
            if self.candidate is not None and not self._stopping.is_set():
                self.candidate.look()
                if self.candidate.problem != self.status.candidate_problem:
                    told = replace(self.status, candidate_problem=self.candidate.problem)
                    self._note(told, is_kept=self.status.is_kept)
        return is_taken

    def wake(self) -> None:
        """Have it asked soon; from any thread."""
        self._woken.set()

    def _ask(self) -> bool:
        now = self._clock()
        try:
            is_expired = self._expires is not None and now >= self._expires  # it is not enough that nothing changed
            tag = "" if is_expired else self._tag
            found = self._source.ask(self._cache.taken(), self._cache.allowed(), tag, now)
            if found is not None:
                self._install(found)
        except (AuthzError, OSError) as error:
            self._fail(error)
            return False
        except Exception as error:  # a mistake of ours must not end the following
            _log.exception("asking the source of policies failed")
            self._fail(FetchError(f"internal error: {type(error).__name__}"))
            return False
        self._in_row, self._is_away = 0, False
        if self.status.error:
            _log.warning("the source of policies answers again: %s", self.status.source)
        told = self._of(found) if found is not None else self.status
        self._note(replace(told, asked_at=now, error="", successes=self.status.successes + 1), is_kept=False)
        if found is not None:
            self._tag, self._expires = found.tag, found.expires
            _log.info("revision %s of the policies came from %s", found.revision.name, self.status.source)
        return True

    def pause(self) -> float:
        """How many seconds to wait for a word of the source until it is asked again."""
        away = self._source.away_seconds
        if self._is_away and away is not None:
            return pause_seconds(min(self._poll_seconds, away), 0, self._share())
        return pause_seconds(self._poll_seconds, self._in_row, self._share())

    def follow(self) -> Thread:
        """Go on asking in a thread that ends with the process, or by ``stop``."""
        self._source.watch(self._woken.set)
        thread = Thread(target=self._follow, name="policy source", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the following; the cache stays, and other processes may use it."""
        self._stopping.set()
        self._woken.set()
        self._source.stop()
        with self._installing:
            self._cache.close()

    def _follow(self) -> None:
        while True:
            if self._woken.wait(self.pause()):
                self._stopping.wait(WAKE_SECONDS * self._share())
            if self._stopping.is_set():
                return
            self._woken.clear()
            self.ask()

    def _install(self, found: Delivery) -> None:
        with self._installing:  # not while another process may already have the cache
            if self._stopping.is_set():
                raise FetchError("the server stops")
            self._cache.install(found, self._trial)

    def _of(self, found: Delivery) -> PolicySourceStatus:
        return replace(
            self.status,
            revision=found.revision.name,
            number=found.revision.number,
            created=found.created,
            taken_at=self._clock(),
        )

    def _fail(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        self._is_away = isinstance(error, FetchError)
        if not isinstance(error, OSError):  # a disk of ours that is full is nothing that the source is spared for
            self._in_row += 1
        if not self._is_away:
            self._tag = ""  # what was refused is looked at again
        said = _said(error)
        if said != self.status.error:
            kept = self.status.revision
            _log.error("policies: %s; %s", said, f"revision {kept} stays" if kept else "there is no other")
            for problem in error.problems if isinstance(error, LoadError) else ():
                if problem.is_error:
                    _log.error("%s", problem)
        self._note(replace(self.status, error=said, failures=self.status.failures + 1), is_kept=self.status.is_kept)

    def _note(self, status: PolicySourceStatus, *, is_kept: bool) -> None:
        self.status = replace(status, is_kept=is_kept)
        try:
            self._cache.write_status(self.status)
        except OSError as error:
            _log.error("the status of the source cannot be written: %s: %s", error.filename, error.strerror)


def _said(error: Exception) -> str:
    if isinstance(error, LoadError):
        first = next((str(problem).partition("\n")[0] for problem in error.problems if problem.is_error), "")
        return f"its policies are refused, {error}: {first}"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    return str(error)
