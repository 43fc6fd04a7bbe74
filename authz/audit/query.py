"""
Reading audit files back: the active one, rotated ones, compressed ones, as one sequence, oldest first.

Broken lines are skipped and counted: a file whose writer was killed must still be readable.
"""

import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from authz.audit.file_sink import rotated_at, rotated_files
from authz.core.attributes import read_field
from authz.core.decided import Record

STDIN = Path("-")
_DECODE = json.JSONDecoder().decode


class FoundRecord(NamedTuple):
    """A record and where it stands."""

    record: Record
    file: Path
    line: int


@dataclass(slots=True)
class Skipped:
    """Lines that were not records; filled while reading."""

    lines: int = 0
    places: list[str] = field(default_factory=list)
    """The first few, ``file:line``."""

    def add(self, file: Path, number: int) -> None:
        """Count a line that is not a record; the first five keep their place."""
        self.note(f"{file}:{number}")

    def note(self, place: str) -> None:
        """The same, for a place that is no line of a file."""
        self.lines += 1
        if len(self.places) < 5:
            self.places.append(place)


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """The conditions that a record must meet; empty fields ask nothing. Times in seconds since the epoch."""

    since: float | None = None
    until: float | None = None
    any_id: str = ""
    """Id of the decision, of its trace, or Envoy's of the request."""
    workload: str = ""
    """``reviews-v2`` or ``reviews-v2.bookinfo``; ``*`` matches anything."""
    principal: str = ""
    """Source principal, with or without ``spiffe://``, whole or with ``*``."""
    effect: str = ""
    """``allow`` or ``deny``."""
    rule: str = ""
    """``policy``, ``namespace/policy``, ``namespace/policy/index`` or the name Istio reports; AUDIT rules and dry-run
    rules count too."""

    def holds(self, record: Record) -> bool:
        """Say whether the record is wanted. Checkpoints of the chain are not records."""
        if "decision_id" not in record:
            return False
        if self.any_id and self.any_id not in (
            record.get(name) for name in ("decision_id", "trace_id", "x_request_id")
        ):
            return False
        if self.effect and record.get("effect") != self.effect:
            return False
        if self.since is not None or self.until is not None:
            at = record_time(record)
            if at is None or (self.since is not None and at < self.since):
                return False
            if self.until is not None and at > self.until:
                return False
        return self._names(record)

    def _names(self, record: Record) -> bool:
        if self.workload:
            destination = [str(read_field(record, "destination", part)) for part in ("workload", "namespace")]
            account = str(read_field(record, "destination", "service_account"))
            names = (destination[0], ".".join(destination), account, f"{account}.{destination[1]}")
            if not any(fnmatchcase(name, self.workload) for name in names):
                return False
        if self.principal:
            principal = str(read_field(record, "source", "principal") or "")
            if not fnmatchcase(principal, self.principal.removeprefix("spiffe://")):
                return False
        return not self.rule or any(fnmatchcase(name, self.rule) for name in rule_names(record))


def rule_names(record: Record) -> Iterator[str]:
    """Name the rules of a record in every form people use."""
    for part in ("rule", "audit_rule"):
        rule = record.get(part)
        if isinstance(rule, dict):
            name, namespace, policy, index = (rule.get(key) for key in ("name", "namespace", "policy", "index"))
            yield from (str(name), str(policy), f"{namespace}/{policy}", f"{namespace}/{policy}/{index}")
    by = record.get("by")
    if isinstance(by, str):
        policy = by.rpartition("/")[0]
        yield from (by, policy, policy.rpartition("/")[2])


def record_time(record: Record) -> float | None:
    """Time of a record in seconds since the epoch; None when it has none."""
    try:
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    except ValueError:
        return None


def audit_files(path: Path) -> list[Path]:
    """Files of a trail, oldest first: of one active file, of every ``*.jsonl`` in a directory, or ``-`` for stdin."""
    if path == STDIN:
        return [path]
    if not path.is_dir():
        return [*rotated_files(path), *([path] if path.exists() else [])]
    active = [file for file in sorted(path.glob("*.jsonl")) if "." not in file.stem]
    return [file for one in active for file in audit_files(one)]


def read_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """
    Read (number from 1, line without newline); empty lines are left out. ``-`` is stdin, compressed or not.

    Raises OSError.
    """
    try:
        with _open(file) as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield number, line.rstrip(b"\n")
    except FileNotFoundError:  # compressed or deleted since it was listed
        packed = file.with_name(f"{file.name}.gz")
        if file.suffix != ".gz" and packed.exists():
            yield from read_lines(packed)
    except EOFError:  # the compressed file was cut short; what could be read was read
        return


def _open(file: Path) -> IO[bytes]:
    if file != STDIN:
        return gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb")  # type: ignore[return-value]  # GzipFile is one
    stream = sys.stdin.buffer
    if not isinstance(stream, io.BufferedReader):
        stream = io.BufferedReader(cast(io.RawIOBase, stream))  # whatever stands in its place can be read
    is_packed = stream.peek(2)[:2] == b"\x1f\x8b"
    return gzip.open(stream, "rb") if is_packed else stream


def read_record(line: bytes) -> Record | None:
    """Parse one line; None when it is not a JSON object."""
    try:
        record = _DECODE(line.decode())  # half the overhead of `json.loads`, which guesses the encoding
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def find(files: Iterable[Path], wanted: RecordFilter, skipped: Skipped | None = None) -> Iterator[FoundRecord]:
    """Find records in files, in the order of the files. Raises OSError for a file that cannot be read."""
    for file in files:
        if wanted.since is not None and _ended_before(file, wanted.since):
            continue
        for number, line in read_lines(file):
            record = read_record(line)
            if record is None:
                if skipped is not None:
                    skipped.add(file, number)
            elif wanted.holds(record):
                yield FoundRecord(record, file, number)


def _ended_before(file: Path, since: float) -> bool:
    """A rotated file is named after its newest record, give or take the order of concurrent decisions."""
    ended = rotated_at(file)
    return ended is not None and ended + 60 < since


class _Tail:
    """One end of a growing file that may be rotated away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: BinaryIO | None = None
        self._rest = b""
        if self._open():
            assert self._opened is not None
            self._opened.seek(0, os.SEEK_END)

    def _open(self) -> bool:
        try:
            following = open(self._path, "rb")  # noqa: SIM115  # lives until the next rotation
        except FileNotFoundError:
            return False
        self.close()
        self._opened, self._rest = following, b""
        return True

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def lines(self) -> list[bytes]:
        """Whole lines that are new; a line being written stays for the next time."""
        if self._opened is None and not self._open():
            return []
        lines = self._read()
        if not lines and self._was_moved():
            lines = self._read()  # what was written between the last look and the move
            self._open()
        return lines

    def _read(self) -> list[bytes]:
        assert self._opened is not None
        *lines, self._rest = (self._rest + self._opened.read()).split(b"\n")
        return lines

    def _was_moved(self) -> bool:
        assert self._opened is not None
        ours = os.fstat(self._opened.fileno())
        try:
            theirs = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)


def follow(path: Path, wanted: RecordFilter, wait: Callable[[], bool]) -> Iterator[Record]:
    """
    Yield records as they are appended after this call, through rotations.

    ``wait`` is called when there is nothing new: it returns after a while, False to end.
    """
    return _follow(_Tail(path), wanted, wait)


def _follow(tail: _Tail, wanted: RecordFilter, wait: Callable[[], bool]) -> Iterator[Record]:
    try:
        while True:
            lines = tail.lines()
            for line in lines:
                record = read_record(line)
                if record is not None and wanted.holds(record):
                    yield record
            if not lines and not wait():
                return
    finally:
        tail.close()
