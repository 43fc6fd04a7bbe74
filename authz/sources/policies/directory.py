"""
A directory of files as it is at one moment: the bytes of a whole, untorn set. What is in the files is not known here.
"""

import errno
from pathlib import Path

from authz.sources.policies.listing import list_files

_ATTEMPTS = 20


def read_directory(path: Path) -> list[tuple[str, bytes]]:
    """
    Read every YAML and JSON file below a directory, or one file.

    Names that begin with a dot are skipped; symlinks are followed. Names in the result begin with ``path`` as given
    and are sorted. A set that changed while it was read is read again, so that a renamed file is never missed.

    Raises:
        OSError: a file cannot be read, a link leads nowhere, the path is not there, it never comes to rest, or it is
            mounted by itself and was replaced outside.
            A file that is left out could be the one that denies, so nothing is skipped that may hold policies.
    """
    lost: FileNotFoundError | None = None
    for _ in range(_ATTEMPTS):
        before = list_files(path)
        try:
            files = [(name, Path(name).read_bytes()) for name, *_ in before]
        except FileNotFoundError as error:  # renamed or removed in between, or a link that leads nowhere
            lost = error
            continue
        if list_files(path) == before:
            return files
        lost = None
    if lost is None:
        raise OSError(None, "the files keep changing while they are read", str(path))
    if Path(lost.filename).is_symlink():
        raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", lost.filename) from lost
    raise lost


def directory_bytes(path: Path) -> int:
    """How much ``read_directory`` would read; 0 when it could not, for that is where it is told."""
    try:
        return sum(size for _, _, _, size, *_ in list_files(path))
    except OSError:
        return 0
