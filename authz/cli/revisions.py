"""Policies as they are, or as they were at a git revision: ``policies/`` or ``HEAD~1:policies/``; git is only read."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from authz.cli import policy_files
from authz.core.errors import AuthzError
from authz.sources.policies.listing import SUFFIXES


class NoRevision(AuthzError):
    """What was named is neither a path nor something that git has; the message says why."""


Files = list[tuple[str, bytes]]
_LINK = b"120000"
"""The mode by which git knows a link."""


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
    prefix = f"{revision}:" if inside == "." else f"{revision}:{inside}/"
    return sorted(_files(tree, prefix, name))


def _files(tree: str, prefix: str, name: str) -> Iterator[tuple[str, bytes]]:
    """The files that ``read_directory`` would read; ``git archive`` would leave out what attributes of git hide."""
    blobs: dict[str, bytes] = {}
    for entry in _git("ls-tree", "-r", "-z", "--full-tree", tree, name=name).split(b"\0")[:-1]:
        head, _, path = entry.partition(b"\t")
        mode, kind, blob = head.split()
        found = os.fsdecode(path)
        if not found.endswith(SUFFIXES) or any(part.startswith(".") for part in Path(found).parts):
            continue
        if mode == _LINK:
            raise NoRevision(f"`{prefix}{found}` is a link; links of a revision are not followed")
        if kind == b"blob":
            blobs[found] = blob
    texts = _git("cat-file", "--batch", name=name, given=b"".join(blob + b"\n" for blob in blobs.values()))
    at = 0
    for found in blobs:
        line = texts[at : texts.index(b"\n", at)]
        at += len(line) + 1
        size = int(line.split()[2])
        yield f"{prefix}{found}", texts[at : at + size]
        at += size + 1


def _git(*arguments: str, name: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(["git", *arguments], input=given, capture_output=True, check=False)  # noqa: S603, S607  # git of the user's path, without a shell
    except FileNotFoundError:
        raise NoRevision(f"`{name}` names a git revision, and there is no `git` here") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NoRevision(f"git has no `{name}`: {said[-1].removeprefix('fatal: ') if said else 'it does not say why'}")
    return done.stdout
