"""
Following a directory of access logs: read, hand over, wait until the sinks have it, and only then keep the position.

After an orderly stop reading goes on where it ended. A process that was killed may have written records whose position
it did not keep: those are found at the end of the audit file and not written again. Sinks that cannot be read back
(standard output, OTLP) may then get the records of the last half second twice.

Whoever wrote the log may want the processor that reading takes. So where others wait for it, reading lags behind: the
file keeps what was written.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter, thread_time

from authz.audit.query import audit_files, read_record
from authz.core.errors import SettingsError
from authz.service.native.intake import SLICE, Intake, Recorded
from authz.sources.access_logs.follow import CHUNK_BYTES, Follower, Lines

_log = logging.getLogger("authz.native")
POLL_SECONDS = 0.1
KEEP_SECONDS = 0.5
CALM_LINES, CALM_SLICE, CALM_SECONDS = 300, 5, 0.001
"""
Fewer lines than this are all there are, and they are taken a few at a time, with pauses: whoever needs the processor
meanwhile waits for a fifth of a millisecond. There is time: 3,000 requests a second are no more than that.
"""
BUSY = 1.5
"""If work takes this many times its processor time by the clock, others wanted the processor, too."""
LOOK_SECONDS = 0.005
"""Processor time that we work before that is judged."""
PAUSES = 9
"""We leave a busy processor to others for this many times as long as we worked."""
TAIL_BYTES = 64 << 20
"""How much of the audit file is read after a kill: far more than is written between two positions."""


class Following:
    """One directory. ``run`` until cancelled, then ``close``."""

    def __init__(
        self, intake: Intake, directory: Path, positions: Path | None, audit: Iterable[Path], backlog: int = 0
    ) -> None:
        """
        Open a directory.

        Args:
            audit: files of the sinks that can be read back.
            backlog: bytes that may wait while the machine is busy; beyond that, and with 0, reading takes its share.

        Raises:
            SettingsError: it cannot be followed.
        """
        self.directory = directory
        self._backlog = backlog
        self._worked = self._took = 0.0
        self._intake = intake
        try:
            self._follower = Follower(directory, positions)
        except (ValueError, OSError) as error:
            raise SettingsError(f"setting `access_logs`: {error}") from error
        if not directory.is_dir():
            raise SettingsError(f"setting `access_logs`: `{directory}` is not a directory; make Envoy's log directory")
        self._repeated = Recorded() if self._follower.was_clean else recorded_before(audit)
        self._read: dict[str, int] = {}
        """What was handed over since the position was kept."""
        self.problem = ""

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the file that are not yet read."""
        return self._follower.behind()

    @property
    def is_behind(self) -> bool:
        """Whether more waits than may while others need the processor."""
        return self._follower.behind() >= self._backlog

    async def run(self) -> None:
        """Follow for ever. Trouble is logged and the reading retried; nothing is skipped because of it."""
        loop = asyncio.get_running_loop()
        kept_at = loop.time()
        first = True
        while True:
            try:
                if first:
                    self._follower.keep()
                has_read = False
                for lines in self._follower.read():
                    await self._take(lines)
                    has_read = True
                    if loop.time() - kept_at > KEEP_SECONDS:
                        await self._keep()
                        kept_at = loop.time()
                if first:
                    self._repeated, first = Recorded(), False
                if loop.time() - kept_at > KEEP_SECONDS:
                    await self._keep()
                    kept_at = loop.time()
                self._say("")
                if not has_read:
                    await asyncio.sleep(POLL_SECONDS)
            except OSError as error:
                self._say(f"{error.filename or self.directory}: {error.strerror or error}")
                await asyncio.sleep(KEEP_SECONDS)

    async def _take(self, lines: Lines) -> None:
        """Hand over slice by slice; wherever this is cancelled, the position is that of what was handed over."""
        length = sum(map(len, lines.lines)) + len(lines.lines)
        at = lines.end - length
        is_calm = len(lines.lines) < CALM_LINES and length < CHUNK_BYTES // 2  # else more may be waiting behind them
        size = CALM_SLICE if is_calm else SLICE
        for begin in range(0, len(lines.lines), size):
            await self._intake.room()
            piece = lines.lines[begin : begin + size]
            began, cpu = perf_counter(), thread_time()
            self._intake.take_lines(piece, self._repeated)
            self._worked += thread_time() - cpu
            self._took += perf_counter() - began
            at += sum(map(len, piece)) + len(piece)
            self._read[lines.log] = at
            self._follower.taken(lines.log, at)
            if self._worked > LOOK_SECONDS:
                await self._give_way()
            if is_calm:
                await asyncio.sleep(CALM_SECONDS)

    async def _give_way(self) -> None:
        """Pause if the clock shows that others waited for the processor, unless too much waits here."""
        worked, is_busy = self._worked, self._took > BUSY * self._worked
        self._worked = self._took = 0.0
        if is_busy and not self.is_behind:
            await asyncio.sleep(PAUSES * worked)

    async def close(self) -> None:
        """Keep the position of what was handed over. The trail must still be open."""
        with contextlib.suppress(OSError):
            await self._keep(clean=True)

    async def _keep(self, *, clean: bool = False) -> None:
        if (self._read or clean) and await self._intake.flushed():
            for log, end in self._read.items():
                self._follower.read_to(log, end)
            self._read.clear()
            self._follower.keep(clean=clean)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            if problem:
                _log.error("access logs cannot be followed: %s", problem)
            else:
                _log.warning("access logs are followed again")
            self.problem = problem


def recorded_before(audit: Iterable[Path]) -> Recorded:
    """What stands at the end of audit files, the newest rotated one included. An unreadable file has nothing."""
    found = Recorded()
    for path in audit:
        for file in audit_files(path)[-2:]:
            if file.suffix == ".gz":
                continue
            with contextlib.suppress(OSError), open(file, "rb") as opened:
                size = opened.seek(0, 2)
                opened.seek(max(0, size - TAIL_BYTES))
                for line in opened:
                    record = read_record(line)
                    if record is not None and "decision_id" in record:
                        found[str(record["decision_id"]), str(record.get("time"))] += 1
    return found
