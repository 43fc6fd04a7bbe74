"""
A candidate as it is read: its policies, and of one that was pushed what is said of it, which change together.

One that was promoted is gone at once. Those who have it must not go back to what was in force before in between, so it
stays until what is in force has been read as it is now.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from authz.canary.canary_source import CanarySource
from authz.canary.candidate_terms import CandidateTerms, PublishedCandidate
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot

BASE_SECONDS = 10.0
"""For what is in force to be read after it was replaced; a candidate stays for so long at most."""
_ATTEMPTS = 3
"""How often it is read again because another one was pushed meanwhile."""


class CanaryReading:
    """``load`` at every change, in one event loop."""

    def __init__(self, source: CanarySource, mesh_file: Path, clock: Callable[[], float]) -> None:
        """Arguments are those of ``CanaryFollower``. Nothing is read yet."""
        self._path = source.path
        self._published = source.published
        self._is_shadowed = source.is_shadowed
        self._mesh_file = mesh_file
        self._clock = clock
        self._reloader: Reloader | None = None
        self._loading = asyncio.Lock()
        self._base_read_at, self._base_read = 0.0, asyncio.Event()
        self.terms: CandidateTerms | None = None
        """Of one that was pushed, and is read here."""
        self.in_shadow = 0
        """The number of one that was pushed, chooses nobody, and is not read here; 0: there is none."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good one; None: there is none."""
        return self._reloader.snapshot if self._reloader is not None else None

    @property
    def reason(self) -> str:
        """What is wrong with what lies there now."""
        if self._reloader is None or self._reloader.status.is_ok:
            return ""
        problems = self._reloader.status.problems
        return "; ".join(str(problem) for problem in problems if problem.is_error) or "it cannot be read"

    def note_base(self, base: Snapshot) -> None:
        """Say what is in force."""
        self._base_read_at = base.loaded_at
        self._base_read.set()

    async def load(self) -> bool:
        """Load what is there; False: nothing is, which means no candidate."""
        async with self._loading:
            for _ in range(_ATTEMPTS):
                is_there = await self._load_alone()
                if self._published is None or not is_there:
                    break
                if await asyncio.to_thread(self._published.terms, self._path) == self.terms:
                    break
            return is_there

    def stop(self) -> None:
        """End a reading that goes on in a process."""
        if self._reloader is not None:
            self._reloader.stop()

    async def _load_alone(self) -> bool:
        published, terms = self._published, None
        is_there = await asyncio.to_thread(_is_there, self._path)
        if published is not None:
            terms = await asyncio.to_thread(published.terms, self._path)
            is_there = is_there and terms is not None
            is_read = self._is_shadowed or (terms is not None and bool(terms.selection))
            self.in_shadow = terms.number if is_there and terms is not None and not is_read else 0
            is_there = is_there and is_read
        if not is_there:
            if published is not None and self._reloader is not None:
                await self._until_base_is_read(published)
            self._reloader = self.terms = None
            return False
        before = reloader = self._reloader
        if reloader is None or terms != self.terms:  # another one, which has nothing of the one before to lose
            reloader = Reloader(
                self._path, self._mesh_file, lambda _: None, self._clock, is_candidate=True, answers_requests=False
            )
        try:
            await reloader.load()
        finally:
            self._reloader, self.terms = reloader, terms
            if before is not None and before is not reloader:
                before.stop()
        return True

    async def _until_base_is_read(self, published: PublishedCandidate) -> None:
        at = published.replaced_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BASE_SECONDS):
                while self._base_read_at <= at:
                    self._base_read.clear()
                    await self._base_read.wait()


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # whether it is cannot be seen: loading it says why
        return True
