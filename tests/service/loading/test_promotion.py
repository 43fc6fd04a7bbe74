"""A candidate becomes the set in force: every layout, what is kept, and what is refused."""

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.service.loading.promotion import abort, exchange, promote
from authz.sources.policies.directory import read_directory

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two directories change places")


def folder(path: Path, text: str, files: int = 1) -> Path:
    path.mkdir(parents=True)
    for number in range(files):
        (path / f"{number}.yaml").write_text(text)
    return path


def text(path: Path) -> str:
    return (path / "0.yaml").read_text()


@linux
def test_two_directories_change_places_and_the_old_one_is_kept(tmp_path: Path) -> None:
    policies, candidate = folder(tmp_path / "policies", "old"), folder(tmp_path / "next", "new")
    done = promote(candidate, policies, "v2")
    assert (text(policies), text(done.kept), candidate.exists()) == ("new", "old", False)
    assert done.kept == tmp_path / "policies.before-v2"
    folder(candidate, "newer")
    assert promote(candidate, policies, "v2").kept == tmp_path / "policies.before-v2-2"


@linux
def test_a_reader_sees_the_old_set_or_the_new_one_whole(tmp_path: Path) -> None:
    policies = folder(tmp_path / "policies", "0", files=20)
    seen: list[set[bytes]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append({data for _, data in read_directory(policies)})

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 20):
            promote(folder(tmp_path / "next", str(number), files=20), policies, "v")
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(len(texts) == 1 for texts in seen)


def test_a_file_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("old")
    (tmp_path / "next.yaml").write_text("new")
    done = promote(tmp_path / "next.yaml", tmp_path / "policies.yaml", "v2")
    assert ((tmp_path / "policies.yaml").read_text(), done.kept.read_text()) == ("new", "old")
    assert not (tmp_path / "next.yaml").exists()


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_link_is_turned_to_what_the_candidates_link_leads_to(tmp_path: Path, *, is_absolute: bool) -> None:
    old, new = folder(tmp_path / "sets" / "v1", "old"), folder(tmp_path / "sets" / "v2", "new")
    policies, candidate = tmp_path / "current", tmp_path / "next"
    policies.symlink_to(old if is_absolute else "sets/v1")
    candidate.symlink_to("sets/v2")
    done = promote(candidate, policies, "v2")
    assert (text(policies), done.kept, candidate.is_symlink()) == ("new", old, False)
    assert policies.readlink() == (new if is_absolute else Path("sets/v2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "sets"]


def test_a_directory_moves_beside_the_old_one_for_a_link(tmp_path: Path) -> None:
    old, policies = folder(tmp_path / "sets" / "v1", "old"), tmp_path / "current"
    policies.symlink_to("sets/v1")
    done = promote(folder(tmp_path / "next", "new"), policies, "v2")
    assert (text(policies), done.kept, policies.readlink()) == ("new", old, Path("sets/next.v2"))
    assert not (tmp_path / "next").exists()


def cannot(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
def test_where_directories_cannot_change_places_nothing_happens_and_a_link_is_advised(
    tmp_path: Path, number: int
) -> None:
    policies, candidate = folder(tmp_path / "policies", "old"), folder(tmp_path / "next", "new")

    def refuse(one: Path, other: Path) -> None:
        raise cannot(number)

    with pytest.raises(SettingsError, match="make it a link to the directory"):
        promote(candidate, policies, "v2", refuse)
    assert (text(policies), text(candidate)) == ("old", "new")


def test_another_failure_of_the_system_is_passed_on(tmp_path: Path) -> None:
    policies, candidate = folder(tmp_path / "policies", "old"), folder(tmp_path / "next", "new")

    def refuse(one: Path, other: Path) -> None:
        raise cannot(errno.EXDEV)

    with pytest.raises(OSError, match="cross-device"):
        promote(candidate, policies, "v2", refuse)
    assert (text(policies), text(candidate)) == ("old", "new")


@linux
def test_an_exchange_with_nothing_names_the_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        exchange(tmp_path / "a", tmp_path / "b")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "a"), str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("policies", "is in force already"),
        ("policies/inner", "lie one within the other"),
        ("alone.yaml", "is a directory, the other a file"),
        ("link", "make both links, or neither"),
    ],
)
def test_layouts_that_cannot_be_served_are_refused_and_left_alone(tmp_path: Path, candidate: str, message: str) -> None:
    policies = folder(tmp_path / "policies", "old")
    folder(policies / "inner", "inner")
    folder(tmp_path / "elsewhere", "new")
    (tmp_path / "alone.yaml").write_text("new")
    (tmp_path / "link").symlink_to("elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=message):
        promote(tmp_path / candidate, policies, "v2")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_aborted_candidate_is_kept_under_another_name(tmp_path: Path) -> None:
    assert text(abort(folder(tmp_path / "next", "new"))) == "new"
    assert abort(folder(tmp_path / "next", "newer")) == tmp_path / "next.aborted-2"
    folder(tmp_path / "sets", "new")
    (tmp_path / "next").symlink_to("sets")
    assert text(abort(tmp_path / "next")) == "new"
    assert not (tmp_path / "next").is_symlink()
    with pytest.raises(FileNotFoundError):
        abort(tmp_path / "next")
