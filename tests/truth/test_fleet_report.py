"""Reports as bytes: read back as they were written, small where there is little to say, refused where they are none."""

import json
from dataclasses import replace

import pytest

from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.core.errors import SettingsError
from authz.truth.fleet_report import (
    CONTROL,
    MAX_TEXT,
    ProxyReport,
    RefusedResource,
    ReplicaReport,
    Reported,
    check_replica_name,
    part_count,
    part_of,
    part_value,
    read_part,
    read_replica,
    read_reported,
    replica_value,
    reported_json,
)
from authz.truth.reported_candidate import candidate_json

REFUSED = RefusedResource("lds", "35b4", "cannot bind ü")
FULL = ProxyReport("web-v1", True, False, "6", 1.5, 2.5, 3.5, 4.5, (REFUSED,), ("cds: `a` waits",))
REPORT = ReplicaReport("control-1", CONTROL, 100.0, "7", 50.0, "no such kind", 900.0, (4, 5))
STANDING = CandidateStanding(8, "cd" * 32, CandidateState.REFUSED, "none of the keys given here signed it")
MOST = 1 << 19


def test_what_is_written_is_read_back() -> None:
    assert read_replica(replica_value(REPORT)) == REPORT
    assert read_part(part_value([FULL, ProxyReport("api-v1")], 2, MOST)) == (2, (FULL, ProxyReport("api-v1")))
    shown = json.loads(json.dumps(reported_json(Reported(3.0, REPORT, (FULL,)))))
    assert read_reported(shown, 3.0).proxies == (FULL,)


@pytest.mark.parametrize("state", CandidateState)
def test_what_became_of_a_candidate_is_read_back_and_said_only_where_there_is_one(state: CandidateState) -> None:
    for standing in (replace(STANDING, state=state), CandidateStanding(0, "", state)):
        report, proxy = replace(REPORT, parts=(), candidate=standing), replace(FULL, candidate=8)
        assert read_replica(replica_value(report)) == report
        shown = json.loads(json.dumps(reported_json(Reported(3.0, report, (proxy,)))))
        assert read_reported(shown, 3.0) == Reported(3.0, report, (proxy,))
    assert b"candidate" not in replica_value(REPORT) + part_value([FULL], 1, MOST), "as older controls read it"


def test_what_a_newer_replica_says_besides_is_left_out() -> None:
    told = json.loads(replica_value(replace(REPORT, candidate=STANDING)))
    told |= {"colour": "red", "candidate": {**told["candidate"], "weight": 3}}
    assert read_replica(json.dumps(told).encode()) == replace(REPORT, candidate=STANDING)
    row = {"name": "p", "is_connected": True, "colour": ["red"]}
    assert read_part(json.dumps({"of": 1, "proxies": [row]}).encode()) == (1, (ProxyReport("p", True),))


def test_a_current_proxy_takes_few_bytes() -> None:
    proxy = ProxyReport("p" * 30, True, True, "", 1780000000.123, 1780000000.123, 0.0, 1780003600.0)
    assert len(part_value([proxy], 1, MOST)) < 220


def test_words_are_cut_and_left_out_where_they_do_not_fit() -> None:
    refused = RefusedResource("lds", "v", "x" * 2 * MAX_TEXT)
    wordy = ProxyReport("p", True, refusals=(refused,), waits=("y" * 2 * MAX_TEXT,))
    _, (cut,) = read_part(part_value([wordy], 1, MOST))
    assert len(cut.refusals[0].words) == len(cut.waits[0]) == MAX_TEXT
    _, (without,) = read_part(part_value([wordy], 1, 300))
    assert (without.refusals, without.waits) == ((RefusedResource("lds", "v", ""),), ())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 100_000,
        b'{"name": "a"}',
        b'{"proxies": 3}',
        b'{"of": 1, "proxies": [7]}',
        b'{"of": [], "proxies": 1}',
    ],
)
def test_what_is_no_report_is_refused(value: bytes) -> None:
    for read in (read_replica, read_part):
        with pytest.raises(ValueError):  # whatever is wrong with it
            read(value)


ODD: tuple[object, ...] = (7, None, True, [], {}, "x" * (MAX_TEXT + 1))
ODD_PARTS: tuple[object, ...] = ([-1], ["1"], [1.5], [True], [None], 5)
ODD_ROWS: tuple[object, ...] = (7, [7], [{}])
ODD_TIMES: tuple[object, ...] = (-1, 1e308, 10**400, "1", None, False, [])
ODD_NUMBERS: tuple[object, ...] = (-1, 2**53 + 1, 1.5, "8", None, True, [])
ODD_CANDIDATES: tuple[object, ...] = (
    *(7, "refused", [], {}, [STANDING.number], {"number": 8}),
    *({**candidate_json(STANDING), "number": value} for value in ODD_NUMBERS),
    *({**candidate_json(STANDING), "digest": value} for value in (*ODD, "cd" * 31, "CD" * 32, "g" * 64)),
    *({**candidate_json(STANDING), "state": value} for value in (*ODD, "", "gone")),
    *({**candidate_json(STANDING), "reason": value} for value in ODD),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("name", "kind", "revision", "problem") for value in ODD),
        *((name, value) for name in ("clock", "since", "certificate_expires") for value in ODD_TIMES),
        *(("parts", value) for value in ODD_PARTS),
        *(("candidate", value) for value in ODD_CANDIDATES),
    ],
)
def test_a_report_with_a_value_of_another_type_or_beyond_its_bounds_is_refused(name: str, value: object) -> None:
    """Anybody with the role of a server may write one, and every control reads it."""
    with pytest.raises(ValueError):  # whatever is wrong with it
        read_replica(json.dumps({**json.loads(replica_value(REPORT)), name: value}).encode())


@pytest.mark.parametrize(
    "row",
    [
        *({"name": value} for value in ODD),
        *({"name": "p", "is_connected": value} for value in (1, "yes", None)),
        *({"name": "p", "since": value} for value in ODD_TIMES),
        *({"name": "p", "candidate": value} for value in ODD_NUMBERS),
        *({"name": "p", "refusals": [{"kind": "lds", "version": "1", "words": value}]} for value in ODD),
        *({"name": "p", "refusals": value} for value in ODD_ROWS),
    ],
)
def test_a_proxy_with_a_value_of_another_type_or_beyond_its_bounds_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # whatever is wrong with it
        read_part(json.dumps({"of": 1, "proxies": [row]}).encode())


def test_a_long_problem_is_cut_wherever_it_is_shown() -> None:
    words = "x" * 2 * MAX_TEXT
    long = replace(REPORT, problem=words, candidate=replace(STANDING, reason=words))
    shown = read_reported(json.loads(json.dumps(reported_json(Reported(3.0, long)))), 3.0)
    for report in (read_replica(replica_value(long)), shown.report):
        assert report.candidate is not None
        assert report.problem == report.candidate.reason == "x" * MAX_TEXT


@pytest.mark.parametrize(
    ("proxies", "before", "parts"),
    [(0, 0, 1), (200, 0, 1), (201, 0, 2), (10_000, 0, 50), (10_000, 50, 50), (10_001, 50, 102), (2_000, 50, 20)],
)
def test_parts_grow_with_the_fleet_and_stay_as_long_as_they_fit(proxies: int, before: int, parts: int) -> None:
    assert part_count(proxies, before) == parts


def test_proxies_are_spread_over_the_parts() -> None:
    counts = [0] * 50
    for number in range(10_000):
        counts[part_of(f"web-{number}", 50)] += 1
    assert max(counts) < 300


@pytest.mark.parametrize("name", ["", "A", "a.b", "a b", "-a", "a" * 64, "a*", "a>"])
def test_names_that_would_be_other_keys_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is no name of a replica"):
        check_replica_name(name)
