"""
The policies that were in force, kept by version, so that a recorded decision can be decided again as it was.

    DIR/0123456789ab.zip        policies/NAME and mesh/NAME, as they were read

Several processes may share a directory: a version is written whole, by rename, by whoever comes first, and its time is
when it was last put in force. Key sets that were fetched are not kept; secrets of inline ones are blotted out.
"""

import contextlib
import io
import json
import logging
import os
import re
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.core.attributes import Workload
from authz.core.compiler import compile_as_needed
from authz.core.errors import LoadError, Problem
from authz.core.resources import MeshConfig, Resources
from authz.policy.mesh_config import read_mesh
from authz.policy.reader import read_policies
from authz.service.loading.described import described_workloads
from authz.service.loading.snapshot import Snapshot
from authz.sources.policies.directory import read_directory, read_file

_log = logging.getLogger("authz.archive")
MODE, FOLDER_MODE = 0o640, 0o750
MAX_VERSIONS = 1000
"""Versions kept; those that were longest out of force go first."""
MAX_BYTES = 256 << 20
"""Bytes kept, of all versions together."""
STALE_SECONDS = 3600.0
"""A half-written file so old is of a process that was killed."""
_VERSION = re.compile(r"[0-9a-f]{12}")
_POLICIES, _MESH = "policies/", "mesh/"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What reading a file raises that is no archive, or one that we did not write."""
_SECRET_MEMBERS = ("k", "d", "p", "q", "dp", "dq", "qi", "r", "t", "priv")
"""Private members of a JSON Web Key of any kind; ``r`` and ``t`` are those of an RSA key with more primes than two."""


@dataclass(frozen=True, slots=True)
class PolicyTexts:
    """The files of one set, as they were read."""

    policies: tuple[tuple[str, bytes], ...]
    mesh: tuple[str, bytes] | None = None


def read_texts(policies: Path, mesh_file: Path | None) -> PolicyTexts:
    """Read what ``load_snapshot`` reads. Raises OSError."""
    is_file = policies.exists() and not policies.is_dir()
    files = [(str(policies), read_file(policies))] if is_file else read_directory(policies)
    return PolicyTexts(tuple(files), (str(mesh_file), read_file(mesh_file)) if mesh_file is not None else None)


class Archive:
    """A directory of policy sets by version."""

    def __init__(self, directory: Path, *, max_versions: int = MAX_VERSIONS, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self._max_versions = max_versions
        self._max_bytes = max_bytes

    def keep(self, version: str, texts: PolicyTexts, resources: Resources) -> bool:
        """
        Keep a set that was put in force, and drop the oldest ones beyond the bounds.

        Returns:
            Whether it is kept; False when a secret of an inline key set could not be found in the text.

        Raises:
            OSError: the directory cannot be written.
        """
        path = self._path(version)
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return True
        hidden = _without_secrets(texts, resources)
        if hidden is None:
            return False
        self.directory.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        _write(path, _zipped(hidden))
        self._prune(version)
        return True

    def snapshot(self, version: str) -> Snapshot | None:
        """
        Load a version as it was in force; None when it is not kept.

        Raises:
            LoadError: this program refuses what was in force then.
            OSError: it cannot be read.
        """
        if not _VERSION.fullmatch(version):
            return None
        path = self._path(version)
        try:
            texts = _read(path)
        except FileNotFoundError:
            return None
        except _BROKEN as error:
            raise OSError(None, "is no archived set of policies", str(path)) from error
        found = _load(texts, version)
        # Without the keys that were blotted out it has another digest, and nobody can tell.
        if found.engine.version != version and not any(map(_has_secrets, _inline_keys(found.engine.resources))):
            raise OSError(None, f"is another set of policies than {version}", str(path))
        return found

    def versions(self) -> dict[str, float]:
        """The versions kept, with the time when each was last put in force; empty without the directory."""
        return {file.name.removesuffix(".zip"): status.st_mtime for file, status in self._files()}

    def _path(self, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise ValueError(f"`{version}` is not a policy version")
        return self.directory / f"{version}.zip"

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for file in self.directory.glob("*.zip") if self.directory.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another process drops files, too
                if _VERSION.fullmatch(file.stem):
                    yield file, file.stat()

    def _prune(self, current: str) -> None:
        """Drop what is beyond the bounds, never the version in force, and what killed processes left half-written."""
        kept = size = 0
        for file, status in sorted(self._files(), key=lambda one: (one[0].stem != current, -one[1].st_mtime)):
            kept, size = kept + 1, size + status.st_size
            if file.stem != current and (kept > self._max_versions or size > self._max_bytes):
                file.unlink(missing_ok=True)
        for file in self.directory.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < time.time() - STALE_SECONDS:
                    file.unlink()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{os.urandom(4).hex()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _zipped(texts: PolicyTexts) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in texts.policies:
            archive.writestr(_POLICIES + name, data)
        if texts.mesh is not None:
            archive.writestr(_MESH + texts.mesh[0], texts.mesh[1])
    return stream.getvalue()


def _read(path: Path) -> PolicyTexts:
    with zipfile.ZipFile(path) as archive:
        if sum(one.file_size for one in archive.infolist()) > MAX_BYTES:
            raise ValueError("more than was ever kept")
        if not {one.compress_type for one in archive.infolist()} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("packed otherwise than we do")  # other methods raise errors of their own
        found = [(name, archive.read(name)) for name in archive.namelist()]
    policies = ((name.removeprefix(_POLICIES), data) for name, data in found if name.startswith(_POLICIES))
    mesh = next(((name.removeprefix(_MESH), data) for name, data in found if name.startswith(_MESH)), None)
    return PolicyTexts(tuple(policies), mesh)


def _load(texts: PolicyTexts, version: str) -> Snapshot:
    mesh = MeshConfig()
    workloads: tuple[Workload, ...] = ()
    problems: tuple[Problem, ...] = ()
    if texts.mesh is not None:
        name, data = texts.mesh
        mesh, problems = read_mesh(name, data)
        workloads = described_workloads(Path(name), data)
    result = read_policies(list(texts.policies), mesh, allow_empty=True)
    found = (*problems, *result.problems)
    if any(problem.is_error for problem in found):
        raise LoadError(found)
    return Snapshot(compile_as_needed(result.resources, mesh), mesh, version, 0.0, found, workloads)


def _without_secrets(texts: PolicyTexts, resources: Resources) -> PolicyTexts | None:
    """
    Blot out symmetric and private keys, each by as many other characters.

    None where one is not found as it is, or elsewhere, too: another word of a policy would be blotted out with it.
    """
    inline = tuple(_inline_keys(resources))
    secrets = sorted({secret for text in inline for secret in _secrets(text)}, key=len, reverse=True)
    files = dict(texts.policies)
    for secret in secrets:
        written = secret.encode()
        in_keys = sum(text.count(secret) for text in inline)
        if not in_keys or sum(data.count(written) for data in files.values()) != in_keys:
            return None
    for secret in secrets:
        files = {name: data.replace(secret.encode(), b"A" * len(secret)) for name, data in files.items()}
    return PolicyTexts(tuple(files.items()), texts.mesh)


def _inline_keys(resources: Resources) -> Iterable[str]:
    return (rule.jwks for item in resources.request_authentications for rule in item.jwt_rules if rule.jwks)


def _has_secrets(text: str) -> bool:
    return any(True for _ in _secrets(text))


def _secrets(text: str) -> Iterator[str]:
    """Values of secret members of the keys, whatever the case of their names."""
    try:
        parsed: Any = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return
    todo: list[Any] = [parsed]
    while todo:
        value = todo.pop()
        if not isinstance(value, list):
            continue
        for one in value:
            if isinstance(one, tuple):
                name, inner = one
                if isinstance(inner, str) and name.lower() in _SECRET_MEMBERS and inner:
                    yield inner
                todo.append(inner)
            else:
                todo.append(one)
