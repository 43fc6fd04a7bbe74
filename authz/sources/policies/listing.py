"""
The state of the disk at one moment: the files of a set, what tells two states apart, and the way that leads there.

A path may lead over links (its folder, a folder above it, a single file), so the way is listed with the files: where
each link leads, and every folder in which a name on the way could be replaced.
"""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from authz.sources.policies.mounts import is_cut_off, renamed_source

SUFFIXES = (".yaml", ".yml", ".json")
MAX_LINKS = 64
"""Most links on the way to one file; more are a loop, which reading reports."""
STALE = (
    "it was replaced, renamed or removed outside of this mount, so its new text cannot be seen here; "
    "mount the folder that holds it, or mount it again"
)
"""For a mounted file or folder, or a file of an overlay's lower layer: the mount keeps the old one for ever."""

FileState = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, and the times of the last change of text and of anything, in nanoseconds."""
FolderState = tuple[str, int, int, int]
"""A folder's path, device, inode and the time at which a name in it last came, went or changed, in nanoseconds."""
Folder = tuple[str, int, int]
"""Real path, device and inode: a folder that was replaced under the same name is another one."""


@dataclass(slots=True)
class Listing:
    """One look at a path. ``entries`` and ``links`` are what is compared; the rest says where changes would show."""

    entries: list[FileState] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    """Every link of the way, and what is written in it."""
    tree: set[str] = field(default_factory=set)
    """Real paths of the folders in which any change counts."""
    names: set[str] = field(default_factory=set)
    """Names outside of them whose replacement changes where the way leads."""
    shapes: list[FolderState] = field(default_factory=list)
    """The folders as they were before their names were listed."""


def list_files(path: Path, listing: Listing | None = None, *, has_way: bool = False) -> list[FileState]:
    """
    List the files of a set, sorted; ``listing``, if given, receives them too, and ``has_way`` the way to each of them.

    A file that vanishes while the folder is read is listed without an inode: it may now have a name already passed.

    Raises:
        OSError: something cannot be listed, is no regular file, or is mounted and was replaced outside.
    """
    found = listing if listing is not None else Listing()
    renamed = renamed_source(str(path))
    if renamed:
        raise OSError(errno.ESTALE, STALE, renamed)
    if has_way:
        _follow(str(path.absolute()), found)
    if path.is_dir():
        _walk(str(path), found, frozenset(), has_way=has_way)
        found.entries.sort()
    else:
        status = path.stat()
        if has_way:  # whoever follows a file reads it again and again
            require_regular(str(path), status.st_mode)
        found.entries.append(_entry(str(path), status))
    return found.entries


def require_regular(path: str, mode: int) -> None:
    """Raise OSError for a pipe, a socket or a device: reading it might never end."""
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def folders_of(listing: Listing) -> frozenset[Folder]:
    """The folders to be watched for a listing, except those that are gone or may not be read."""
    found = set()
    for name in listing.tree | {os.path.dirname(name) for name in listing.names}:
        with suppress(OSError):
            status = os.stat(name)
            if stat.S_ISDIR(status.st_mode) and os.access(name, os.R_OK):
                found.add((name, status.st_dev, status.st_ino))
    return frozenset(found)


def _entry(path: str, status: os.stat_result) -> FileState:
    if status.st_nlink == 0 and is_cut_off(path):
        raise OSError(errno.ESTALE, STALE, path)
    return (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _walk(folder: str, found: Listing, above: frozenset[str], *, has_way: bool) -> None:
    """``above`` holds the real paths of the folders on the way down: a symlink to one of them is a loop."""
    real = os.path.realpath(folder)
    if real in above:
        return
    found.tree.add(real)
    shape = os.stat(folder)
    found.shapes.append((folder, shape.st_dev, shape.st_ino, shape.st_mtime_ns))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_link = entry.is_symlink()
            if is_link and has_way:
                _follow(entry.path, found)
            if entry.is_dir():
                _walk(entry.path, found, above | {real}, has_way=has_way)
            elif (is_lost := is_link and not os.path.exists(entry.path)) or entry.name.endswith(SUFFIXES):
                try:
                    status = entry.stat(follow_symlinks=not is_lost)  # listed all the same, so that reading it fails
                except FileNotFoundError:
                    found.entries.append((entry.path, 0, 0, 0, 0, 0))
                    continue
                if not is_lost:
                    require_regular(entry.path, status.st_mode)
                found.entries.append(_entry(entry.path, status))


def _follow(path: str, found: Listing) -> None:
    """Note every name that a path leads over, with links resolved."""
    waiting = list(reversed(os.path.abspath(path).split("/")))
    here, left = "/", MAX_LINKS
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)
            continue
        name = os.path.join(here, part)
        found.names.add(name)
        try:
            target = os.readlink(name)
        except OSError:  # no link, or not there
            here = name
            continue
        found.links.append((name, target))
        left -= 1
        if not left:
            return
        here = "/" if target.startswith("/") else here
        waiting.extend(reversed(target.split("/")))
