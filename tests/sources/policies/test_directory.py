"""Files as they are at one moment, and changes that have come to rest."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.sources.policies.directory import directory_bytes, read_directory, read_file
from authz.sources.policies.watching import watch


def names(path: Path) -> list[str]:
    return [str(Path(name).relative_to(path)) for name, _ in read_directory(path)]


def test_a_directory_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.yaml", "a.yml", "sub/c.json", "sub/deep/d.yaml", "README.md", ".hidden.yaml", "e.yaml~"):
        (tmp_path / name).write_text(name)
    assert names(tmp_path) == ["a.yml", "b.yaml", "sub/c.json", "sub/deep/d.yaml"]
    assert read_directory(tmp_path)[0] == (f"{tmp_path}/a.yml", b"a.yml")


def test_a_single_file_is_a_set_of_one(tmp_path: Path) -> None:
    (tmp_path / "any.name").write_text("x")
    assert read_directory(tmp_path / "any.name") == [(f"{tmp_path}/any.name", b"x")]


def test_an_empty_directory_is_an_empty_set(tmp_path: Path) -> None:
    assert read_directory(tmp_path) == []


def test_files_of_a_mounted_volume_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert names(tmp_path) == ["a.yaml"]


def test_a_loop_of_symlinks_ends(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("x")
    (tmp_path / "sub" / "up").symlink_to("..")
    assert names(tmp_path) == ["sub/a.yaml"]


def test_the_size_of_a_directory_is_what_would_be_read_of_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in (("a/x.yaml", "12345"), ("y.json", "678"), (".hidden.yaml", "9"), ("notes.txt", "0")):
        (tmp_path / name).write_text(text)
    assert directory_bytes(tmp_path) == sum(len(data) for _, data in read_directory(tmp_path)) == 8
    assert directory_bytes(tmp_path / "y.json") == 3
    assert directory_bytes(tmp_path / "none") == 0


def test_one_file_is_read_as_a_set_is_and_nothing_but_a_file(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("a: b")
    assert read_file(tmp_path / "mesh.yaml") == b"a: b"
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(odd)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_directory(tmp_path / "none")


@pytest.mark.parametrize("name", ["deny.yaml", "team"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, name: str) -> None:
    """What it led to may have been the file, or the folder of files, that denies."""
    (tmp_path / "allow.yaml").write_text("x")
    (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    with pytest.raises(FileNotFoundError, match=name):
        read_directory(tmp_path)


def test_a_pipe_among_the_files_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(OSError, match="not a regular file"):
        read_directory(tmp_path)


def test_a_file_renamed_while_reading_is_never_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename happens between listing and reading: the set is read again."""
    (tmp_path / "a.yaml").write_text("deny")
    (tmp_path / "m.yaml").write_text("allow")
    read, moves = Path.read_bytes, iter([True])

    def read_and_move(path: Path) -> bytes:
        if next(moves, False):
            (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_and_move)
    assert [content for _, content in read_directory(tmp_path)] == [b"allow", b"deny"]


def test_a_directory_that_never_rests_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("")
    read = Path.read_bytes

    def read_and_grow(path: Path) -> bytes:
        with path.open("a") as file:
            file.write("x")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_and_grow)
    with pytest.raises(OSError, match="keep changing"):
        read_directory(tmp_path)


def _write(path: Path) -> None:
    (path / "p" / "a.yaml").write_text("new")


def _replace(path: Path) -> None:
    (path / "p" / "next").write_text("new")
    (path / "p" / "next").rename(path / "p" / "a.yaml")


def _add_folder(path: Path) -> None:
    (path / "p" / "sub").mkdir()
    (path / "p" / "sub" / "b.yaml").write_text("new")


def _remove(path: Path) -> None:
    (path / "p" / "a.yaml").unlink()


def _swap_the_directory(path: Path) -> None:
    (path / "q").mkdir()
    (path / "p").rename(path / "old")
    (path / "q").rename(path / "p")


def _replace_the_file(path: Path) -> None:
    (path / "next").write_text("new")
    (path / "next").rename(path / "mesh.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [_write, _replace, _add_folder, _remove, _swap_the_directory, _replace_the_file], ids=lambda f: f.__name__
)
async def test_a_change_is_told_once_it_is_at_rest(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.yaml").write_text("old")
    (tmp_path / "mesh.yaml").write_text("old")
    ready = asyncio.Event()
    changes = watch([tmp_path / "p", tmp_path / "mesh.yaml"], ready=ready)
    told = asyncio.ensure_future(anext(changes))
    await ready.wait()
    assert not told.done()
    change(tmp_path)
    await asyncio.wait_for(told, 1)
    await changes.aclose()


@pytest.mark.slow
async def test_what_happens_beside_a_watched_file_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("old")
    ready = asyncio.Event()
    changes = watch([tmp_path / "mesh.yaml"], ready=ready)
    told = asyncio.ensure_future(anext(changes))
    await ready.wait()
    (tmp_path / "other.yaml").write_text("new")
    done, _ = await asyncio.wait({told}, timeout=0.3)
    assert not done
    (tmp_path / "mesh.yaml").write_text("new")
    await asyncio.wait_for(told, 1)
    await changes.aclose()


WITHOUT_WATCHES = """
import asyncio, os, resource, sys
from pathlib import Path
from authz.sources.policies.watching import watch

async def main():
    folder, ready = Path(sys.argv[1]), asyncio.Event()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os.close(taken.pop())  # for writing the file
    async def changed():
        async for _ in watch([folder], ready=ready):
            if (folder / "new.yaml").exists():
                return
    waiting = asyncio.create_task(changed())
    await ready.wait()
    (folder / "new.yaml").write_text("x")
    await waiting

asyncio.run(asyncio.wait_for(main(), 60))
"""


def test_what_cannot_be_watched_is_looked_at_regularly(tmp_path: Path) -> None:
    """Watches are few: a user has 128 by default, and many sidecars that decide themselves take them all."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WATCHES, str(tmp_path)], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be watched") == 1


class Wanderer:
    """A file that has another name at every look into its folder, so that no listing need ever show it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path, moves: int) -> None:
        self.places, self.moves, self.looks = [file, file.with_name("z.yaml")], moves, 0
        self._scan = os.scandir
        monkeypatch.setattr("os.scandir", self._listing)

    def _listing(self, folder: str) -> object:
        """List the folder in the instant in which neither name stands, as a listing that a rename overtakes may."""
        self.looks += 1
        if self.looks > self.moves:
            return self._scan(folder)
        away = self.places[0].with_name(".on-its-way")
        self.places[(self.looks - 1) % 2].rename(away)
        entries = self._scan(folder)
        listed = list(entries)
        away.rename(self.places[self.looks % 2])
        return contextlib.nullcontext(listed)


def test_a_file_that_is_renamed_at_both_ends_of_the_reading_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal listings do not tell: a file that was on its way in both of them is in neither."""
    for name in ("allow.yaml", "deny.yaml"):
        (tmp_path / name).write_text(name)
    old = time.time() - 60
    os.utime(tmp_path, (old, old))  # at rest, so that the first listing is believed
    wanderer = Wanderer(monkeypatch, tmp_path / "deny.yaml", moves=2)
    assert [data for _, data in read_directory(tmp_path)] == [b"allow.yaml", b"deny.yaml"]
    assert wanderer.looks > wanderer.moves


def test_a_file_that_never_rests_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("allow.yaml", "deny.yaml"):
        (tmp_path / name).write_text(name)
    Wanderer(monkeypatch, tmp_path / "deny.yaml", moves=10_000)
    with pytest.raises(OSError, match="keep changing"):
        read_directory(tmp_path)
