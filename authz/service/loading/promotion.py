"""
A candidate becomes the set in force, at one moment: whoever reads the policies sees the old set or the new one, whole.

How depends on what the policies are: a link to a directory is replaced by another link, a file by another file, and a
directory changes places with the candidate, which only Linux can do. What was in force is kept beside them.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from authz.core.errors import SettingsError

_AT_FDCWD, _EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL)
Exchange = Callable[[Path, Path], None]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was done: ``kept`` is where the set that was in force until now lies."""

    policies: Path
    kept: Path


def exchange(one: Path, other: Path) -> None:
    """
    Let two paths of one file system change places at one moment.

    Raises:
        OSError: ENOSYS or EINVAL where the system or the file system cannot do that.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux, glibc since 2.28, musl since 1.2.4
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def promote(candidate: Path, policies: Path, version: str, exchange: Exchange = exchange) -> Promotion:
    """
    Put a candidate that was found good in force.

    Args:
        candidate: afterwards nothing is there.
        policies: what the server's setting of that name says.
        version: of the candidate; names are made with it.
        exchange: how two directories change places.

    Raises:
        SettingsError: the layout cannot be served at one moment, and nothing was changed; the message says what to do.
        OSError: the system refused, and nothing was changed.
    """
    _check(candidate, policies)
    if policies.is_symlink():
        return _relink(candidate, policies, version)
    kept = _free(policies, f"before-{version}")
    if policies.is_dir():
        try:
            exchange(candidate, policies)
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            raise SettingsError(
                f"`{policies}` is a directory, and here two directories cannot change places at one moment: make it a "
                f"link to the directory"
            ) from error
        try:
            candidate.rename(kept)
        except OSError:
            kept = candidate  # in force is what should be
        return Promotion(policies, kept)
    os.link(policies, kept)
    try:
        candidate.replace(policies)
    except OSError:
        kept.unlink()
        raise
    return Promotion(policies, kept)


def abort(candidate: Path) -> Path:
    """
    Take a candidate out of the server's sight.

    Returns:
        Where its policies lie now: what a link led to, or the directory or file under another name.

    Raises:
        OSError: nothing is there, or the system refused.
    """
    if candidate.is_symlink():
        target = candidate.parent / candidate.readlink()
        candidate.unlink()
        return target
    kept = _free(candidate, "aborted")
    candidate.rename(kept)
    return kept


def _check(candidate: Path, policies: Path) -> None:
    for path in (candidate, policies):
        path.stat()  # raises where nothing is there
    ours, theirs = policies.resolve(), candidate.resolve()
    if ours == theirs:
        raise SettingsError(f"`{candidate}` is in force already: it is the same as `{policies}`")
    if are_nested(candidate, policies):
        raise SettingsError(f"`{candidate}` and `{policies}` lie one within the other: move the candidate out")
    if ours.is_dir() != theirs.is_dir():
        raise SettingsError(f"one of `{candidate}` and `{policies}` is a directory, the other a file: make them alike")
    if candidate.is_symlink() and not policies.is_symlink():
        raise SettingsError(f"`{candidate}` is a link and `{policies}` is none: make both links, or neither")


def are_nested(one: Path, other: Path) -> bool:
    """Whether one lies within the other, or is the same: each would be read with the other."""
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)


def _relink(candidate: Path, policies: Path, version: str) -> Promotion:
    """Replace the link; a candidate that is none moves beside what the link leads to, for the link needs a target."""
    old, written = policies.resolve(), policies.readlink()
    is_link = candidate.is_symlink()
    new = candidate.resolve() if is_link else _free(old.parent / candidate.name, version)
    if not is_link:
        candidate.rename(new)
    target = new if written.is_absolute() else Path(os.path.relpath(new, policies.parent.resolve()))
    link = _free(policies.parent / f".{policies.name}", "next")  # a name with a dot is not read
    try:
        link.symlink_to(target)
        link.replace(policies)
    except OSError:
        link.unlink(missing_ok=True)
        if not is_link:
            new.rename(candidate)
        raise
    if is_link:
        candidate.unlink(missing_ok=True)
    return Promotion(policies, old)


def _free(path: Path, ending: str) -> Path:
    """A name beside ``path`` that nothing has."""
    return next(name for name in _names(path, ending) if not name.exists() and not name.is_symlink())


def _names(path: Path, ending: str) -> Iterator[Path]:
    number = 1
    while True:
        yield path.with_name(f"{path.name}.{ending}" if number == 1 else f"{path.name}.{ending}-{number}")
        number += 1
