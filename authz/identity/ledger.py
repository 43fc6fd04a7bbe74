"""
The record of what was issued and refused: one JSON line each, public facts only.

``rotation check`` compares it with what proxies serve; people read it to see who got or wanted what.
"""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from authz.identity.registrar import Issuance

LEDGER_FILE = "issued.jsonl"
MAX_BYTES = 16 << 20
"""A larger file is put aside, and only one older file is kept."""


@dataclass(slots=True)
class Ledger:
    """Appends to a file. Several processes may do so: each line is one write."""

    path: Path

    def record(self, issuance: Issuance) -> None:
        """Append one line. Raises OSError, also when a full disk took a part of it, which then costs no other line."""
        line = json.dumps(asdict(issuance) | {"serial": f"{issuance.serial:x}"}, separators=(",", ":"))
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + line.encode() + b"\n"
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            size += len(data)
        finally:
            os.close(descriptor)
        if size > MAX_BYTES:
            self._rotate()

    def read(self) -> Iterator[Issuance]:
        """Everything recorded, oldest first; a line that cannot be read is left out (a process may have died in it)."""
        for path in (self._previous, self.path):
            if not path.exists():
                continue
            for line in path.read_text().splitlines():
                issuance = read_line(line)
                if issuance is not None:
                    yield issuance

    @property
    def _previous(self) -> Path:
        return self.path.with_suffix(f"{self.path.suffix}.1")

    def _rotate(self) -> None:
        """Keep one older file. A writer that still has the old one open only adds to that one."""
        self.path.rename(self._previous)


def read_line(line: str) -> Issuance | None:
    """One recorded line; None if it cannot be read."""
    try:
        fields = json.loads(line)
        read = {"serial": int(fields["serial"], 16), "audience": tuple(fields.get("audience", ()))}
        return Issuance(**(fields | read))
    except (ValueError, TypeError, KeyError):
        return None
