"""
A spool: lines that wait in files until somebody has them, as long as there is room.

    DIR/0.lock                  held by the process that writes 0.*.jsonl
    DIR/0.00000017.jsonl        lines, the oldest file first

What a process that was killed left is taken over by the next one that finds it. One thread appends, another takes.
"""

import errno
import fcntl
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from authz.audit.file_sink import write_fully

SEGMENT_BYTES = 4 << 20
"""After which another file is begun, so that what is delivered can go."""
TAKEN_BYTES = 1 << 20
"""The most that is taken at once."""
_SEGMENT = re.compile(r"(\d+)\.(\d{8,})\.jsonl")
_MODE = 0o640


@dataclass(slots=True, eq=False)
class _Segment:
    file: Path
    size: int = 0
    delivered: int = 0
    uncertain: int = 0
    """Lines that begin before this offset may have been delivered."""


@dataclass(frozen=True, slots=True)
class SpooledLines:
    """Lines to be delivered; ``Spool.delivered`` or ``Spool.failed`` says what became of them."""

    lines: tuple[bytes, ...]
    again: int
    """So many of the first ones may have been delivered before."""
    segment: _Segment
    end: int


class Spool:
    """Lines of this process in a directory that several may share. Every method may raise OSError."""

    def __init__(self, directory: Path, max_bytes: int, *, sync: bool = False) -> None:
        """
        Take over what the last process left; ``sync`` waits for the disk at every append.

        Raises:
            OSError: the directory cannot be written.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._sync = sync
        self._lock = threading.Lock()
        self._segments: deque[_Segment] = deque()
        """The oldest first; the last one is written where ``_descriptor`` is one."""
        self._descriptor = -1
        directory.mkdir(parents=True, exist_ok=True)
        self._slot, self._held = self._take_slot()
        found = sorted(_segments(directory, self._slot))
        self._number = found[-1][0] if found else 0
        self._segments.extend(one for _, file in found if (one := _left(file)) is not None)

    @property
    def waiting_bytes(self) -> int:
        """What waits to be delivered."""
        with self._lock:
            return self._waiting()

    def append(self, data: bytes) -> None:
        """Add whole lines. Raises OSError, and nothing was added, when there is no room."""
        with self._lock:
            if self._waiting() + len(data) > self._max_bytes:
                raise OSError(errno.ENOSPC, "the spool is full, and what it keeps cannot be delivered")
            if self._descriptor < 0 or self._segments[-1].size >= SEGMENT_BYTES:
                self._begin_segment()
            segment = self._segments[-1]
            try:
                write_fully(self._descriptor, data)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, segment.size)
                raise
            segment.size += len(data)
            if self._sync:
                os.fdatasync(self._descriptor)

    def take(self, most: int) -> SpooledLines | None:
        """The oldest lines that wait, at most so many; None when none do."""
        with self._lock:
            segment = next((one for one in self._segments if one.delivered < one.size), None)
            if segment is None:
                return None
            begin, size = segment.delivered, segment.size
        with open(segment.file, "rb") as opened:
            opened.seek(begin)
            data = opened.read(min(TAKEN_BYTES, size - begin))
            if b"\n" not in data:
                data += opened.readline()
        lines, again, end = [], 0, begin
        for line in data.split(b"\n")[:-1][:most]:
            again += end < segment.uncertain
            lines.append(line)
            end += len(line) + 1
        return SpooledLines(tuple(lines), again, segment, end)

    def delivered(self, taken: SpooledLines) -> None:
        """These lines need not be kept any longer."""
        with self._lock:
            segment = taken.segment
            segment.delivered = taken.end
            if segment.delivered < segment.size:
                return
            if self._descriptor >= 0 and segment is self._segments[-1]:
                os.ftruncate(self._descriptor, 0)
                segment.size = segment.delivered = segment.uncertain = 0
            else:
                self._segments.remove(segment)
                segment.file.unlink(missing_ok=True)

    def failed(self, taken: SpooledLines) -> None:
        """These lines are to be delivered again; nobody knows which of them were."""
        with self._lock:
            taken.segment.uncertain = max(taken.segment.uncertain, taken.end)

    def adopt(self) -> bool:
        """Take over one file of a process that has ended; whether there was one."""
        for slot in sorted({slot for slot, _, _ in _all_segments(self._directory)} - {self._slot}):
            with _held(self._directory / f"{slot}.lock") as is_held:
                if not is_held:
                    continue
                for _, file in sorted(_segments(self._directory, slot)):
                    with self._lock:
                        self._number += 1
                        segment = _left(file.rename(self._directory / f"{self._slot}.{self._number:08}.jsonl"))
                        if segment is not None:
                            self._segments.appendleft(segment)
                            return True
        return False

    def close(self) -> None:
        """Leave what waits to the next process."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
                if not self._segments[-1].size:
                    self._segments.pop().file.unlink(missing_ok=True)
            os.close(self._held)

    def _waiting(self) -> int:
        return sum(one.size - one.delivered for one in self._segments)

    def _begin_segment(self) -> None:
        self._number += 1
        file = self._directory / f"{self._slot}.{self._number:08}.jsonl"
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _MODE)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = opened
        self._segments.append(_Segment(file))

    def _take_slot(self) -> tuple[int, int]:
        for slot in range(1024):
            held = _lock(self._directory / f"{slot}.lock")
            if held >= 0:
                return slot, held
        raise OSError(errno.EMFILE, "more than 1,024 processes write there")


def _left(file: Path) -> _Segment | None:
    """What a process left; half a line at the end is none."""
    whole = file.read_bytes().rfind(b"\n") + 1
    if whole:
        return _Segment(file, whole, uncertain=whole)
    file.unlink()
    return None


def _lock(file: Path) -> int:
    """An open file that nobody else has locked; -1 when somebody has."""
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        return -1
    return opened


@contextmanager
def _held(file: Path) -> Iterator[bool]:
    held = _lock(file)
    try:
        yield held >= 0
    finally:
        if held >= 0:
            os.close(held)


def _all_segments(directory: Path) -> Iterator[tuple[int, int, Path]]:
    """(slot, number, file) of everything there."""
    for file in directory.iterdir():
        if (named := _SEGMENT.fullmatch(file.name)) is not None:
            yield int(named[1]), int(named[2]), file


def _segments(directory: Path, slot: int) -> Iterator[tuple[int, Path]]:
    return ((number, file) for one, number, file in _all_segments(directory) if one == slot)
