"""Decisions as lines for people, as they are made."""

import asyncio
import json
from pathlib import Path

from rich.console import Console
from rich.text import Text

from authz.audit.record_line import EFFECT_STYLES, render_parts, short_principal, text
from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.core.decision import Stage
from authz.mesh.nouns import Mesh

POLL_SECONDS = 0.1


def callers(mesh: Mesh) -> dict[str, str]:
    """Principal to a name for people: versions of one service share an account, so the application's name."""
    named = {}
    for workload in mesh.workloads:
        principal = str(workload.spiffe_id).removeprefix("spiffe://")
        named[principal] = workload.name if workload.is_gateway else workload.labels.get("app", workload.name)
    return named


def decision_line(record: Record, mesh: Mesh, policies: Path) -> Text:
    """One decision in columns: time, effect, source → destination, request, why."""
    time, effect, _, asked, why, _ = render_parts(record)
    principal = text(read_field(record, "source", "principal"))
    source = callers(mesh).get(principal) or short_principal(principal)
    visitor = text(read_field(record, "token", "subject"))
    to = text(read_field(record, "destination", "workload"))
    why = why.replace(f"({policies}/", f"({policies.name}/")
    line = Text(f"{time:12}  ", style="dim", no_wrap=True)
    line.append(f"{effect:5}  ", style=EFFECT_STYLES.get(effect.strip().lower(), ""))
    nobody = "somebody" if record.get("stage") == Stage.RATE_LIMIT else "anonymous"  # whoever counts is told no token
    line.append(f"{source or visitor or nobody} → {to}".ljust(34) + "  ")
    line.append(f"{asked:30}  ", style="bold")
    line.append(why, style="dim")
    return line


class Tail:
    """New records of a file of JSON lines, which need not exist yet and may be rotated."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._path = path
        self._rest = b""
        try:
            facts = path.stat()
            self._file, self._position = facts.st_ino, 0 if from_start else facts.st_size
        except OSError:
            self._file, self._position = 0, 0

    def read(self) -> list[Record]:
        """Return what has been appended since the last call, oldest first."""
        try:
            facts = self._path.stat()
            if facts.st_ino != self._file or facts.st_size < self._position:
                self._file, self._position, self._rest = facts.st_ino, 0, b""
            if facts.st_size == self._position:
                return []
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [record for line in lines if (record := read_record(line)) is not None]


async def show_decisions(console: Console, audit_log: Path, mesh: Mesh, policies: Path) -> None:
    """Print decisions as they are made, until cancelled."""
    tail = Tail(audit_log)
    while True:
        for record in tail.read():
            console.print(decision_line(record, mesh, policies), soft_wrap=True)
        await asyncio.sleep(POLL_SECONDS)


def read_record(line: bytes) -> Record | None:
    """Read one line of the audit log; None for what is not a record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "decision_id" in record else None
