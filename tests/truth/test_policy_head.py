"""A head that comes from anybody: exactly its members, each once, of its type and within its bounds."""

import json
from typing import Any

import pytest

from authz.truth.policy_head import DamagedHead, PolicyHead, read_head, write_head

HEAD = PolicyHead(7, "ab" * 32, 1_800_000_000, "ann", "why\nand how", 3, 1, 0, 2, 5)
TOLD: dict[str, Any] = json.loads(write_head(HEAD))


def test_a_head_is_read_as_it_was_written() -> None:
    assert read_head(write_head(HEAD)) == HEAD


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 5000, "no JSON"),
        (b"[]", "another format"),
        (b"null", "another format"),
        (b'{"format": "authz-policies/2"}', "another format"),
        (b" " * 40_000, "more than 32768 bytes"),
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
        *(("digest", value) for value in ("", "AB" * 32, "ab" * 31, "../" * 21 + "a", 5, None)),
        *(("author", value) for value in ("x" * 201, "a\x1b[2J", None, 5)),
        *(("message", value) for value in ("x" * 4001, "a\x00", "\u202e", ["x"])),
    ],
)
def test_a_member_of_another_type_or_beyond_its_bounds_is_refused(name: str, value: object) -> None:
    with pytest.raises(DamagedHead, match=f"`{name}`"):
        read_head(json.dumps({**TOLD, name: value}).encode())
