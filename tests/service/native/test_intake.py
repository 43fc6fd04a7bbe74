"""From lines to the trail: whatever a line does to its reader, those behind it are recorded."""

import json
from pathlib import Path

import pytest

from authz.service.native.intake import Intake
from authz.wire.access_line import LineReader
from authz.wire.access_log import LogEntry
from tests.service.native.test_gaps import Trail
from tests.service.native.test_judge import engine, entry, rule


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def intake(trail: Trail, tmp_path: Path) -> Intake:
    intake = Intake(trail)
    intake.judge.replace(engine(tmp_path), 0.0)
    return intake


def test_a_line_that_is_nothing_but_brackets_stops_nothing(intake: Intake, trail: Trail) -> None:
    intake.take_lines([b"[" * 100_000, b'{"a":' * 20_000, entry("/ok/1", allowed_by=rule("some"))])
    assert len(trail.entries) == 1
    assert intake.results == {("file", "unreadable"): 2, ("file", "recorded"): 1}


def test_a_mistake_of_our_own_in_reading_is_noted_and_stops_nothing(
    intake: Intake, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LineReader.read

    def mistaken(reader: LineReader, line: bytes) -> LogEntry:
        if line == b"odd":
            raise RuntimeError("secret")
        return read(reader, line)

    monkeypatch.setattr(LineReader, "read", mistaken)
    intake.take_lines([b"odd", entry("/ok/1", allowed_by=rule("some"))])
    assert len(trail.entries) == 1
    assert intake.results == {("file", "failed"): 1, ("file", "recorded"): 1}
    assert [json.loads(note.line)["event"] for note in trail.notes] == ["access-log-failed"]
    assert b"secret" not in trail.notes[0].line
