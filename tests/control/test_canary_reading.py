"""A candidate as it is read: its policies and its terms together, and none before what is in force has been read."""

import asyncio
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.canary.candidate_terms import CandidateTerms
from authz.control import canary_reading
from authz.control.canary_reading import CanaryReading
from authz.service.loading.snapshot import load_snapshot
from tests.control.test_canary_follower import Pushed, policy, terms

NOBODY = CandidateTerms(7, 1)
SHARE = CandidateTerms(7, 1, CanarySelection(Fraction(1, 20)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mesh.yaml").write_text("trustDomain: mesh.test\n")
    return tmp_path


def reading(folder: Path, published: Any = None, *, is_shadowed: bool = False) -> CanaryReading:
    selection = CanarySelection(names=frozenset({"web"}))
    source = CanarySource(folder / "next", selection, published=published, is_shadowed=is_shadowed)
    return CanaryReading(source, folder / "mesh.yaml", lambda: 100.0)


def write(folder: Path, text: str) -> None:
    (folder / "next").mkdir(exist_ok=True)
    (folder / "next" / "a.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "told", "found"),
    [
        pytest.param(None, None, (False, False, False, 0), id="nothing is there"),
        pytest.param(policy("/new"), None, (False, False, False, 0), id="files without terms"),
        pytest.param(None, SHARE, (False, False, False, 0), id="terms without files"),
        pytest.param(policy("/new"), SHARE, (True, True, False, 0), id="for a share"),
        pytest.param(policy("/new"), NOBODY, (False, False, False, 7), id="in shadow alone"),
        pytest.param("nonsense: [", SHARE, (True, False, True, 0), id="broken"),
    ],
)
async def test_one_that_was_pushed_is_read_with_what_is_said_of_it(
    folder: Path, text: str | None, told: CandidateTerms | None, found: tuple[bool, bool, bool, int]
) -> None:
    """Whether it counts, whether it can be used, whether something is said to be wrong, and who is in shadow alone."""
    pushed = Pushed()
    pushed.told = told
    if text is not None:
        write(folder, text)
    read = reading(folder, pushed)
    is_there = await read.load()
    assert (is_there, read.snapshot is not None, bool(read.reason), read.in_shadow) == found
    assert read.terms == (told if is_there else None)
    read.stop()


async def test_one_in_shadow_alone_is_read_where_records_are_taken(folder: Path) -> None:
    pushed = Pushed()
    pushed.told = NOBODY
    write(folder, policy("/new"))
    read = reading(folder, pushed, is_shadowed=True)
    assert await read.load()
    assert (read.snapshot is not None, read.in_shadow, read.terms) == (True, 0, NOBODY)
    read.stop()


async def test_a_directory_is_read_without_terms_and_keeps_its_last_good_policies(folder: Path) -> None:
    read = reading(folder)
    assert not await read.load()
    write(folder, policy("/new"))
    assert await read.load()
    good = read.snapshot
    assert good is not None
    write(folder, "nonsense: [")
    assert await read.load()
    assert (read.snapshot, read.terms) == (good, None)
    assert "a.yaml" in read.reason
    shutil.rmtree(folder / "next")
    assert not await read.load()
    assert (read.snapshot, read.reason) == (None, "")


async def test_another_one_has_nothing_of_the_one_before(folder: Path) -> None:
    pushed = Pushed()
    pushed.told = terms(2, "web")
    write(folder, policy("/new"))
    read = reading(folder, pushed)
    assert await read.load()
    write(folder, "nonsense: [")
    pushed.told = terms(3, "web")
    assert await read.load()
    assert (read.snapshot, read.terms) == (None, pushed.told)


class Hasty(Pushed):
    """Other terms at every question: somebody pushes all the time."""

    def __init__(self, *told: CandidateTerms) -> None:
        super().__init__()
        self.next: Iterator[CandidateTerms] = iter(told)

    def terms(self, path: Path) -> CandidateTerms | None:
        self.told = next(self.next, self.told)
        return super().terms(path)


async def test_terms_and_policies_are_read_again_when_another_one_was_pushed_meanwhile(folder: Path) -> None:
    write(folder, policy("/new"))
    read = reading(folder, Hasty(terms(2, "web"), terms(3, "web")))
    assert await read.load()
    assert read.terms == terms(3, "web")


@pytest.mark.parametrize("is_read", [True, False])
async def test_one_that_is_gone_stays_until_what_is_in_force_was_read_or_for_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    monkeypatch.setattr(canary_reading, "BASE_SECONDS", 20.0 if is_read else 0.05)
    pushed = Pushed()
    pushed.told = terms(2, "web")
    write(folder, policy("/new"))
    read = reading(folder, pushed)
    assert await read.load()
    pushed.told, pushed.replaced = None, 150.0
    loading = asyncio.create_task(read.load())
    if is_read:
        for at, is_done in ((140.0, False), (160.0, True)):
            read.note_base(load_snapshot(folder / "next", folder / "mesh.yaml", at))
            done, _ = await asyncio.wait([loading], timeout=10.0 if is_done else 0.1)
            assert bool(done) is is_done
            assert (read.snapshot is None) is is_done
    async with asyncio.timeout(10):
        assert not await loading
    assert (read.snapshot, read.terms) == (None, None)
