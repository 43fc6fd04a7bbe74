"""What is read of the list of mounts; real mounts are in ``test_watching``."""

import builtins
import io
from pathlib import Path
from typing import Any

import pytest

from authz.sources.policies.mounts import is_cut_off, renamed_source

ROOT = "1 0 8:1 / / rw - ext4 /dev/a rw\n"


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say which mounts there are, in the form of proc(5)."""
    real, said = builtins.open, {"text": ""}

    def opened(file: Any, *arguments: Any, **options: Any) -> Any:
        return io.StringIO(said["text"]) if file == "/proc/self/mountinfo" else real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opened)
    return lambda *lines: said.update(text=ROOT + "".join(lines))


@pytest.mark.parametrize(
    ("below", "above", "is_cut"),
    [("overlay", "tmpfs", False), ("tmpfs", "overlay", True), ("overlay", "overlay", True), ("tmpfs", "tmpfs", False)],
)
def test_of_mounts_on_one_place_the_last_lies_on_top(
    tmp_path: Path, mounted: Any, below: str, above: str, is_cut: bool
) -> None:
    mounted(f"2 1 0:2 / {tmp_path} rw - {below} a rw\n", f"3 2 0:3 / {tmp_path} rw - {above} b rw\n")
    assert is_cut_off(str(tmp_path / "a.yaml")) is is_cut


def test_a_mounted_file_without_a_name_outside_is_cut_off(tmp_path: Path, mounted: Any) -> None:
    mounted(f"2 1 8:1 /old.yaml//deleted {tmp_path}/a.yaml rw - ext4 a rw\n")
    assert is_cut_off(str(tmp_path / "a.yaml"))
    assert not is_cut_off(str(tmp_path / "b.yaml"))


def test_a_mount_whose_source_has_another_name_is_told_with_its_place(tmp_path: Path, mounted: Any) -> None:
    folder = tmp_path / "with a blank"
    folder.mkdir()
    place = str(folder).replace(" ", "\\040")
    mounted(f"2 1 8:1 /policies {place} rw - ext4 a rw\n")
    assert renamed_source(str(folder)) == ""
    mounted(f"2 1 8:1 /policies.old {place} rw - ext4 a rw\n")
    assert renamed_source(str(folder)) == str(folder)
    assert renamed_source(str(folder / "a.yaml")) == str(folder)


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path, mounted: Any) -> None:
    mounted("2 1 8:1 /x /elsewhere rw - ext4 a rw\n")
    assert (is_cut_off(str(tmp_path)), renamed_source(str(tmp_path))) == (False, "")
