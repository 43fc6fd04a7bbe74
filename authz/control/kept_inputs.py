"""
What a control plane last had in force, whole: policies, description and traffic as they were read, in one file.

It is for a start at which what is in their places cannot be used. Nothing is judged here: whoever starts from it reads
it as anything else.
"""

import hashlib
import io
import os
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from authz.sources.policies.directory import read_directory
from authz.sources.policies.listing import Listing, list_files

KEPT_FILE = "last-good.zip"
UNPACKED = "last-good"
MODE, FOLDER_MODE = 0o600, 0o700
"""Policies may have secrets in inline key sets."""
MAX_BYTES = 512 << 20
_DIGEST = "digest"
_GRAIN_SECONDS = 0.02
"""A kernel's clock of files may be a tick behind."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)
"""What reading a file raises that is no archive, or one that we did not write."""


@dataclass(frozen=True, slots=True)
class InputPaths:
    """Where a mesh is read from."""

    policies: Path
    mesh: Path
    traffic: Path | None = None

    def named(self) -> dict[str, Path]:
        """By the names under which they are kept; traffic only where there is any."""
        found = {"policies": self.policies, "mesh": self.mesh}
        return found if self.traffic is None else {**found, "traffic": self.traffic}


class KeptInputs:
    """A directory with the file of what was last in force."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept = ""

    def keep(self, paths: InputPaths, read_at: float, traffic_read_at: float) -> bool:
        """
        Keep what is at these paths, if that is what was read.

        Args:
            paths: where it was read.
            read_at: when the reading of policies and description began, seconds since the epoch; what changed since was
                not read.
            traffic_read_at: when that of traffic did.

        Returns:
            Whether it is kept now.

        Raises:
            OSError: it cannot be read, or not be written.
        """
        files: dict[str, bytes] = {}
        for kind, path in paths.named().items():
            for name, data in read_directory(path):
                files[f"{kind}/{_name_below(path, name)}"] = data
        for kind, path in paths.named().items():
            if _changed_at(path) > (traffic_read_at if kind == "traffic" else read_at) - _GRAIN_SECONDS:
                return False
        digest = _digest(files)
        if digest != self._kept:
            _write(self._directory / KEPT_FILE, _zipped(files, digest))
            self._kept = digest
        return True

    def unpack(self) -> InputPaths | None:
        """
        Lay out what is kept, and say where; None when nothing is.

        Raises:
            OSError: it is not what was kept, or cannot be laid out.
        """
        path = self._directory / KEPT_FILE
        if not path.exists():
            return None
        try:
            files, digest = _unzipped(path)
            if _digest(files) != digest or not any(name.startswith("mesh/") for name in files):
                raise ValueError("another digest, or no description")
        except _BROKEN as error:
            raise OSError(None, "is not what was kept", str(path)) from error
        top = self._directory / UNPACKED / digest[:16]
        shutil.rmtree(top.parent, ignore_errors=True)  # of earlier starts
        for name, data in files.items():
            _write(top / name, data)
        self._kept = digest
        kinds = {name.partition("/")[0]: name for name in files}
        traffic = top / "traffic" if "traffic" in kinds else None
        (top / "policies").mkdir(FOLDER_MODE, exist_ok=True)
        return InputPaths(top / "policies", top / kinds["mesh"], traffic)


def _name_below(path: Path, name: str) -> str:
    relative = os.path.relpath(name, path)
    return path.name if relative == "." else Path(relative).as_posix()


def _changed_at(path: Path) -> float:
    """When something of a path last changed: a file, a name in a folder, a link on the way."""
    listing = Listing()
    list_files(path, listing, has_way=True)
    times = [entry[-1] for entry in listing.entries] + [shape[-1] for shape in listing.shapes]
    times += [Path(link).lstat().st_ctime_ns for link, _ in listing.links]
    return max(times, default=0) / 1e9


def _digest(files: dict[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, data in sorted(files.items()):
        found.update(f"{len(name)} {len(data)} {name}".encode())
        found.update(data)
    return found.hexdigest()


def _zipped(files: dict[str, bytes], digest: str) -> bytes:
    stream = io.BytesIO()
    # Not compressed: it is written every few seconds while policies change, and a large description hardly does.
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_DIGEST, digest)
        for name, data in sorted(files.items()):
            archive.writestr(name, data)
    return stream.getvalue()


def _unzipped(path: Path) -> tuple[dict[str, bytes], str]:
    """The files and what their digest is to be. Raises what broken archives raise, and ValueError for odd names."""
    with zipfile.ZipFile(path) as archive:
        if sum(one.file_size for one in archive.infolist()) > MAX_BYTES:
            raise ValueError("more than is ever kept")
        found = {name: archive.read(name) for name in archive.namelist()}
    digest = found.pop(_DIGEST).decode()
    for name in found:
        parts = PurePosixPath(name).parts
        if parts[0] not in ("policies", "mesh", "traffic") or len(parts) < 2 or ".." in parts:
            raise ValueError(f"`{name}` is none of ours")
    return found, digest


def _write(path: Path, data: bytes) -> None:
    """Whole, or not at all; for nobody else."""
    path.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
