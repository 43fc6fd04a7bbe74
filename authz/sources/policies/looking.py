"""
Whether files differ from the last look, found by looking: a notice from the system is only a reason to look.

What is compared is where the way leads, device, inode, size and times. Because these can lie (a text written twice
within the clock's grain, file systems that keep no honest times), a digest of the text is compared as well: always for
what was changed lately, in turns for the rest.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from authz.sources.policies.listing import FileState, Folder, Listing, folders_of, list_files

RECENT_SECONDS = 3.0
"""The coarsest time that a usual file system keeps is two seconds: what is younger may change without a new time."""
TURN_FILES, TURN_BYTES = 100, 4_000_000
"""Most files, and most of their bytes, digested at one look beside the recent ones: some five milliseconds."""
TURN_SECONDS = 1.0
"""The least time between two such looks."""


@dataclass(frozen=True, slots=True)
class State:
    """The state that one look saw; two are equal when nothing has changed."""

    entries: tuple[FileState, ...]
    links: tuple[tuple[str, str], ...]
    lies: int
    """How often a text was found changed while everything else about its file was the same."""
    problem: str
    """Why a path could not be looked at; empty when all could."""
    tree: frozenset[str] = field(compare=False)
    names: frozenset[str] = field(compare=False)
    folders: frozenset[Folder] = field(compare=False)


def settled_state(path: Path) -> tuple[FileState, ...] | None:
    """
    What tells the text of a file from any other that it may get, as far as times do not lie; ``State.lies`` says.

    None while its times may be those of another text as well: it has just changed, or cannot be looked at.
    """
    latest = time.time_ns() - int(RECENT_SECONDS * 1e9)
    try:
        entries = tuple(list_files(path))
    except OSError:
        return None
    return entries if entries and all(max(entry[4], entry[5]) < latest for entry in entries) else None


class Looker:
    """Looks at some paths again and again, one look at a time; knows the texts by their digests."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [path.absolute() for path in paths]
        self._digests: dict[str, tuple[FileState, bytes]] = {}
        self._next = 0
        self._next_turn = 0.0
        self._lies = 0

    def look(self) -> State:
        """Look once. Never raises OSError: what cannot be looked at is a state, too."""
        listing, problems = Listing(), []
        for path in self._paths:
            try:
                list_files(path, listing, has_way=True)
            except OSError as error:
                problems.append(f"{error.filename}: {error.strerror}")
        self._compare_texts(listing.entries)
        return State(
            tuple(sorted(listing.entries)),
            tuple(sorted(set(listing.links))),
            self._lies,
            "; ".join(problems),
            frozenset(listing.tree),
            frozenset(listing.names),
            folders_of(listing),
        )

    def _compare_texts(self, entries: list[FileState]) -> None:
        latest = time.time_ns() - int(RECENT_SECONDS * 1e9)
        due = {entry[0]: entry for entry in entries if max(entry[4], entry[5]) > latest}
        read = 0
        is_due = time.monotonic() >= self._next_turn  # several looks at one change are one
        for _ in range(min(TURN_FILES, len(entries)) if is_due else 0):
            self._next_turn = time.monotonic() + TURN_SECONDS
            if read > TURN_BYTES:
                break
            self._next = (self._next + 1) % len(entries)
            entry = entries[self._next]
            due[entry[0]] = entry
            read += entry[3]
        for path, entry in due.items():
            try:
                digest = blake2b(Path(path).read_bytes(), digest_size=16).digest()
            except OSError:  # reading the set reports it
                continue
            before = self._digests.get(path)
            if before is not None and before[0] == entry and before[1] != digest:
                self._lies += 1
            self._digests[path] = (entry, digest)
        if len(self._digests) > 2 * len(entries) + TURN_FILES:
            present = {entry[0] for entry in entries}
            self._digests = {path: known for path, known in self._digests.items() if path in present}
