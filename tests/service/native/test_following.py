"""Reading leaves a busy processor to others, and still reads everything."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.service.native import following
from authz.service.native.following import CALM_LINES, CALM_SECONDS, PAUSES, Following
from authz.service.native.intake import Intake
from authz.sources.access_logs.follow import CHUNK_BYTES
from tests.service.native.test_gaps import Trail
from tests.service.native.test_judge import engine, entry, rule

WORK_SECONDS = 0.01
"""What one slice costs by the clocks of these tests."""


async def rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, busy: bool, backlog: int, longer: int = 0
) -> list[float]:
    """How long reading so many lines rested, each time; zeros left out. ``longer``: bytes of each path."""
    logs = tmp_path / "logs"
    logs.mkdir()
    lines = [entry(f"/ok/{index}{'x' * longer}", allowed_by=rule("some")) for index in range(number)]
    (logs / "p.json").write_bytes(b"\n".join([*lines, b""]))
    trail = Trail()
    intake = Intake(trail, 0.0)
    intake.judge.replace(engine(tmp_path), 0.0)
    slept: list[float] = []
    sleep = asyncio.sleep

    async def rest(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(following, "thread_time", clock(WORK_SECONDS))
    monkeypatch.setattr(following, "perf_counter", clock(WORK_SECONDS * (2 if busy else 1)))
    monkeypatch.setattr(asyncio, "sleep", rest)
    followed = Following(intake, logs, None, (), backlog)
    task = asyncio.create_task(followed.run())
    while followed.waiting_bytes or not trail.entries:
        await sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(trail.entries) == number
    return [seconds for seconds in slept if seconds and seconds != following.POLL_SECONDS]


def clock(step: float) -> Callable[[], float]:
    """A clock that goes on by ``step`` from each odd question to the next."""
    asked = 0

    def now() -> float:
        nonlocal asked
        asked += 1
        return asked // 2 * step

    return now


async def test_a_busy_processor_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = await rests(tmp_path, monkeypatch, CALM_LINES, busy=True, backlog=1 << 30)
    assert slept
    assert slept == pytest.approx([PAUSES * WORK_SECONDS] * len(slept))


async def test_a_free_processor_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await rests(tmp_path, monkeypatch, CALM_LINES, busy=False, backlog=1 << 30) == []


async def test_with_too_much_to_read_reading_takes_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await rests(tmp_path, monkeypatch, CALM_LINES, busy=True, backlog=0) == []


async def test_a_few_lines_are_read_with_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = await rests(tmp_path, monkeypatch, 20, busy=False, backlog=1 << 30)
    assert slept == [CALM_SECONDS] * 4


async def test_a_piece_of_few_but_long_lines_is_read_without_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends where the piece does, not where the log does: more may wait behind it."""
    longer = CHUNK_BYTES // 200
    assert await rests(tmp_path, monkeypatch, 150, busy=False, backlog=1 << 30, longer=longer) == []
    assert CALM_LINES > 150
