"""
The system's notices of changed files: one watcher serves everybody in this process, because instances are few.

A Linux user has 128 inotify instances by default, and every sidecar that decides by itself is a process of that user.
Whoever follows files names folders; the watcher starts anew when the folders change. Where no watcher is available,
nobody is told anything, and files have to be looked at more often.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from watchfiles import watch

from authz.sources.policies.listing import Folder

STEP_MS, GROUP_MS, TURN_MS = 25, 100, 200
AGAIN_SECONDS = 5.0
"""Seconds until the next try, when no watcher is available."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One who follows files. ``wake`` is called from the watcher's thread, also when watching begins or fails."""

    wake: Callable[[], None]
    tree: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    folders: frozenset[Folder] = field(default_factory=frozenset)
    is_covered: bool = False
    """Whether all its folders are watched now."""
    is_answered: bool = False
    """Whether it is known yet if they can be watched."""

    def concerns(self, path: str) -> bool:
        """Whether a change of this path concerns what is followed."""
        return path in self.names or path.rpartition("/")[0] in self.tree or path in self.tree


class Notices:
    """The one watcher of a process; it runs while anybody follows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: list[Subscriber] = []
        self._again = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def following(self, follower: Subscriber) -> Iterator[None]:
        """Tell a follower from now on."""
        with self._lock:
            self._followers.append(follower)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="authz file notices", daemon=True)
                self._thread.start()
            self._again.set()
        try:
            yield
        finally:
            with self._lock:
                self._followers.remove(follower)
                self._again.set()

    def renew(
        self, follower: Subscriber, tree: frozenset[str], names: frozenset[str], folders: frozenset[Folder]
    ) -> None:
        """Watch other folders for a follower."""
        with self._lock:
            is_other = folders != follower.folders
            follower.tree, follower.names, follower.folders = tree, names, folders
            if is_other:
                follower.is_covered = follower.is_answered = False
                self._again.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._followers:
                    self._thread = None
                    return
                self._again.clear()
                folders = frozenset().union(*(follower.folders for follower in self._followers))
            paths = sorted({path for path, _, _ in folders})
            try:
                if paths:
                    self._watch(paths, folders)
                else:
                    self._answer(folders, is_covered=False)
                    self._again.wait(AGAIN_SECONDS)
            except (OSError, RuntimeError):  # no instance left, or a folder that has just gone
                self._answer(folders, is_covered=False)
                self._again.wait(AGAIN_SECONDS)

    def _watch(self, paths: list[str], folders: frozenset[Folder]) -> None:
        """Watch until the folders are other ones. The first turn comes when the watch is set up, without changes."""
        is_begun = False
        for changes in watch(
            *paths,
            watch_filter=None,
            debounce=GROUP_MS,
            step=STEP_MS,
            stop_event=self._again,
            rust_timeout=TURN_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        ):
            if not is_begun:
                is_begun = True
                self._answer(folders, is_covered=True)
            told = [path for _, path in changes]
            with self._lock:
                followers = list(self._followers)
            for follower in followers:
                if any(map(follower.concerns, told)):
                    follower.wake()

    def _answer(self, folders: frozenset[Folder], *, is_covered: bool) -> None:
        with self._lock:
            answered = [follower for follower in self._followers if follower.folders <= folders]
            for follower in answered:
                follower.is_covered, follower.is_answered = is_covered and bool(follower.folders), True
        for follower in answered:
            follower.wake()


NOTICES = Notices()
"""The watcher of this process: its event loops and servers share what the system has few of."""
