"""
The last good revision on disk: what a replica starts from when its source is down, and what it never goes back behind.

    CACHE/last-good.tar.gz      as it came, so that it is judged again before it is used again
    CACHE/taken.json            the revision taken last
    CACHE/allowed.json          the one revision that may be older, until it was taken
    CACHE/kept/7-0123456789ab/  its files, unpacked
    CACHE/current               a link there, swapped by rename: what readers follow
    CACHE/status.json           how the source is doing
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from authz.core.errors import SettingsError
from authz.sources.published.delivery import Delivery, TakenRevision
from authz.telemetry.status import PolicySourceStatus

FOLDER_MODE, MODE = 0o750, 0o640
CURRENT = "current"
_KEPT = 2
"""Unpacked revisions: a reader may be within the one before."""
RevisionTrial = Callable[[Path, Path | None], None]
"""Given the folder of a revision and of the one in force, if any; raises LoadError when it cannot be put in force."""


class PolicyCache:
    """A directory of one process; ``open`` first. Errors of the disk are OSError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._lock: int | None = None

    @property
    def policies(self) -> Path:
        """The policies in force, through the link."""
        return self.directory / CURRENT / "policies"

    @property
    def mesh(self) -> Path:
        """The mesh description in force, through the link; sources without one do not have it."""
        return self.directory / CURRENT / "mesh.yaml"

    @property
    def traffic(self) -> Path:
        """What is beside the description in force, through the link: empty where the revision has nothing of it."""
        return self.directory / CURRENT / "traffic"

    def open(self) -> None:
        """
        Make the directory and keep other processes out until this one ends.

        Raises:
            SettingsError: another process has it, or it cannot be used.
        """
        try:
            self.directory.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SettingsError(f"the policy cache `{self.directory}` is used by another process") from None
        except OSError as error:
            self.close()
            raise SettingsError(f"the policy cache `{error.filename or self.directory}`: {error.strerror}") from error

    def close(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def taken(self) -> TakenRevision | None:
        """
        The revision taken last; None at the first time.

        Raises:
            SettingsError: it is damaged, so that nobody knows what would be older.
        """
        try:
            return TakenRevision(**json.loads((self.directory / "taken.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as error:
            where = self.directory / "taken.json"
            raise SettingsError(f"`{where}` is damaged; remove it to take whatever the source has now") from error

    def kept(self) -> bytes | None:
        """The archive of the last good revision; None without one."""
        try:
            return (self.directory / "last-good.tar.gz").read_bytes()
        except FileNotFoundError:
            return None

    def allow(self, name: str) -> None:
        """Let one revision in although it is older, once."""
        self.directory.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        write_whole(self.directory / "allowed.json", json.dumps({"revision": name}).encode())

    def allowed(self) -> str:
        """The revision that may be older; empty for none."""
        try:
            found: Any = json.loads((self.directory / "allowed.json").read_bytes())
            return str(found["revision"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return ""

    def install(self, delivery: Delivery, trial: RevisionTrial) -> None:
        """
        Unpack a revision beside the others, try it, and let readers see it by one rename.

        Whatever ``trial`` raises, the last good one stays.
        """
        revision = delivery.revision
        kept = self.directory / "kept"
        kept.mkdir(FOLDER_MODE, exist_ok=True)
        new = kept / f"{revision.number}-{revision.digest[:12]}-{os.urandom(4).hex()}"
        (new / "traffic").mkdir(FOLDER_MODE, parents=True)  # a later revision may have some, and is followed there
        try:
            write_members(new, delivery.files)
            current = self.directory / CURRENT
            trial(new, current if current.exists() else None)
            if delivery.archive is not None:
                write_whole(self.directory / "last-good.tar.gz", delivery.archive)
            write_whole(self.directory / "taken.json", json.dumps(asdict(revision)).encode())
            link = self.directory / f".{CURRENT}.{os.urandom(4).hex()}"
            link.symlink_to(new.relative_to(self.directory), target_is_directory=True)
            link.rename(self.directory / CURRENT)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if self.allowed() == revision.name:
            (self.directory / "allowed.json").unlink(missing_ok=True)
        self._prune(new)

    def swapped_at(self) -> float:
        """When readers began to see what is in force, seconds since the epoch; infinite when there is nothing."""
        try:
            return (self.directory / CURRENT).lstat().st_ctime  # a rename is a change of it
        except OSError:
            return float("inf")

    def write_status(self, status: PolicySourceStatus) -> None:
        """Leave it for the workers and for people."""
        write_whole(self.directory / "status.json", json.dumps(asdict(status)).encode())

    def _prune(self, current: Path) -> None:
        def age(folder: Path) -> float:
            with contextlib.suppress(OSError):
                return -folder.stat().st_mtime
            return 0.0

        others = sorted((one for one in current.parent.iterdir() if one != current), key=age)
        for folder in others[_KEPT - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)


def read_source_status(directory: Path | None) -> PolicySourceStatus | None:
    """What the process that asks the source last wrote; None before it did, and without a cache. Never raises."""
    if directory is None:
        return None
    try:
        return PolicySourceStatus(**json.loads((directory / "status.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, MODE)


def write_members(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write new files below a folder by their names. Raises OSError."""
    for name, data in files.items():
        (folder / name).parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        with open(folder / name, "xb", opener=_opener) as file:
            file.write(data)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by one rename, so that whoever reads it sees one or the other. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb", opener=_opener) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
