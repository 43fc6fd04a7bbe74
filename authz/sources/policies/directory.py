"""
A directory of files as it is at one moment: the bytes of a whole, untorn set. What they mean is not known here.
"""

import errno
import os
import stat
import time
from pathlib import Path

from authz.sources.policies.listing import Listing, list_files, require_regular

_ATTEMPTS = 20
_GRAIN_NANOSECONDS = 20_000_000
"""Changes of a folder within the clock's grain leave the same time; a kernel's tick is at most half of this."""
_PAUSE_SECONDS = 0.005
"""The pause after each attempt that met a change; together they last a second."""


def read_directory(path: Path) -> list[tuple[str, bytes]]:
    """
    Read every YAML and JSON file below a directory, or one file.

    Names that begin with a dot are skipped; symlinks are followed. Names in the result begin with ``path`` as given
    and are sorted. A set that changed while it was read is read again, so that a renamed file is never missed, not even
    one that was on its way at both ends of the reading, for then the time of its folder has changed.

    Raises:
        OSError: a file cannot be read, a link leads nowhere, the path is not there, it never comes to rest, or it is
            mounted by itself and was replaced outside.
            A file that is left out could be the one that denies, so nothing that may hold policies is skipped.
    """
    lost: FileNotFoundError | None = None
    for attempt in range(_ATTEMPTS):
        try:
            before, lost = _look(path), None
            if _is_at_rest(before):
                files = [(name, Path(name).read_bytes()) for name, *_ in before.entries]
                after = _look(path)
                if (after.entries, after.shapes) == (before.entries, before.shapes):
                    return files
        except FileNotFoundError as error:  # renamed or removed in between, or a link that leads nowhere
            lost = error
        time.sleep(_PAUSE_SECONDS if lost else _PAUSE_SECONDS * attempt)
    if lost is None:
        raise OSError(None, "the files keep changing while they are read", str(path))
    if Path(lost.filename).is_symlink():
        raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", lost.filename) from lost
    raise lost


def read_file(path: Path) -> bytes:
    """
    Read one file, untorn as a set is.

    Raises:
        OSError: as for a set; ``path`` is a directory or no regular file, for reading a pipe may never end.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    require_regular(str(path), mode)
    ((_, data),) = read_directory(path)
    return data


def _look(path: Path) -> Listing:
    listing = Listing()
    list_files(path, listing)
    listing.shapes.sort()
    return listing


def _is_at_rest(listing: Listing) -> bool:
    """Whether any further change of a folder is sure to leave another time than the one that was listed."""
    now = time.time_ns()
    return all(abs(now - changed) > _GRAIN_NANOSECONDS for *_, changed in listing.shapes)


def directory_bytes(path: Path) -> int:
    """How much ``read_directory`` would read; 0 if it could not, since it will say so itself."""
    try:
        return sum(size for _, _, _, size, *_ in list_files(path))
    except OSError:
        return 0
