"""Rendered files on disk: written by rename, as Envoy wants it (XA-150), and compared with what they should be."""

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from authz.envoy.options import (
    CLIENT_SECRET,
    FILTERS_HEADER,
    HEADER,
    HMAC_KEY,
    LOGIN_HEADER,
    RENDERED_DIRECTORIES,
)
from authz.mesh.login import Login

PUBLIC_MODE, SECRET_MODE = 0o666, 0o640
"""As the umask allows, and for owner and group only: the group is that of the Envoys."""
KEY_MODE, KEY_BYTES = 0o600, 32
_SYMMETRIC = re.compile(rb'"kty\\*"\s*:\s*\\*"oct\\*"')
"""A symmetric key of a key set, within text or not: whoever reads it can sign tokens."""


_TURNS = ("ecds", "sds", "login", "eds", "eds-compose", "cds", "rds", "lds", "envoy")


def _turn(name: str) -> int:
    directory = name.partition("/")[0]
    return _TURNS.index(directory) if directory in _TURNS else len(_TURNS)


def write_files(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """
    Write what is new or different, each file renamed into place; return the names written, in that order.

    What others refer to comes first: a proxy refuses clusters whose endpoints, and listeners whose routes, are not
    there yet. Within a directory the given order stays.

    Running Envoys follow. What holds a symmetric key is for owner and group only. Raises OSError.
    """
    written = []
    for name, content in sorted(files.items(), key=lambda item: _turn(item[0])):
        path = out / name
        mode = SECRET_MODE if _SYMMETRIC.search(content) else PUBLIC_MODE
        if path.is_file() and path.read_bytes() == content:
            if mode == SECRET_MODE and path.stat().st_mode & 0o007:
                path.chmod(SECRET_MODE)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")  # with a dot, so that nobody takes it for a resource
        fresh.unlink(missing_ok=True)  # left by a killed run, maybe readable for everybody
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(content)
        fresh.replace(path)
        written.append(name)
    return tuple(written)


def differences(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Say, one line each and sorted, which files are missing, different, or left over. Raises OSError."""
    found = []
    for name, content in files.items():
        path = out / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif path.read_bytes() != content:
            found.append(f"{name}: differs")
    found += [f"{name}: left over" for name in left_over(out, files)]
    return tuple(sorted(found))


def left_over(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Find files that, by their first line, were once rendered and no longer are. Raises OSError."""
    found = []
    for directory in RENDERED_DIRECTORIES:
        for path in sorted((out / directory).glob("*.*")):
            name = f"{directory}/{path.name}"
            if name not in files and path.read_bytes().startswith((HEADER, FILTERS_HEADER, LOGIN_HEADER)):
                found.append(name)
    return tuple(found)


def make_login_keys(
    out: Path, logins: Iterable[Login], random: Callable[[int], str] = secrets.token_urlsafe
) -> tuple[str, ...]:
    """
    Make the key that protects the sessions of each login, for the owner only, unless there is one.

    It lies beside the client's secret, and is made only where that is: without it nobody can log in.

    Returns:
        What is wrong with client secrets, one line each. Raises OSError.
    """
    told = []
    for login in logins:
        directory = out / "certs" / login.credential
        secret = directory / CLIENT_SECRET
        if not secret.exists():
            told.append(
                f"`{secret}` is missing: nobody can log in without the client's secret; put it there, render again"
            )
            continue
        with contextlib.suppress(PermissionError):  # it may be readable for Envoy's user only
            written = secret.read_bytes()
            if written != written.strip():
                told.append(f"`{secret}` begins or ends with blanks or a line break, which Envoy sends as part of it")
            if b"%" in written:
                told.append(f"`{secret}` has a `%`, which Envoy does not encode: have the issuer make another secret")
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(directory / HMAC_KEY, flags, KEY_MODE), "w") as file:
                file.write(random(KEY_BYTES))
    return tuple(told)
