"""Policies as they are, or as they were at a git revision: ``policies/`` or ``HEAD~1:policies/``; git is only read."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from authz.cli import policy_files
from authz.core.errors import AuthzError
from authz.sources.policies.listing import SUFFIXES


class NoRevision(AuthzError):
    """What was named is neither a path nor something that git has; the message says why."""


Files = list[tuple[str, bytes]]


def is_revision(name: str) -> bool:
    """Whether a name is of a git revision: nothing has this path, and there is a colon in it."""
    return ":" in name and not Path(name).exists()


def read_named(name: str) -> Files:
    """
    Read a file, a directory, or either of them at a git revision.

    Returns:
        Names with contents; names of a revision begin with ``REVISION:``.

    Raises:
        NoRevision: there is no such path, git is not there, or it does not know the revision.
        OSError: a file cannot be read.
    """
    if not is_revision(name):
        if not Path(name).exists() and name != policy_files.STDIN:
            raise NoRevision(f"`{name}` is no file or directory; a git revision is written `REVISION:PATH`")
        return policy_files.read_paths([name], allow_empty=True)[0]
    revision, _, path = name.partition(":")
    inside = path.rstrip("/") or "."
    if revision.startswith("-"):
        raise NoRevision(f"`{name}` names no git revision")
    asked = f"{revision}:./{inside}" if not inside.startswith(("./", "../")) else f"{revision}:{inside}"
    kind = _git("cat-file", "-t", asked, name=name).decode().strip()
    if kind == "blob":
        return [(f"{revision}:{inside}", _git("cat-file", "blob", asked, name=name))]
    tree = _git("rev-parse", "--verify", asked, name=name).decode().strip()
    top = _git("rev-parse", "--show-toplevel", name=name).decode().rstrip("\n")
    prefix = f"{revision}:" if inside == "." else f"{revision}:{inside}/"
    return sorted(_members(_git("-C", top, "archive", "--format=tar", tree, name=name), prefix))


def _members(data: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The files of a tree that ``read_directory`` would read."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts
            if not member.name.endswith(SUFFIXES) or any(part.startswith(".") for part in parts):
                continue
            if member.issym():
                raise NoRevision(f"`{prefix}{member.name}` is a link; links of a revision are not followed")
            content = archive.extractfile(member)
            if content is not None:
                yield f"{prefix}{member.name}", content.read()


def _git(*arguments: str, name: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)  # noqa: S603, S607  # git of the user's path, without a shell
    except FileNotFoundError:
        raise NoRevision(f"`{name}` names a git revision, and there is no `git` here") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NoRevision(f"git has no `{name}`: {said[-1].removeprefix('fatal: ') if said else 'it does not say why'}")
    return done.stdout
