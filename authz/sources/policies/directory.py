"""
A directory of files as it is at one moment, and when it has changed.

Reading yields bytes of a whole, untorn set; watching yields when a change has come to rest. Symlink swaps of mounted
volumes (``..data``) and files replaced by rename count as changes. What is in the files is not known here.
"""

import asyncio
import errno
import logging
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from watchfiles import Change, awatch

_log = logging.getLogger("authz.directory")
SUFFIXES = (".yaml", ".yml", ".json")
QUIET_SECONDS = 0.1
"""A change is at rest when nothing moved for so long: longer than an editor or ``cp -r`` takes between two files."""
MAX_UNREST_SECONDS = 0.5
"""Endless small changes are read all the same after so long, so that one second is kept."""
_ATTEMPTS = 20
_RETRY_SECONDS = 0.5

_Entry = tuple[str, int, int, int]
"""Path, inode, size and modification time: what tells two states of a file apart."""


def read_directory(path: Path) -> list[tuple[str, bytes]]:
    """
    Read every YAML and JSON file below a directory, or one file.

    Names that begin with a dot are skipped; symlinks are followed. Names in the result begin with ``path`` as given
    and are sorted. A set that changed while it was read is read again, so that a renamed file is never missed.

    Raises:
        OSError: a file cannot be read, a link leads nowhere, the path is not there, or it never comes to rest.
            A file that is left out could be the one that denies, so nothing is skipped that may hold policies.
    """
    lost: FileNotFoundError | None = None
    for _ in range(_ATTEMPTS):
        before = _listing(path)
        try:
            files = [(name, Path(name).read_bytes()) for name, *_ in before]
        except FileNotFoundError as error:  # renamed or removed in between, or a link that leads nowhere
            lost = error
            continue
        if _listing(path) == before:
            return files
        lost = None
    if lost is None:
        raise OSError(None, "the files keep changing while they are read", str(path))
    if Path(lost.filename).is_symlink():
        raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", lost.filename) from lost
    raise lost


def directory_bytes(path: Path) -> int:
    """How much ``read_directory`` would read; 0 when it could not, for that is where it is told."""
    try:
        return sum(size for _, _, size, _ in _listing(path))
    except OSError:
        return 0


def _listing(path: Path) -> list[_Entry]:
    if not path.is_dir():
        status = path.stat()
        return [(str(path), status.st_ino, status.st_size, status.st_mtime_ns)]
    found: list[_Entry] = []
    _walk(str(path), found, frozenset())
    found.sort()
    return found


def _walk(folder: str, found: list[_Entry], above: frozenset[str]) -> None:
    """``above`` holds the real paths of the folders on the way down: a symlink to one of them is a loop."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                _walk(entry.path, found, above | {real})
            elif (is_lost := entry.is_symlink() and not os.path.exists(entry.path)) or entry.name.endswith(SUFFIXES):
                with suppress(FileNotFoundError):  # gone again: the second listing tells
                    status = entry.stat(follow_symlinks=not is_lost)  # listed all the same, so that reading it fails
                    if not is_lost and not stat.S_ISREG(status.st_mode):
                        raise OSError(errno.EINVAL, "no regular file", entry.path)  # reading a pipe would never end
                    found.append((entry.path, status.st_ino, status.st_size, status.st_mtime_ns))


async def watch(
    paths: Sequence[Path], *, quiet_seconds: float = QUIET_SECONDS, ready: asyncio.Event | None = None
) -> AsyncGenerator[None]:
    """
    Yield each time that files below some directories, or some files, have changed and are at rest again.

    Args:
        paths: directories are watched with everything below them, files by name in their folder.
        quiet_seconds: how long nothing must move.
        ready: set when the watchers run; a change after that is not missed.

    A path that vanishes is waited for.
    """
    changed = asyncio.Event()
    watchers = [_Watcher(path, changed) for path in paths]
    try:
        if ready is not None:
            for watcher in watchers:
                await watcher.started.wait()
            ready.set()
        while True:
            await changed.wait()
            await _rest(changed, quiet_seconds)
            yield
    finally:
        for watcher in watchers:
            watcher.stop()


async def _rest(changed: asyncio.Event, quiet_seconds: float) -> None:
    latest = asyncio.get_running_loop().time() + MAX_UNREST_SECONDS
    while changed.is_set() and asyncio.get_running_loop().time() < latest:
        changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), quiet_seconds)
    changed.clear()


class _Watcher:
    """
    Two watches of one path: its folder, for the name itself (rename, symlink swap), and the tree below it.

    The tree's watch follows the inode, so it begins again whenever the name changes.
    """

    def __init__(self, path: Path, changed: asyncio.Event) -> None:
        self._path = path.absolute()
        self._changed = changed
        self._renamed = asyncio.Event()
        self._is_told = False
        self._seen: object = self  # equal to no listing: what happened before the first look is a change too
        self.started = asyncio.Event()
        self._tasks = [asyncio.create_task(self._watch_name(), name=f"watch name {path}")]
        self._tasks.append(asyncio.create_task(self._watch_tree(), name=f"watch tree {path}"))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _do_without(self) -> None:
        """No watch is to be had, for example because all inotify instances of this user are taken: look regularly."""
        if not self._is_told and self._path.is_dir():
            self._is_told = True
            _log.warning("`%s` cannot be watched; it is looked at every %.1f s", self._path, _RETRY_SECONDS)
        self.started.set()
        await self._look_again()

    async def _look_again(self) -> None:
        """Wait a little and tell if the files are others than last time."""
        await asyncio.sleep(_RETRY_SECONDS)
        found: list[_Entry] | None = None
        with suppress(OSError):
            found = _listing(self._path)
        if found != self._seen:
            self._seen = found
            self._changed.set()

    async def _watch_name(self) -> None:
        name = str(self._path)

        def is_ours(_: Change, path: str) -> bool:
            return path == name

        while True:
            with suppress(OSError, RuntimeError):
                async for _ in awatch(
                    self._path.parent, watch_filter=is_ours, recursive=False, step=20, debounce=100, rust_timeout=500
                ):
                    self._renamed.set()
                    self._changed.set()
            await self._look_again()

    async def _watch_tree(self) -> None:
        is_watched = True  # the caller reads once when all watches have started
        while True:
            self._renamed.clear()
            if self._path.is_dir():
                with suppress(OSError, RuntimeError):
                    # The first yield comes from `yield_on_timeout`, when the watch is set up.
                    async for changes in awatch(
                        self._path,
                        watch_filter=None,
                        step=20,
                        debounce=100,
                        rust_timeout=100 if not self.started.is_set() else 500,
                        yield_on_timeout=True,
                    ):
                        if changes or not is_watched:
                            self._changed.set()  # what happened before this watch began is a change too
                        is_watched = True
                        self.started.set()
                        if self._renamed.is_set():
                            break
                if not self._renamed.is_set():
                    await self._do_without()
                is_watched = False
            else:
                self.started.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._renamed.wait(), _RETRY_SECONDS)
