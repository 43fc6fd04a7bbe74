"""Every line once: files that grow, are renamed, copied, truncated, compressed, replaced; and restarts."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.sources.access_logs.follow import MAX_LINE_BYTES, POSITIONS, Follower


class Reader:
    """Reads whatever is new and keeps the position, as the service does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[bytes] = []
        self.follower = Follower(directory)

    def read(self, *, keeps: bool = True) -> list[bytes]:
        new = []
        for piece in self.follower.read():
            new += piece.lines
            self.follower.taken(piece.log, piece.end)
            if keeps:
                self.follower.read_to(piece.log, piece.end)
        self.follower.keep()
        self.lines += new
        return new

    def restart(self) -> None:
        self.follower = Follower(self.directory)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def append(path: Path, *lines: str) -> None:
    with open(path, "ab") as opened:
        opened.write("".join(lines).encode())


def test_only_whole_lines_are_read_and_each_once(reader: Reader) -> None:
    log = reader.directory / "a.json"
    append(log, "one\n", "tw")
    assert reader.read() == [b"one"]
    assert reader.read() == []
    append(log, "o\n")
    assert reader.read() == [b"two"]


def test_a_log_without_a_whole_line_is_waited_for(reader: Reader) -> None:
    append(reader.directory / "a.json", "on")
    assert reader.read() == []
    append(reader.directory / "a.json", "e\n")
    assert reader.read() == [b"one"]


@pytest.mark.parametrize("length", [10, 1 << 16, 1 << 17, MAX_LINE_BYTES + 10])
def test_a_client_that_chooses_the_begin_of_the_first_line_does_not_make_two_logs_one(
    reader: Reader, length: int
) -> None:
    log, chosen = reader.directory / "a.json", "x" * length
    append(log, f"{chosen} at 1\n", "two\n")
    assert reader.read()[-1] == b"two"
    rename(log)
    append(log, f"{chosen} at 2\n", "four\n", "five\n")
    assert reader.read()[-2:] == [b"four", b"five"]


def rename(log: Path) -> None:
    log.rename(log.with_name("a.json.1"))


def rename_and_compress(log: Path) -> None:
    log.with_name("a.json-20260131.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()


def copy_and_truncate(log: Path) -> None:
    log.with_name("a.json.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


ROTATIONS = [rename, rename_and_compress, copy_and_truncate]


@pytest.mark.parametrize("rotate", ROTATIONS)
@pytest.mark.parametrize("is_down", [False, True], ids=["followed", "down"])
def test_a_rotated_log_is_read_to_its_end_and_not_again(
    reader: Reader, rotate: Callable[[Path], None], is_down: bool
) -> None:
    log = reader.directory / "a.json"
    append(log, "one\n", "two\n")
    reader.read()
    append(log, "three\n")
    rotate(log)
    append(log, "four\n", "a longer line than what was there before the rotation\n")
    if is_down:
        reader.restart()
    assert sorted(reader.read()) == [b"a longer line than what was there before the rotation", b"four", b"three"]
    for _ in range(2):
        reader.restart()
        assert reader.read() == []


@pytest.mark.parametrize("is_down", [False, True], ids=["followed", "down"])
def test_an_inode_that_is_used_again_is_another_log(reader: Reader, is_down: bool) -> None:
    log = reader.directory / "a.json"
    append(log, "one\n")
    reader.read()
    with open(log, "r+b") as opened:  # the same file with other content of the same size
        opened.write(b"two\n")
    os.utime(log)
    if is_down:
        reader.restart()
    assert reader.read() == [b"two"]


def test_what_was_not_kept_is_read_again(reader: Reader) -> None:
    append(reader.directory / "a.json", "one\n")
    assert reader.read(keeps=False) == [b"one"]
    assert reader.read() == []
    reader.restart()
    assert reader.read() == [b"one"]


def test_a_stop_is_orderly_only_if_it_says_so(reader: Reader) -> None:
    assert reader.follower.was_clean  # nothing was ever read
    append(reader.directory / "a.json", "one\n")
    reader.read()
    reader.restart()
    assert not reader.follower.was_clean
    reader.follower.keep(clean=True)
    reader.restart()
    assert reader.follower.was_clean


def test_several_logs_are_followed_and_other_files_are_not(reader: Reader) -> None:
    append(reader.directory / "a.json", "a\n")
    append(reader.directory / "b.jsonl.2", "b\n")
    append(reader.directory / "notes.txt", "c\n")
    append(reader.directory / ".hidden.json", "d\n")
    assert sorted(reader.read()) == [b"a", b"b"]


def test_a_line_without_end_is_skipped_and_counted(reader: Reader) -> None:
    log = reader.directory / "a.json"
    append(log, "one\n", "x" * (3 * MAX_LINE_BYTES), "\n", "two\n")
    assert reader.read() == [b"one", b"two"]
    assert reader.follower.status.oversized == 1
    reader.restart()
    assert reader.read() == []


def test_what_waits_is_told(reader: Reader) -> None:
    log = reader.directory / "a.json"
    append(log, "one\n", "rest")
    reader.read()
    assert reader.follower.behind() == 4


def test_positions_that_are_none_are_refused_with_what_to_do(reader: Reader) -> None:
    (reader.directory / POSITIONS).write_text("[]")
    with pytest.raises(ValueError, match="remove it to read every log from its beginning"):
        Follower(reader.directory)


def test_positions_of_logs_that_are_gone_are_forgotten(reader: Reader) -> None:
    append(reader.directory / "a.json", "one\n")
    append(reader.directory / "b.json", "two\n")
    reader.read()
    (reader.directory / "a.json").unlink()
    append(reader.directory / "b.json", "three\n")
    reader.read()
    assert (reader.directory / POSITIONS).read_text().count(": ") == 4  # version, clean, read, and one log
