"""
The join tokens that were taken here, by their digests: a file each in the authority's directory, until they expire.

The truth of a fleet deletes a token that was taken. Whoever runs its servers can put the record back, and it is signed;
so an authority believes itself first.
"""

import os
from contextlib import suppress
from pathlib import Path

from authz.identity.secret_files import SECRET_MODE

SPENT_DIRECTORY = "spent-tokens"
"""Below the authority's."""
KEPT_SECONDS = 24 * 3600.0
"""Beyond the expiry: for so long a clock may go back."""
MOST_SECONDS = 10 * 365 * 24 * 3600.0
"""A token that is good for longer is remembered for so long."""
LOOK_SECONDS = 60.0
"""How often those are forgotten that nobody could use any longer."""


class SpentTokens:
    """Any number of processes and threads may use one directory. Every method raises OSError."""

    def __init__(self, directory: Path) -> None:
        """``directory``: of the authority."""
        self._place = directory / SPENT_DIRECTORY
        self._looked_at = 0.0

    def note(self, digest: str, expires_at: float, now: float) -> bool:
        """Keep it before anything comes of it; False when it was taken here before: of several, one gets True."""
        if not self._place.is_dir():
            self._place.mkdir(exist_ok=True, mode=0o700)
            _sync(self._place.parent)
        if not 0 <= now - self._looked_at < LOOK_SECONDS:
            self._forget_expired(now)
        try:
            descriptor = os.open(
                self._place / digest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, SECRET_MODE
            )
        except FileExistsError:
            return False
        try:
            until = min(expires_at, now + MOST_SECONDS)
            os.utime(descriptor, (until, until))  # nothing is in it: its name and its time say everything
            os.fsync(descriptor)
        except BaseException:
            self.forget(digest)
            raise
        finally:
            os.close(descriptor)
        _sync(self._place)
        return True

    def forget(self, digest: str) -> None:
        """It is good again: nothing came of it."""
        (self._place / digest).unlink(missing_ok=True)

    def _forget_expired(self, now: float) -> None:
        self._looked_at = now
        with os.scandir(self._place) as found:
            for one in found:
                with suppress(FileNotFoundError):  # another process was faster
                    if one.stat(follow_symlinks=False).st_mtime + KEPT_SECONDS < now:
                        os.unlink(one.path)


def _sync(directory: Path) -> None:
    """So that the new name outlives a failure of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
