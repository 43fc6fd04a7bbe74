"""The record of one authority, sent to where all of them are: late if need be, and never twice."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from authz.identity.ledger import LEDGER_FILE, read_line
from authz.identity.registrar import Issuance
from authz.identity.secret_files import write_file
from authz.truth.truth_bucket import TruthBucket
from authz.truth.truth_client import TruthChanged

SENT_FILE = "issued.sent"
"""How far the local record was sent: the file's number and a position in it."""
MOST_LINES = 500
"""In one go, so that other things get their turn after a long time without the truth."""


class LedgerSender:
    """Lines are sent in order. The local file stays what it is."""

    def __init__(self, directory: Path, name: str, bucket: TruthBucket) -> None:
        """``name``: of this authority."""
        self._file = directory / LEDGER_FILE
        self._sent = directory / SENT_FILE
        self._name = name
        self._bucket = bucket

    def send(self) -> bool:
        """Send what is new, and say whether there is more. Raises TruthAway, TruthRefused, OSError."""
        inode, position = self._position()
        former = self._file.with_suffix(f"{self._file.suffix}.1")
        if former.exists() and former.stat().st_ino == inode:  # put aside before all of it was sent
            position, has_more = self._send_from(former, position)
            if has_more or not self._file.exists():
                self._note(inode, position)
                return has_more
            inode, position = self._file.stat().st_ino, 0
            self._note(inode, position)
        if not self._file.exists():
            return False
        if self._file.stat().st_ino != inode:
            inode, position = self._file.stat().st_ino, 0
        after, has_more = self._send_from(self._file, position)
        if after != position:
            self._note(inode, after)
        return has_more

    def _send_from(self, file: Path, position: int) -> tuple[int, bool]:
        with file.open("rb") as opened:
            opened.seek(position)
            for _ in range(MOST_LINES):
                line = opened.readline()
                if not line.endswith(b"\n"):  # the end, or somebody is writing
                    return position, False
                key = f"{self._name}.{hashlib.sha256(line).hexdigest()[:32]}"
                with suppress(TruthChanged):  # it is there already
                    self._bucket.create(key, line.rstrip())
                position = opened.tell()
        return position, True

    def _position(self) -> tuple[int, int]:
        try:
            found = json.loads(self._sent.read_bytes())
            return int(found["file"]), int(found["position"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0

    def _note(self, inode: int, position: int) -> None:
        write_file(self._sent, json.dumps({"file": inode, "position": position}).encode() + b"\n")


def read_common_ledger(bucket: TruthBucket) -> Iterator[Issuance]:
    """Everything that any authority recorded, oldest first. Raises TruthAway, TruthRefused."""
    found = (read_line(entry.value.decode(errors="replace")) for entry in bucket.entries().values())
    yield from sorted((one for one in found if one is not None), key=lambda one: one.time)
