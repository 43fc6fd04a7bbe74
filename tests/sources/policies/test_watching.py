"""Changes that the system does not notify are found by looking; those that it does are told within a second."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.sources.policies.directory import read_directory
from authz.sources.policies.listing import Listing, list_files
from authz.sources.policies.looking import Looker
from authz.sources.policies.watching import watch

ROOT = Path(__file__).parents[3]
NOTIFIED, EVERYWHERE = 1.0, 3.0
"""The promises, in seconds."""


def _swap(link: Path, target: str) -> None:
    """Let a link lead elsewhere in one step, as a deployment does."""
    link.with_name("next").symlink_to(target)
    link.with_name("next").rename(link)


def _releases(root: Path) -> Path:
    for number in ("1", "2"):
        (root / "releases" / number / "policies").mkdir(parents=True)
        (root / "releases" / number / "policies" / "a.yaml").write_text(number)
    (root / "current").symlink_to("releases/1")
    return root / "current" / "policies"


def _parent(root: Path) -> tuple[Path, Callable[[], object]]:
    return _releases(root), lambda: _swap(root / "current", "releases/2")


def _chain(root: Path) -> tuple[Path, Callable[[], object]]:
    _releases(root)
    (root / "far").mkdir()
    (root / "far" / "middle").symlink_to("../current")
    (root / "first").symlink_to("far/middle")
    return root / "first" / "policies", lambda: _swap(root / "far" / "middle", "../releases/2")


def _linked(root: Path) -> tuple[Path, Path]:
    (root / "policies").mkdir()
    (root / "elsewhere").mkdir()
    file = root / "elsewhere" / "a.yaml"
    file.write_text("old")
    (root / "policies" / "a.yaml").symlink_to("../elsewhere/a.yaml")
    return root / "policies", file


def _linked_edited(root: Path) -> tuple[Path, Callable[[], object]]:
    policies, file = _linked(root)
    return policies, lambda: file.write_text("new")


def _linked_renamed(root: Path) -> tuple[Path, Callable[[], object]]:
    policies, file = _linked(root)
    file.with_name("next").write_text("new")
    return policies, lambda: file.with_name("next").rename(file)


def _linked_gone(root: Path) -> tuple[Path, Callable[[], object]]:
    policies, file = _linked(root)
    return policies, file.unlink


def _linked_folder(root: Path) -> tuple[Path, Callable[[], object]]:
    (root / "policies").mkdir()
    (root / "team" / "deep").mkdir(parents=True)
    (root / "team" / "deep" / "a.yaml").write_text("old")
    (root / "policies" / "team").symlink_to("../team")
    return root / "policies", lambda: (root / "team" / "deep" / "a.yaml").write_text("new")


def _mesh_behind_links(root: Path) -> tuple[Path, Callable[[], object]]:
    _releases(root)
    return root / "current" / "policies" / "a.yaml", lambda: _swap(root / "current", "releases/2")


def _parent_renamed(root: Path) -> tuple[Path, Callable[[], object]]:
    path = _releases(root)

    def change() -> None:
        (root / "releases" / "1").rename(root / "releases" / "old")
        (root / "releases" / "2").rename(root / "releases" / "1")

    return path, change


SEEN = (
    _parent,
    _chain,
    _linked_edited,
    _linked_renamed,
    _linked_gone,
    _linked_folder,
    _mesh_behind_links,
    _parent_renamed,
)


@pytest.mark.slow
@pytest.mark.parametrize("case", SEEN, ids=lambda case: case.__name__.strip("_"))
async def test_a_change_behind_links_is_told_within_a_second_and_again(
    tmp_path: Path, case: Callable[[Path], tuple[Path, Callable[[], object]]]
) -> None:
    path, change = case(tmp_path)
    ready = asyncio.Event()
    changes = watch([path], ready=ready)
    told = asyncio.ensure_future(anext(changes))
    await ready.wait()
    change()
    await asyncio.wait_for(told, NOTIFIED)
    again = asyncio.ensure_future(anext(changes))  # the watches are renewed along the new way
    await asyncio.sleep(0)
    target = path if path.is_file() else path / "a.yaml"
    target = target if target.exists() else path / "b.yaml"
    target.write_text("newer still")
    await asyncio.wait_for(again, NOTIFIED + 0.5)
    await changes.aclose()


FOLLOW = """
import asyncio, sys
from pathlib import Path
from authz.sources.policies.directory import read_directory
from authz.sources.policies.watching import watch

async def main():
    path, ready = Path(sys.argv[1]), asyncio.Event()
    changes = watch([path], ready=ready)
    told = asyncio.ensure_future(anext(changes))
    await ready.wait()
    print("ready", flush=True)
    await told
    try:
        print(read_directory(path)[0][1].decode(), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
    await changes.aclose()

asyncio.run(asyncio.wait_for(main(), 20))
"""


def _mounted(command: str, path: Path, change: Callable[[], object]) -> tuple[str, float]:
    """What a process reads after a change outside its mounts, and after how many seconds."""
    script = f'{command} && exec "$0" -c "$1" "$2"'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, FOLLOW, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            pytest.skip(f"nothing can be mounted here: {process.stderr.read().strip()[-200:]}")
        began = time.monotonic()
        change()
        found = process.stdout.readline().strip()
        return found, time.monotonic() - began


@pytest.mark.slow
def test_a_mounted_file_edited_outside_is_told_within_three_seconds(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    inside, outside = tmp_path / "policies" / "a.yaml", tmp_path / "outside.yaml"
    inside.write_text("")
    outside.write_text("old")
    found, seconds = _mounted(f"mount --bind '{outside}' '{inside}'", inside.parent, lambda: outside.write_text("new"))
    assert (found, seconds < EVERYWHERE) == ("new", True)


@pytest.mark.slow
def test_a_mounted_file_replaced_outside_is_refused_because_its_new_text_cannot_be_seen(tmp_path: Path) -> None:
    """The mount keeps the old file, and nothing inside can read the new one: to go on in silence would be wrong."""
    (tmp_path / "policies").mkdir()
    inside, outside = tmp_path / "policies" / "a.yaml", tmp_path / "outside.yaml"
    inside.write_text("")
    outside.write_text("old")
    (tmp_path / "next").write_text("new")
    found, seconds = _mounted(
        f"mount --bind '{outside}' '{inside}'", inside.parent, lambda: (tmp_path / "next").rename(outside)
    )
    assert "renamed or removed outside" in found
    assert seconds < EVERYWHERE


def _set_aside(path: Path, text: str) -> None:
    """As an editor does that keeps a backup: the old file has a name still."""
    path.rename(path.with_suffix(".bak"))
    path.write_text(text)


def _swap_folder(folder: Path, text: str) -> None:
    folder.rename(folder.with_suffix(".old"))
    folder.mkdir()
    (folder / "a.yaml").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("mounted", ["the file", "the only file", "the folder", "a folder above", "a folder below"])
def test_what_is_mounted_and_renamed_outside_is_refused_too(tmp_path: Path, mounted: str) -> None:
    inside, outside = tmp_path / "in" / "policies", tmp_path / "out" / "policies"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text("old")
    (inside / "sub").mkdir()
    source, place, change = {
        "the file": (outside / "a.yaml", inside / "a.yaml", lambda: _set_aside(outside / "a.yaml", "new")),
        "the only file": (outside / "a.yaml", inside / "a.yaml", lambda: _set_aside(outside / "a.yaml", "new")),
        "the folder": (outside, inside, lambda: _swap_folder(outside, "new")),
        "a folder above": (outside.parent, inside.parent, lambda: outside.parent.rename(tmp_path / "old")),
        "a folder below": (outside, inside / "sub", lambda: _swap_folder(outside, "new")),
    }[mounted]
    followed = inside / "a.yaml" if mounted == "the only file" else inside
    found, seconds = _mounted(f"mount --bind '{source}' '{place}'", followed, change)
    assert "renamed or removed outside" in found
    assert seconds < EVERYWHERE


@pytest.mark.slow
@pytest.mark.parametrize("way", ["edited", "replaced"])
def test_a_lower_layer_of_an_overlay_is_told_within_three_seconds(tmp_path: Path, way: str) -> None:
    for name in ("lower", "layers", "merged"):
        (tmp_path / name).mkdir()
    lower, layers = tmp_path / "lower", tmp_path / "layers"
    (lower / "a.yaml").write_text("old")
    (tmp_path / "lower" / "next").write_text("new")
    mount = (
        f"mount -t tmpfs none '{layers}' && mkdir '{layers}/up' '{layers}/work' && mount -t overlay overlay "
        f"-o 'lowerdir={lower},upperdir={layers}/up,workdir={layers}/work' '{tmp_path / 'merged'}'"
    )
    changes: dict[str, Callable[[], object]] = {
        "edited": lambda: (lower / "a.yaml").write_text("new"),
        "replaced": lambda: (lower / "next").rename(lower / "a.yaml"),
    }
    found, seconds = _mounted(mount, tmp_path / "merged", changes[way])
    assert found == "new" or (way == "replaced" and "renamed or removed outside" in found)  # as the kernel shows it
    assert seconds < EVERYWHERE


def test_a_text_that_changes_behind_equal_times_and_size_is_a_change(tmp_path: Path) -> None:
    """Within one grain of the clock, or on a file system whose times lie, only the text itself tells."""
    file = tmp_path / "a.yaml"
    file.write_text("old")
    looker = Looker([tmp_path])
    before = looker.look()
    assert looker.look() == before
    entry = before.entries[0]
    file.write_text("new")
    looker._digests[entry[0]] = (
        list_files(tmp_path)[0],
        looker._digests[entry[0]][1],
    )  # as if the stamps had not moved
    assert looker.look().lies == 1


def test_a_file_touched_back_to_its_old_time_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("old")
    looker = Looker([file])
    before, status = looker.look(), file.stat()
    file.write_text("new")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert looker.look() != before


def test_a_way_with_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    listing = Listing()
    with pytest.raises(OSError, match="symbolic links"):
        list_files(tmp_path / "a", listing, has_way=True)
    assert listing.names >= {str(tmp_path / "a"), str(tmp_path / "b")}


MANY_WATCHES = """
import asyncio, os, sys
from pathlib import Path
from authz.sources.policies.watching import watch

def leads_to(file):  # other threads close files meanwhile
    try:
        return os.readlink(file)
    except FileNotFoundError:
        return ""

async def main():
    ready = [asyncio.Event() for _ in sys.argv[1:]]
    changes = [watch([Path(path)], ready=event) for path, event in zip(sys.argv[1:], ready)]
    told = [asyncio.ensure_future(anext(change)) for change in changes]
    for event in ready:
        await event.wait()
    print(sum(leads_to(file) == "anon_inode:inotify" for file in Path("/proc/self/fd").iterdir()))
    for path, one in zip(sys.argv[1:], told):
        (Path(path) / "a.yaml").write_text("new")
    await asyncio.wait_for(asyncio.gather(*told), 1)

asyncio.run(asyncio.wait_for(main(), 20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_a_process_takes_one_inotify_instance_however_much_it_follows(tmp_path: Path) -> None:
    """So the 128 of a user last for a hundred sidecars that decide by themselves."""
    folders = [tmp_path / str(number) for number in range(25)]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MANY_WATCHES, *map(str, folders)], capture_output=True, text=True, timeout=40, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_reading_and_listing_agree_on_what_a_set_is(tmp_path: Path) -> None:
    policies, _ = _linked(tmp_path)
    assert [name for name, _ in read_directory(policies)] == [entry[0] for entry in list_files(policies)]
