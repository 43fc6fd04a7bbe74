import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from authz.audit.entry import Entry, encode_record
from authz.audit.file_sink import FileSink, Rotation, compress_file, rotated_files
from authz.audit.query import RecordFilter, Skipped, audit_files, find
from authz.audit.trail import AuditTrail
from authz.audit.writer import build_record
from authz.core.decided import Offer

MakeOffer = Callable[..., Offer]
NEVER = Rotation(0, 0)


def entries(make_offer: MakeOffer, *ids: str, at: float = 1_700_000_000.0) -> Sequence[Entry]:
    records = [build_record(make_offer(decision_id=one, started_at=at)) for one in ids]
    return [Entry(encode_record(record), at) for record in records]


def ids(path: Path) -> list[object]:
    return [found.record["decision_id"] for found in find(audit_files(path), RecordFilter())]


def test_a_file_holds_one_line_a_record(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    sink = FileSink(path)
    sink.write(entries(make_offer, "a", "b"))
    assert [json.loads(line)["decision_id"] for line in path.read_text().splitlines()] == ["a", "b"]
    sink.close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_full_file_is_rotated_and_compressed(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    size = len(entries(make_offer, "0")[0].line) + 1
    sink = FileSink(path, rotation=Rotation(max_bytes=3 * size, max_age_seconds=0))
    for number in range(8):
        sink.write(entries(make_offer, str(number), at=1_700_000_000.0 + number))
    sink.close()
    assert [file.name for file in rotated_files(path)] == [
        "audit.20231114T221323.000000Z.jsonl.gz",
        "audit.20231114T221326.000000Z.jsonl.gz",
    ]
    assert ids(path) == [str(number) for number in range(8)]


def test_an_old_file_is_rotated_even_by_the_next_process(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    rotation = Rotation(max_bytes=0, max_age_seconds=60, compress=False)
    for at, expected in ((0.0, 0), (59.0, 0), (60.0, 1), (61.0, 1), (121.0, 2)):
        sink = FileSink(path, rotation=rotation)
        sink.write(entries(make_offer, f"at-{at}", at=1_700_000_000.0 + at))
        sink.close()
        assert len(rotated_files(path)) == expected
    assert len(ids(path)) == 5


def test_only_as_many_rotated_files_are_kept_as_told(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path, rotation=Rotation(max_bytes=1, keep=2, compress=False))
    for number in range(6):
        sink.write(entries(make_offer, str(number)))
    sink.close()
    assert ids(path) == ["3", "4", "5"]


def test_a_file_moved_away_by_others_is_noticed(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path, rotation=NEVER)
    sink.write(entries(make_offer, "a"))
    path.rename(tmp_path / "elsewhere")
    sink.write(entries(make_offer, "b"))
    path.unlink()
    sink.write(entries(make_offer, "c"))
    sink.close()
    assert ids(path) == ["c"]


def test_half_a_line_of_a_killed_writer_spoils_no_other(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    line = entries(make_offer, "cut")[0].line
    path.write_bytes(line[: len(line) // 2])
    sink = FileSink(path)
    sink.write(entries(make_offer, "whole"))
    sink.close()
    skipped = Skipped()
    assert [f.record["decision_id"] for f in find([path], RecordFilter(), skipped)] == ["whole"]
    assert skipped.places == [f"{path}:1"]


def test_a_batch_that_does_not_fit_on_the_disk_is_taken_back_whole(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path, rotation=NEVER)
    sink.write(entries(make_offer, "a"))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        with pytest.raises(OSError, match="File too large"):
            sink.write(entries(make_offer, "b", "c"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    sink.write(entries(make_offer, "d"))
    sink.close()
    assert ids(path) == ["a", "d"]


def test_writers_of_one_path_neither_mix_lines_nor_lose_any_when_rotating(
    tmp_path: Path, make_offer: MakeOffer
) -> None:
    path = tmp_path / "audit.jsonl"
    sinks = [FileSink(path, rotation=Rotation(max_bytes=20_000, compress=True)) for _ in range(3)]

    def write(number: int) -> None:
        for batch in range(40):
            sinks[number].write(entries(make_offer, f"{number}-{batch}-a", f"{number}-{batch}-b"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in sinks:
        sink.close()
    assert len(rotated_files(path)) > 3
    assert sorted(map(str, ids(path))) == sorted(f"{n}-{b}-{x}" for n in range(3) for b in range(40) for x in "ab")


def test_files_left_uncompressed_by_a_killed_process_are_compressed(tmp_path: Path) -> None:
    left = tmp_path / "audit.20230101T000000.000000Z.jsonl"
    left.write_text('{"decision_id":"old"}\n')
    FileSink(tmp_path / "audit.jsonl").close()
    assert gzip.decompress(left.with_name(f"{left.name}.gz").read_bytes()) == b'{"decision_id":"old"}\n'
    assert not left.exists()


def test_a_file_and_its_compressed_copy_count_once(tmp_path: Path) -> None:
    """Between the two steps of compression both exist."""
    left = tmp_path / "audit.20230101T000000.000000Z.jsonl"
    left.write_text('{"decision_id":"old"}\n')
    compress_file(left)
    left.write_text('{"decision_id":"old"}\n')
    assert ids(tmp_path / "audit.jsonl") == ["old"]


_VICTIM = """
import sys, time
from pathlib import Path
from authz.audit.file_sink import FileSink
from authz.audit.trail import AuditTrail
from authz.core.attributes import AttributeContext, Destination, Source, Workload
from authz.core.decided import Offer
from authz.core.decision import Decision, Effect, Stage

trail = AuditTrail([FileSink(Path(sys.argv[1]))], flush_seconds=float(sys.argv[2]))
attributes = AttributeContext(Source(), Destination(Workload("bookinfo")))
decision = Decision(Effect.ALLOW, Stage.DEFAULT, "")
trail.start()
number = 0
while True:
    trail.record(Offer(attributes, decision, str(number), time.time(), 0.0))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.001)
"""


@pytest.mark.slow
def test_a_killed_process_loses_at_most_the_last_flush_interval(tmp_path: Path) -> None:
    """A real process, a real kill -9: what was offered more than flush_seconds before is in the file."""
    path = tmp_path / "audit.jsonl"
    flush_seconds, slack = 0.1, 0.4  # slack: the scheduler of a loaded machine
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(path), str(flush_seconds)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    try:
        offered = []
        for line in victim.stdout:
            offered.append(line.split())
            if len(offered) == 900:
                break
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        rest = victim.stdout.read().splitlines()
        victim.stdout.close()
        victim.wait()
    offered += [line.split() for line in rest if len(line.split()) == 2]
    kept = {int(str(one)) for one in ids(path)}
    died_at = float(offered[-1][1])
    must = {int(number) for number, at in offered if float(at) < died_at - flush_seconds - slack}
    assert len(must) > 50
    assert must <= kept
    assert kept == set(range(len(kept))), "what is kept has no holes"


def test_an_orderly_end_loses_nothing(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail([FileSink(path, sync=True)], flush_seconds=60)
    trail.start()
    for number in range(1000):
        trail.record(make_offer(decision_id=str(number)))
    assert trail.close()
    assert ids(path) == [str(number) for number in range(1000)]


def test_a_file_without_suffix_is_written_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    FileSink(path).close()
    (tmp_path / "audit.20260101T000000.000000Z").touch()

    assert path.exists()
    assert rotated_files(path) == [tmp_path / "audit.20260101T000000.000000Z"]
