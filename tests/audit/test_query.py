import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.audit.chain import Chain
from authz.audit.entry import Entry, encode_record
from authz.audit.file_sink import FileSink, Rotation
from authz.audit.query import RecordFilter, audit_files, find, follow
from authz.audit.writer import build_record
from authz.cli.audit import audit, parse_time
from authz.core.decided import Offer, Record, TraceIds
from authz.core.decision import Decision
from authz.core.explain import PredicateNote, RuleNote
from authz.core.resources import Action

MakeOffer = Callable[..., Offer]
BEGIN = 1_700_000_000.0


@pytest.fixture
def record(make_offer: MakeOffer) -> Record:
    return build_record(make_offer())


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({}, True),
        ({"any_id": "d-1"}, True),
        ({"any_id": "abd51d17-12f1-9d0a-9ce4-000000000000"}, True),
        ({"any_id": "d"}, False),
        ({"effect": "deny"}, True),
        ({"effect": "allow"}, False),
        ({"workload": "reviews-v2"}, True),
        ({"workload": "reviews-v2.bookinfo"}, True),
        ({"workload": "reviews"}, True),
        ({"workload": "reviews-*"}, True),
        ({"workload": "ratings"}, False),
        ({"principal": "cluster.local/ns/bookinfo/sa/productpage"}, True),
        ({"principal": "spiffe://cluster.local/ns/bookinfo/sa/productpage"}, True),
        ({"principal": "*/sa/productpage"}, True),
        ({"principal": "productpage"}, False),
        ({"rule": "deny-ratings"}, True),
        ({"rule": "bookinfo/deny-ratings"}, True),
        ({"rule": "bookinfo/deny-ratings/0"}, True),
        ({"rule": "ns[[]bookinfo]-policy[[]deny-ratings]-rule[[]0]"}, True),
        ({"rule": "bookinfo/deny-ratings/1"}, False),
        ({"since": BEGIN}, True),
        ({"since": BEGIN + 1}, False),
        ({"until": BEGIN + 1}, True),
        ({"until": BEGIN}, False),
        ({"effect": "deny", "workload": "other"}, False),
    ],
)
def test_a_filter_asks_for_all_that_it_names(record: Record, wanted: dict[str, Any], holds: bool) -> None:
    assert RecordFilter(**wanted).holds(record) is holds


@pytest.mark.parametrize("field", ["audit_rule", "by"])
def test_audit_and_dry_run_rules_are_found_too(record: Record, field: str) -> None:
    found = {**record, "rule": None, field: record["rule"] if field == "audit_rule" else "bookinfo/deny-ratings/0"}
    for rule in ("deny-ratings", "bookinfo/deny-ratings", "bookinfo/deny-ratings/0"):
        assert RecordFilter(rule=rule).holds(found)


@pytest.mark.parametrize("other", [{}, {"checkpoint": {}}, {"decision_id": "x", "time": "yesterday"}])
def test_what_is_no_record_is_no_answer(other: Record) -> None:
    assert not RecordFilter(since=0.0).holds(other)


def written(path: Path, make_offer: MakeOffer, count: int, **changes: Any) -> None:
    """Write ``count`` records a second apart, four a file."""
    sink = FileSink(path, rotation=Rotation(max_age_seconds=4))
    for number in range(count):
        at = BEGIN + number
        record = build_record(make_offer(decision_id=f"d-{number}", started_at=at, **changes))
        sink.write([Entry(encode_record(record), at)])
    sink.close()


def test_files_are_read_as_one_sequence_compressed_or_not(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, make_offer, 10)
    names = [file.suffix for file in audit_files(path)]
    assert names == [".gz", ".gz", ".jsonl"]
    assert audit_files(tmp_path) == audit_files(path)
    found = [f.record["decision_id"] for f in find(audit_files(path), RecordFilter(since=BEGIN + 2, until=BEGIN + 8))]
    assert found == [f"d-{n}" for n in range(2, 9)]


def test_files_that_ended_long_before_are_not_opened(tmp_path: Path) -> None:
    old = tmp_path / "audit.20200101T000000.000000Z.jsonl.gz"
    old.write_bytes(b"this is not gzip")
    assert list(find([old], RecordFilter(since=BEGIN))) == []
    with pytest.raises(OSError, match="gzip"):
        list(find([old], RecordFilter()))


def test_a_compressed_file_that_was_cut_gives_what_it_holds(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"decision_id":"%d","x":"%x"}\n' % (n, n * 7919**9) for n in range(3000)))
    cut = tmp_path / "audit.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert len(list(find([cut], RecordFilter()))) > 100


def test_following_shows_what_is_appended_through_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"decision_id":"old"}\n')

    def append(text: str) -> Callable[[], None]:
        def act() -> None:
            with path.open("a") as opened:
                opened.write(text)

        return act

    def rotate() -> None:
        append('{"decision_id":"late"}\n')()
        path.rename(tmp_path / "audit.20230101T000000.000000Z.jsonl")
        path.write_text('{"decision_id":"next"}\n')

    steps: list[Callable[[], None]] = [
        append('{"decision_id":"a"}\n{"decis'),
        append('ion_id":"b"}\nbroken\n'),
        rotate,
        lambda: None,
    ]

    def wait() -> bool:
        if not steps:
            return False
        steps.pop(0)()
        return True

    assert [r["decision_id"] for r in follow(path, RecordFilter(), wait)] == ["a", "b", "late", "next"]


def test_following_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    steps = [lambda: path.write_text('{"decision_id":"first"}\n')]

    def wait() -> bool:
        return bool(steps and steps.pop()())

    assert [r["decision_id"] for r in follow(path, RecordFilter(), wait)] == ["first"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", BEGIN - 600),
        ("1h30m", BEGIN - 5400),
        ("2d", BEGIN - 172_800),
        ("500ms", BEGIN - 0.5),
        ("2023-11-14T22:13:20Z", BEGIN),
        ("2023-11-14T23:13:20+01:00", BEGIN),
    ],
)
def test_times_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_time(text, BEGIN) == seconds


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(audit, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def at_a_terminal(columns: int, *arguments: object) -> str:
    """What people see on a terminal so broad."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "authz", "audit", *map(str, arguments)]
    with (
        os.fdopen(ours, "rb", buffering=0) as screen,
        subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment),
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal ends with its last program
            while piece := screen.read(4096):
                shown += piece
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_nothing_is_cut_above_all_not_the_id(tmp_path: Path, make_offer: MakeOffer, columns: int) -> None:
    path = tmp_path / "audit.jsonl"
    decision_id = "6b01b82dfc1bfa0000000d32"
    offer = make_offer(decision_id=decision_id, http={"path": "/reviews/1"})
    path.write_bytes(encode_record(build_record(offer)) + b"\n")
    shown = at_a_terminal(columns, "tail", "--log", path)
    assert all(len(line) <= columns for line in shown.splitlines())
    assert decision_id in shown
    words = "productpage.bookinfo → reviews-v2.bookinfo:9080 GET /reviews/1 403 DENY rule bookinfo/deny-ratings/0"
    assert "".join(words.split()) in "".join(shown.split())


@pytest.mark.slow
def test_following_ends_quietly_with_ctrl_c(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(encode_record(build_record(make_offer())) + b"\n")
    command = [sys.executable, "-m", "authz", "audit", "tail", "-f", "-o", "json", "--log", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["decision_id"] == "d-1"
        with path.open("ab") as file:
            file.write(encode_record(build_record(make_offer(decision_id="d-2"))) + b"\n")
        assert json.loads(running.stdout.readline())["decision_id"] == "d-2"
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=30) == (b"", b"")
    assert running.returncode == 0


def test_the_newest_records_are_shown_as_a_table(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, make_offer, 10, http={"path": "/reviews/1"})
    code, out, _ = run("tail", "--log", path, "-n", 2)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["TIME", "EFFECT", "WHO", "WHAT", "WHY", "DECISION"]
    assert [line.split()[-1] for line in lines[1:]] == ["d-8", "d-9"]
    assert "productpage.bookinfo → reviews-v2.bookinfo:9080" in lines[1]
    assert "(policies/deny.yaml:7)" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("tail", "-n", "1"), ["d-9"]),
        (("since", "2023-11-14T22:13:27Z"), ["d-7", "d-8", "d-9"]),
        (("between", "2023-11-14T22:13:21Z", "2023-11-14T22:13:23Z"), ["d-1", "d-2", "d-3"]),
        (("since", "2023-11-14T22:13:27Z", "--effect", "allow"), []),
        (("since", "2023-11-14T22:13:28Z", "--rule", "deny-ratings", "--workload", "reviews*"), ["d-8", "d-9"]),
        (("since", "2023-11-14T22:13:28Z", "--principal", "*/sa/other"), []),
        (("show", "d-4"), ["d-4"]),
    ],
)
def test_every_question_is_answered_as_json(
    tmp_path: Path, make_offer: MakeOffer, arguments: tuple[str, ...], ids: list[str]
) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, make_offer, 10)
    code, out, _ = run(*arguments, "--log", path, "-o", "json")
    assert code == 0
    assert [json.loads(line)["decision_id"] for line in out.splitlines()] == ids


def test_one_decision_is_shown_with_the_rule_that_came_closest(
    tmp_path: Path, make_offer: MakeOffer, denial: Decision, secret: str
) -> None:
    assert denial.rule is not None
    notes = (
        PredicateNote("to[0].operation.methods", ":method", False, ("POST", "PUT"), (), ("GET",), "client"),
        PredicateNote("when[0]", "request.headers[x-key]", False, (), ("a",), (secret,), "client"),
    )
    nearest = RuleNote(denial.rule, Action.ALLOW, False, False, (notes,))
    path = tmp_path / "audit.jsonl"
    path.write_bytes(encode_record(build_record(make_offer(), nearest=nearest)) + b"\n")
    code, out, _ = run("show", "d-1", "--log", path)
    assert code == 0
    assert "  nearest miss: bookinfo/deny-ratings/0 (policies/deny.yaml:7)" in out.splitlines()
    assert "    to[0].operation.methods (:method): expected one of `POST`, `PUT`, got `GET`" in out.splitlines()
    assert "expected none of `a`, got `(hidden)`" in out
    assert secret not in out
    assert "  token.subject               jason" in out.splitlines()


@pytest.mark.parametrize("shared", ["a" * 32, "abd51d17-12f1-9d0a-9ce4-000000000000"], ids=["trace", "request"])
def test_decisions_of_one_trace_or_request_are_shown_as_a_table(
    tmp_path: Path, make_offer: MakeOffer, shared: str
) -> None:
    path = tmp_path / "audit.jsonl"
    trace = TraceIds("a" * 32, "b" * 16)
    path.write_bytes(
        b"".join(encode_record(build_record(make_offer(decision_id=f"d-{i}"), trace)) + b"\n" for i in (1, 2))
    )
    code, out, _ = run("show", shared, "--log", path)
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["DECISION", "d-1", "d-2"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "nothing"), 3, "no record of decision, trace or request `nothing` in "),
        (("since", "soon"), 2, "`soon` is not a time: expected `10m`, `2h30m` or `2026-01-31T12:00:00Z`"),
        (("between", "1m", "2m"), 2, "BEGIN is later than END"),
    ],
)
def test_what_cannot_be_answered_says_why(
    tmp_path: Path, make_offer: MakeOffer, arguments: tuple[str, ...], code: int, message: str
) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, make_offer, 1)
    found, _, err = run(*arguments, "--log", path)
    assert (found, message in err) == (code, True)


def test_a_wrong_path_is_no_empty_answer(tmp_path: Path) -> None:
    code, _, err = run("tail", "--log", tmp_path / "absent.jsonl")
    assert code == 1
    assert "no audit file at" in err


@pytest.mark.parametrize("sinks", ["file:{}", "stdout, file:{}"])
def test_the_file_of_the_services_setting_is_the_default(
    tmp_path: Path, make_offer: MakeOffer, monkeypatch: pytest.MonkeyPatch, sinks: str
) -> None:
    path = tmp_path / "own.jsonl"
    written(path, make_offer, 1)
    monkeypatch.setenv("AUTHZ_AUDIT", sinks.format(path))
    assert json.loads(run("tail", "-o", "json")[1])["decision_id"] == "d-0"


def test_broken_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"decision_id":"a"}\n{"decis\n')
    code, out, err = run("tail", "--log", path, "-o", "json")
    assert (code, out) == (0, '{"decision_id":"a"}\n')
    assert err == f"1 line skipped, no records: {path}:2\n"


def test_verification_says_intact_or_where_it_is_not(tmp_path: Path, make_offer: MakeOffer) -> None:
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path, chain=Chain(key, "c1", every=2))
    for number in range(5):
        record = build_record(make_offer(decision_id=f"d-{number}"))
        sink.write([Entry(encode_record(record), BEGIN)])
    sink.close()
    code, out, _ = run("verify", path, "--public-key", public)
    assert code == 0
    assert out == f"chain c1 from {path}:1: 8 lines, 3 checkpoints, ended in order\nintact\n"
    path.write_bytes(path.read_bytes().replace(b'"decision_id":"d-2"', b'"decision_id":"d-9"'))
    code, out, _ = run("verify", path, "--public-key", public, "-o", "json")
    assert code == 3
    assert json.loads(out)["chains"][0]["problems"] == [f"{path}:5: the line before this one was changed"]
    public.write_text("nonsense")
    assert run("verify", path, "--public-key", public)[0] == 2
