"""
The file sink: JSON lines with rotation by size and age, compression, and optional tamper evidence.

    audit.jsonl                                  being written
    audit.20260131T120000.000000Z.jsonl.gz       rotated at that time, the newest record's

Several processes may write to one path: a batch is one appending write under a lock, and a file that was moved away is
noticed before the next batch. A batch is written whole or, when the disk is full, not at all.
Compression runs in a thread of its own, so that the queue never waits for it.
"""

import contextlib
import fcntl
import gzip
import json
import logging
import os
import queue
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from authz.audit.chain import Chain
from authz.audit.entry import Entry
from authz.audit.request_fields import rfc3339

_log = logging.getLogger("authz.audit")
_STAMP = re.compile(r"\.(\d{8}T\d{6}\.\d{6})Z\.[^.]*(\.gz)?$")


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is put aside, and how many are kept. Zero means never, or all."""

    max_bytes: int = 100_000_000
    max_age_seconds: float = 86_400.0
    keep: int = 0
    """
    Rotated files kept; the oldest beyond that number are deleted. 0 keeps all: an audit trail is not ours to throw
    away.
    """
    compress: bool = True


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all of ``data``. This is nearly always one system call, so that lines of several processes stay whole."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def rotated_files(path: Path) -> list[Path]:
    """Rotated files of ``path``, oldest first; a file and its compressed copy count once."""
    found = [
        file
        for file in path.parent.glob(f"{glob_escape(path.stem)}.*")  # without the suffix, which may be empty
        if file.name.endswith((path.suffix, f"{path.suffix}.gz")) and file != path
    ]
    names = {file.name for file in found}
    return sorted(file for file in found if file.suffix != ".gz" or file.name.removesuffix(".gz") not in names)


def glob_escape(text: str) -> str:
    """Make ``text`` match itself in a glob pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


class FileSink:
    """JSON lines in ``path``. Only the audit writer calls it; it opens the file at once, so that errors show early."""

    def __init__(
        self,
        path: Path,
        *,
        rotation: Rotation = Rotation(),
        chain: Chain | None = None,
        sync: bool = False,
        mode: int = 0o640,
    ) -> None:
        """
        Open the file, making its directory.

        ``sync`` waits for the disk after every batch, so that a lost machine loses no more than a killed process.

        Raises:
            OSError: when it cannot be opened for writing.
        """
        self.name = f"file:{path}"
        self.problem = ""
        self._path = path
        self._rotation = rotation
        self._chain = chain
        self._sync = sync
        self._mode = mode
        self._newest = 0.0
        self._compressor = _Compressor()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        self._descriptor = -1
        with self._locked():
            self._open()
        if rotation.compress:
            for file in rotated_files(path):  # left over by a process that was killed
                self._compressor.add(file)

    def write(self, entries: Sequence[Entry]) -> None:
        """Append a batch, rotating first when it is time. Raises OSError with nothing written."""
        self._newest = max(self._newest, entries[-1].at)
        with self._locked():
            self._reopen_if_moved()
            if self._is_due(sum(len(entry.line) + 1 for entry in entries)):
                self._rotate()
            chain = self._chain
            if chain is None:
                self._append(b"\n".join([*(entry.line for entry in entries), b""]))
                return
            mark = chain.mark()
            lines = []
            for entry in entries:
                lines.append(chain.link(entry.line))
                if chain.wants_seal():
                    lines.append(chain.seal(entry.at) or b"")
            try:
                self._append(b"\n".join([*lines, b""]))
            except OSError:
                chain.reset(mark)
                raise

    def reopen(self) -> None:
        """Open the file at its path, which may be a new one; the chain goes on. Raises OSError, and nothing changed."""
        with self._locked():
            self._open()

    def close(self) -> None:
        """Seal the chain, wait for compression, close."""
        last = self._chain.seal(self._newest, is_final=True) if self._chain else None
        if last:
            with self._locked():
                self._reopen_if_moved()
                self._append(last + b"\n")
        self._compressor.close()
        os.close(self._descriptor)
        os.close(self._lock)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, self._mode)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        self._began = 0.0
        if size:
            self._began = _first_time(os.pread(descriptor, 4096, 0)) or os.fstat(descriptor).st_mtime

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":  # a writer was killed in the middle of a line
            data = b"\n" + data
        try:
            write_fully(self._descriptor, data)
        except OSError:
            with contextlib.suppress(OSError):  # a pipe has nothing to take back
                os.ftruncate(self._descriptor, size)
            raise
        if not self._began:
            self._began = self._newest
        if self._sync:
            os.fdatasync(self._descriptor)

    def _reopen_if_moved(self) -> None:
        ours = os.fstat(self._descriptor)
        try:
            theirs = os.stat(self._path)
        except FileNotFoundError:
            self._open()
            return
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            self._open()

    def _is_due(self, more: int) -> bool:
        size = os.fstat(self._descriptor).st_size
        if not size:
            return False
        rotation = self._rotation
        is_full = bool(rotation.max_bytes) and size + more > rotation.max_bytes
        is_old = bool(rotation.max_age_seconds) and self._newest - self._began >= rotation.max_age_seconds
        return is_full or (is_old and bool(self._began))

    def _rotate(self) -> None:
        aside = self._aside()
        os.rename(self._path, aside)
        self._open()
        if self._rotation.compress:
            self._compressor.add(aside)
        if self._rotation.keep:
            for file in rotated_files(self._path)[: -self._rotation.keep]:
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()

    def _aside(self) -> Path:
        """Name of the newest record's time, and after every name before: names sort as the files were written."""
        last = max((rotated_at(file) or 0.0 for file in rotated_files(self._path)), default=0.0)
        stamp = rfc3339(max(self._newest, last + 2e-6)).replace("-", "").replace(":", "")
        return self._path.with_name(f"{self._path.stem}.{stamp}{self._path.suffix}")


def rotated_at(file: Path) -> float | None:
    """Time in the name of a rotated file, seconds since the epoch; None for other files."""
    match = _STAMP.search(file.name)
    return datetime.strptime(f"{match[1]}+0000", "%Y%m%dT%H%M%S.%f%z").timestamp() if match else None


def _first_time(head: bytes) -> float | None:
    """Time of the first record of a file."""
    try:
        time = json.loads(head.split(b"\n", 1)[0])["time"]
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, KeyError, TypeError):
        return None


class _Compressor:
    """Compresses files one after the other in a thread that exists only while there is something to do."""

    def __init__(self) -> None:
        self._files: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, file: Path) -> None:
        if file.suffix == ".gz":
            return
        with self._lock:
            self._files.put(file)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="authz-audit-gzip", daemon=True)
                self._thread.start()

    def close(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(30)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._files.empty():
                    self._thread = None
                    return
                file = self._files.get_nowait()
            try:
                compress_file(file)
            except FileNotFoundError:
                pass  # another process compressed it, or retention deleted it
            except OSError as error:
                _log.error("%s could not be compressed and stays as it is: %s", file, error)


def compress_file(file: Path) -> None:
    """Replace ``file`` by ``file.gz``; a reader finds one of the two at any time. Raises OSError."""
    target = file.with_name(f"{file.name}.gz")
    working = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(file, "rb") as source, open(working, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, 0) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)
        shutil.copymode(file, working)
        os.rename(working, target)
        file.unlink()
    finally:
        working.unlink(missing_ok=True)
