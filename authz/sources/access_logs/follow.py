"""
Following the logs of a directory: every line of every file exactly once, through rotation and restarts of either side.

A file is known by its first line, which has a time in microseconds and an id in it, and not by its name or inode. So a
renamed, copied or compressed log is the same log, read on from where it was, and an inode that is used again is not
mistaken for what it held before. How far each file was read is kept in one small file, renamed into place.
"""

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

POSITIONS = ".authz-positions.json"
"""The file of positions, in the followed directory unless another place is given."""
CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20
"""A longer line is no entry; it is skipped and counted."""
_PIECE_BYTES = 1 << 13
_LOG = (".json", ".jsonl", ".log")


class Lines(NamedTuple):
    """Some whole lines of one file, and where they end."""

    log: str
    """Identity of the log."""
    lines: list[bytes]
    end: int
    """Offset of the byte after the last line, for ``Follower.taken`` and ``read_to``."""


@dataclass(slots=True)
class _Seen:
    """A file as it was when it was last looked at."""

    identity: str
    size: int
    changed_at: int
    """Nanoseconds."""


@dataclass(slots=True)
class FollowStatus:
    """Facts for metrics: lines too long to be entries, and what went wrong last."""

    oversized: int = 0
    problem: str = ""
    files: int = 0


class Follower:
    """
    Reads what is new: ``read`` as often as wanted, ``taken`` on the way, ``read_to`` and ``keep`` once it is recorded.

    Files of the directory count whose names end with .json, .jsonl or .log, or continue such a name (``a.json.1``,
    ``a.json-20260131.gz``). Raises OSError from ``read`` when the directory cannot be read.
    """

    def __init__(self, directory: Path, positions: Path | None = None) -> None:
        """Raises ValueError when the positions are there but cannot be understood."""
        self._directory = directory
        self._positions = positions or directory / POSITIONS
        self._done, self.was_clean = _read_positions(self._positions)
        """How far each log is safely recorded."""
        self._at: dict[str, int] = dict(self._done)
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._kept: tuple[dict[str, int], bool] | None = None
        self._through: dict[str, int] = {}
        """Compressed files that were read to their end, and their size then."""
        self.status = FollowStatus()

    def read(self) -> Iterator[Lines]:
        """Yield new whole lines, the oldest file first, in pieces of a bounded size."""
        logs = self._logs()
        self.status.files = len(logs)
        for identity, path in logs:
            try:
                with _opened(path) as opened:
                    yield from self._lines(identity, opened)
                if path.suffix == ".gz":
                    self._through[str(path)] = path.stat().st_size
            except (OSError, EOFError, zlib.error) as error:  # rotated away or still being compressed: next time
                self.status.problem = f"{path.name}: {error}"

    def behind(self) -> int:
        """Count the bytes not yet taken in the files as they are now; compressed files are not counted."""
        waiting = 0
        for (name, _), seen in self._seen.items():
            if not name.endswith(".gz"):
                with contextlib.suppress(OSError):  # renamed since the last look: found again at the next
                    size = (self._directory / name).stat().st_size
                    waiting += max(0, size - self._at.get(seen.identity, 0))
        return waiting

    def taken(self, log: str, end: int) -> None:
        """Reading goes on from here until the process ends: the lines before were taken over."""
        self._at[log] = end

    def read_to(self, log: str, end: int) -> None:
        """The lines before are safely recorded."""
        self._done[log] = max(self._done.get(log, 0), end)

    def keep(self, *, clean: bool = False) -> None:
        """
        Write the positions, if they changed. ``clean``: nothing was read beyond them. Raises OSError.

        Called before the first line is read, so that the next process knows if this one was killed.
        """
        alive = {seen.identity for seen in self._seen.values()}
        if alive:  # else nothing was looked at yet, or the directory is empty for a moment
            self._done = {log: end for log, end in self._done.items() if log in alive}
        if (self._done, clean) == self._kept:
            return
        temporary = self._positions.with_name(self._positions.name + ".new")
        with open(temporary, "w", encoding="ascii") as opened:
            json.dump({"version": 1, "clean": clean, "read": self._done}, opened)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(self._positions)
        self._kept = (dict(self._done), clean)

    def _logs(self) -> list[tuple[str, Path]]:
        """Files with something new, one for each log, by age."""
        found: dict[str, tuple[float, int, Path]] = {}
        seen: dict[tuple[str, int], _Seen] = {}
        for item in os.scandir(self._directory):
            if not _is_log(item.name) or not item.is_file():
                continue
            status = item.stat()
            key = (item.name, status.st_ino)
            known = self._seen.get(key)
            if known is None or (known.size, known.changed_at) != (status.st_size, status.st_mtime_ns):
                identity = _identity(Path(item.path))
                if not identity:
                    continue
                known = _Seen(identity, status.st_size, status.st_mtime_ns)
            seen[key] = known
            size = status.st_size
            if item.name.endswith(".gz"):
                size = -1  # of two forms of one log the plain one is read; a compressed one does not grow
            better = found.get(known.identity)
            if better is None or size > better[1]:
                found[known.identity] = (status.st_mtime, size, Path(item.path))
        self._seen = seen
        return [
            (identity, path)
            for identity, (_, size, path) in sorted(found.items(), key=lambda pair: pair[1][0])
            if (self._through.get(str(path)) != path.stat().st_size if size < 0 else size > self._at.get(identity, 0))
        ]

    def _lines(self, identity: str, opened: BinaryIO) -> Iterator[Lines]:
        at = self._at.get(identity, 0)
        opened.seek(at)
        rest = b""
        while chunk := opened.read(CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                at += sum(map(len, lines)) + len(lines)
                yield Lines(identity, lines, at)
            if len(rest) > MAX_LINE_BYTES:
                self.status.oversized += 1
                at, rest = self._skip(opened, at + len(rest))
                self._at[identity] = at

    def _skip(self, opened: BinaryIO, at: int) -> tuple[int, bytes]:
        """Skip to the end of a line that is too long."""
        while chunk := opened.read(CHUNK_BYTES):
            begin, found, _ = chunk.partition(b"\n")
            if found:
                opened.seek(at + len(begin) + 1)
                return at + len(begin) + 1, b""
            at += len(chunk)
        return at, b""


def _is_log(name: str) -> bool:
    if name.startswith("."):
        return False
    stem = name
    while stem:
        if stem.endswith(_LOG):
            return True
        cut = max(stem.rfind("."), stem.rfind("-"))
        if cut <= 0:
            return False
        stem = stem[:cut]
    return False


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]  # it reads and seeks as a file does
    return open(path, "rb")


def _identity(path: Path) -> str:
    """
    Digest of the first line; empty while there is no whole line.

    All of it counts, however long: time and id stand at its end, and what comes before may be a client's choice.
    """
    digest = hashlib.sha256()
    try:
        with _opened(path) as opened:
            while piece := opened.read(_PIECE_BYTES):
                first, found, _ = piece.partition(b"\n")
                digest.update(first)
                if found:
                    return digest.hexdigest()[:32]
    except (OSError, EOFError, zlib.error):
        return ""
    return ""


def _read_positions(path: Path) -> tuple[dict[str, int], bool]:
    try:
        told = json.loads(path.read_bytes())
        return {str(log): int(end) for log, end in told["read"].items()}, bool(told.get("clean"))
    except FileNotFoundError:
        return {}, True
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"`{path}` does not hold positions; remove it to read every log from its beginning") from error
