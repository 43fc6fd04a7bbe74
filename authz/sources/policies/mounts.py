"""
Changes that a mount hides: a mounted file or folder stays the old one when another takes its name outside.

The kernel says where a mount's source stands now (``/proc/self/mountinfo``, proc(5)), so a rename shows although
nothing inside has changed. Outside Linux nothing is known, and nothing is said.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")
_sources: dict[tuple[str, str, int, int], str] = {}
"""Where the source of a mount stood at the first look, by the mount, its place, device and inode."""


class _Mount(NamedTuple):
    number: str
    source: str
    """Path of what is mounted, within its file system; ``//deleted`` at its end where it has no name any more."""
    place: str
    kind: str


def is_cut_off(path: str) -> bool:
    """Whether a mount or overlay still shows a file that has no name left; some file systems count no names at all."""
    real = os.path.realpath(path)
    above = [mount for mount in _mounts() if _is_below(real, mount.place)]
    nearest = max(reversed(above), key=_length, default=None)  # of several at one place the last lies on top
    if nearest is None:
        return False
    return nearest.kind == "overlay" or (real == nearest.place and nearest.source.endswith("//deleted"))


def renamed_source(path: str) -> str:
    """
    The place of a mount on the way to a path, or below it, whose source has another name than at the first look.

    Empty when there is none. What has taken the name since cannot be seen through the mount.
    """
    real = os.path.realpath(path)
    for mount in _mounts():
        if mount.place == "/" or not (_is_below(real, mount.place) or _is_below(mount.place, real)):
            continue
        with suppress(OSError):
            status = os.stat(mount.place)
            known = _sources.setdefault((mount.number, mount.place, status.st_dev, status.st_ino), mount.source)
            if known != mount.source:
                return mount.place
    return ""


def _mounts() -> Iterator[_Mount]:
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            number, _, _, source, place, *_ = before.split(" ")
            yield _Mount(number, _plain(source), _plain(place), after.partition(" ")[0])


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), text) if "\\" in text else text


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _length(mount: _Mount) -> int:
    return len(mount.place)
