"""What goes into a bundle: files by name, who made them from which commit, the key that signs."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from authz.bundles.bundle_signatures import BundleKey, VerifyingKey, read_bundle_key, read_verifying_key
from authz.bundles.manifest import MESH, BundleRefused, Provenance
from authz.identity.secret_files import read_secret
from authz.sources.policies.directory import read_directory, read_file
from authz.telemetry.counters import program_version

_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def signing_key(file: Path) -> BundleKey:
    """
    Read the key that signs, from a file that nobody else can read.

    Raises:
        BundleRefused: it is another kind of key, or others can read it.
        OSError: it cannot be read.
    """
    try:
        pem = read_secret(file)
    except ValueError as error:
        raise BundleRefused(str(error)) from error
    try:
        return read_bundle_key(pem)
    except BundleRefused as error:
        raise BundleRefused(f"`{file}` {error}") from error


def verifying_keys(files: Iterable[Path]) -> tuple[VerifyingKey, ...]:
    """
    Read public keys.

    Raises:
        BundleRefused: one is another kind of key.
        OSError: one cannot be read.
    """
    found = []
    for file in files:
        try:
            found.append(read_verifying_key(file.read_bytes()))
        except BundleRefused as error:
            raise BundleRefused(f"`{file}` {error}") from error
    return tuple(found)


def bundle_files(
    policies: tuple[Path, ...], mesh: Path | None, traffic: Path | None, trust: tuple[Path, ...]
) -> dict[str, bytes]:
    """
    The files of a bundle by their names in it.

    Raises:
        BundleRefused: two of the paths have the same name.
        OSError: one cannot be read.
    """
    files: dict[str, bytes] = {}
    for name, data in _members(policies, mesh, traffic, trust):
        if name in files:
            raise BundleRefused(f"`{name}` would stand in it twice: two of the paths have it")
        files[name] = data
    return files


def _members(
    policies: tuple[Path, ...], mesh: Path | None, traffic: Path | None, trust: tuple[Path, ...]
) -> Iterator[tuple[str, bytes]]:
    for folder, paths in (("policies", policies), ("traffic", (traffic,) if traffic is not None else ())):
        for path in paths:
            above = path if path.is_dir() else path.parent
            for name, data in read_directory(path):
                yield f"{folder}/{Path(name).relative_to(above).as_posix()}", data
    if mesh is not None:
        yield MESH, read_file(mesh)
    for path in trust:
        yield f"trust/{path.name}", read_file(path)


def duration_seconds(text: str) -> int:
    """Seconds of ``30d``, ``12h`` or ``90m``. Raises click.BadParameter."""
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if found is None:
        raise click.BadParameter("expected a number of days, hours or minutes: 30d, 12h, 90m", param_hint="--expires")
    return int(found[1]) * _SECONDS[found[2]]


def provenance_of(path: Path) -> Provenance:
    """The commit that the files are of, with `-dirty` where they differ from it; nothing outside of git."""
    tool = f"authz {program_version()}"
    folder = path if path.is_dir() else path.parent

    def git(*arguments: str) -> str:
        command_line = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command_line, capture_output=True, text=True, check=True)  # noqa: S603  # the user's git
        return done.stdout.strip()

    try:
        commit, author = git("log", "-1", "--format=%H%n%an").split("\n")
        is_dirty = bool(git("status", "--porcelain", "--", "."))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return Provenance(tool=tool)
    return Provenance(f"{commit}-dirty" if is_dirty else commit, author, tool)
