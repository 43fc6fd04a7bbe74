"""A head that comes from anybody: exactly its members, each once, of its type and within its bounds."""

import json
from dataclasses import replace
from typing import Any

import pytest

from authz.truth.policy_head import CandidateAbort, DamagedHead, PolicyHead, PushedCandidate, read_head, write_head

ABORT = CandidateAbort(1_800_000_002, "control-1", "too much")
CANDIDATE = PushedCandidate(9, "cd" * 32, 1_800_000_001, "bob", "next", 4, 2, 1, 0, ABORT)
HEAD = PolicyHead(7, "ab" * 32, 1_800_000_000, "ann", "why\nand how", 3, 1, 0, 2, 5, 9, CANDIDATE, 6)
TOLD: dict[str, Any] = json.loads(write_head(HEAD))
NO_CANDIDATES: tuple[Any, ...] = ([], {}, {**TOLD["candidate"], "more": 1}, {**TOLD["candidate"], "aborted": {}})


def test_a_head_is_read_as_it_was_written() -> None:
    for head in (HEAD, replace(HEAD, candidate=replace(CANDIDATE, aborted=None)), replace(HEAD, candidate=None)):
        assert read_head(write_head(head)) == head
    assert HEAD.next_number == 10
    assert replace(HEAD, reserved=0).next_number == 8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 5000, "no JSON"),
        (b"[]", "another format"),
        (b"null", "another format"),
        (b'{"format": "authz-policies/2"}', "another format"),
        (b" " * 70_000, "more than 65536 bytes"),
        (write_head(HEAD)[:-1] + b', "number": 9}', "no JSON"),
        (write_head(HEAD).replace(b'"number": 7', b'"number": NaN'), "no JSON"),
        *(
            (
                json.dumps({name: value for name, value in TOLD.items() if name != left_out}).encode(),
                "exactly the members",
            )
            for left_out in TOLD
            if left_out != "format"
        ),
        (json.dumps({**TOLD, "more": 1}).encode(), "exactly the members"),
        *(
            (json.dumps({**TOLD, "candidate": candidate}).encode(), "exactly the members")
            for candidate in NO_CANDIDATES
        ),
    ],
)
def test_what_is_no_head_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(DamagedHead, match=said):
        read_head(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("number", value) for value in (0, -1, 2**53, 7.0, "7", True, None, [7])),
        *(("created", value) for value in (-1, 1.5, "2026", None, 253_402_300_800)),
        *(("files", value) for value in (-1, True, "3")),
        *(("rollback_of", value) for value in (0, 7, 8, "5", True)),
        *(("promoted_from", value) for value in (0, 7, "6")),
        *(("reserved", value) for value in (-1, "9", None)),
        *(("digest", value) for value in ("", "AB" * 32, "ab" * 31, "../" * 21 + "a", 5, None)),
        *(("author", value) for value in ("x" * 201, "a\x1b[2J", None, 5)),
        *(("message", value) for value in ("x" * 4001, "a\x00", "\u202e", ["x"])),
    ],
)
def test_a_member_of_another_type_or_beyond_its_bounds_is_refused(name: str, value: object) -> None:
    with pytest.raises(DamagedHead, match=f"`{name}`"):
        read_head(json.dumps({**TOLD, name: value}).encode())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *(("number", value, "not after its own, or not reserved") for value in (6, 7, 10)),
        ("digest", "x", "`digest`"),
        ("author", "x" * 201, "`author`"),
        ("added", -1, "`added`"),
        ("aborted", {**TOLD["candidate"]["aborted"], "reason": "x" * 1001}, "`reason`"),
        ("aborted", {**TOLD["candidate"]["aborted"], "by": 5}, "`by`"),
        ("aborted", {**TOLD["candidate"]["aborted"], "at": "now"}, "`at`"),
    ],
)
def test_a_candidate_of_another_form_is_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(DamagedHead, match=said):
        read_head(json.dumps({**TOLD, "candidate": {**TOLD["candidate"], name: value}}).encode())
