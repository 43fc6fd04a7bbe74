"""Unix sockets that belong to one server at a time."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authz.core.errors import SettingsError


@contextmanager
def owner_alone() -> Iterator[None]:
    """Sockets bound in this block are only the owner's, whatever the umask, until their mode is set. For the start."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


class SocketLock:
    """
    A lock file beside a Unix socket: a second server would silently steal the path (XA-123).

    A socket left by a crashed server is removed; the lock went with its process.
    """

    def __init__(self, path: Path, *, tidy: bool = True) -> None:
        """``tidy`` removes the socket of a crashed server; Envoy does that itself. Raises SettingsError."""
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"cannot listen on `unix:{path}`: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SettingsError(f"cannot listen on `unix:{path}`: another server holds it") from error
        try:
            if tidy and stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        except FileNotFoundError:
            pass

    def release(self) -> None:
        """The lock file stays: removing it would let two servers hold locks on different files of one name."""
        os.close(self._lock)
