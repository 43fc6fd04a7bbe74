"""One change of an authority's files at a time, among all processes of this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authz.identity.secret_files import SECRET_MODE


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock that this file is; made when it is missing. Raises OSError."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
