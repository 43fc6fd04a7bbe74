"""Which candidate was aborted, as a file keeps it."""

from pathlib import Path

import pytest

from authz.control.aborted_canary import ABORTED_FILE, AbortedCanary


def test_what_was_aborted_is_known_to_the_next_process_until_it_is_forgotten(tmp_path: Path) -> None:
    kept, next_process = (AbortedCanary(tmp_path / "keep") for _ in range(2))
    assert kept.reason("a1") is None
    kept.forget()  # which is nothing
    kept.keep("a1", "too much", 100.0)
    assert next_process.reason("a1") == "too much"
    assert next_process.reason("b2") == "", "another candidate was"
    kept.keep("b2", "by hand", 101.0)
    assert (next_process.reason("a1"), next_process.reason("b2")) == ("", "by hand")
    assert [path.name for path in kept.path.parent.iterdir()] == [ABORTED_FILE]
    next_process.forget()
    assert kept.reason("b2") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"7", b"\xff", b"{}", b'{"reason": "x"}'])
def test_what_cannot_be_read_counts_for_every_candidate(tmp_path: Path, damage: bytes) -> None:
    """Whoever does not know takes it back."""
    kept = AbortedCanary(tmp_path)
    kept.path.write_bytes(damage)
    for key in ("a1", "b2"):
        reason = kept.reason(key)
        assert reason is not None
        assert "cannot be read" in reason
        assert ABORTED_FILE in reason


def test_a_file_in_the_place_of_the_directory_is_an_error_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("")
    kept = AbortedCanary(tmp_path / "keep")
    with pytest.raises(OSError, match="keep"):
        kept.keep("a1", "too much", 100.0)
    assert "cannot be read" in (kept.reason("a1") or "")
