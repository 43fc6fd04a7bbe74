"""What was taken last is read as it was written, and what is damaged is never taken for nothing."""

from pathlib import Path

import pytest

from authz.control.authority.taken_rules import TAKEN_FILE, TakenRules, read_taken, write_taken
from authz.core.errors import SettingsError

WHOLE = b'{"entries": {"fleet": "shop", "number": 5, "digest": "0a", "expires": null}}'


@pytest.mark.parametrize(
    "taken",
    [
        {},
        {"entries": TakenRules("shop", 5, "0a", None)},
        {"entries": TakenRules("shop", 5, "0a", 1_800_000_000), "revocations": TakenRules("shop", 2, "0b", None)},
    ],
    ids=["nothing", "one kind", "both"],
)
def test_what_is_written_is_what_is_read(tmp_path: Path, taken: dict[str, TakenRules]) -> None:
    (tmp_path / TAKEN_FILE).write_bytes(write_taken(taken))
    assert read_taken(tmp_path / TAKEN_FILE) == taken


def test_without_a_file_nothing_was_taken(tmp_path: Path) -> None:
    assert read_taken(tmp_path / TAKEN_FILE) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (WHOLE, b""),
        (WHOLE, b"{"),
        (WHOLE, b"[]"),
        (WHOLE, b'{"entries": 5}'),
        (b'"number": 5', b'"number": 5, "number": 4'),
        (b'"number": 5, ', b""),
        (b'"number": 5', b'"number": "5"'),
        (b'"number": 5', b'"number": true'),
        (b'"fleet": "shop"', b'"fleet": null'),
        (b'"digest": "0a"', b'"digest": 10'),
        (b'"expires": null', b'"expires": 1.5'),
        (b'"expires": null', b'"expires": null, "more": 1'),
    ],
)
def test_what_is_damaged_says_what_to_do(tmp_path: Path, old: bytes, new: bytes) -> None:
    file = tmp_path / TAKEN_FILE
    file.write_bytes(WHOLE)
    assert read_taken(file) == {"entries": TakenRules("shop", 5, "0a", None)}
    file.write_bytes(WHOLE.replace(old, new))
    with pytest.raises(SettingsError, match="is damaged; remove it to take whatever is signed now"):
        read_taken(file)
