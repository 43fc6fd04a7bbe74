"""Checks 3 and 4: modes of files, directories and sockets, and the age of keys, as the file system has them."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from authz.analysis.hardening.checklist import Finding
from authz.core.errors import Severity
from authz.settings.sections import AccessLogSettings
from authz.settings.settings import Settings

KEY_DAYS = 365
"""A year: as long as most rules for keys of services allow."""
DAY = 86_400
MAX_FILES = 20_000
"""Looked at below one directory."""
_SYMMETRIC = re.compile(rb'"kty\\*"\s*:\s*\\*"oct\\*"')


class PlaceKind(StrEnum):
    """What a file is to the installation."""

    SECRET = "secret"  # noqa: S105  # no secret, a word
    TRUSTED = "trusted"
    """Decisions are made from it."""
    RECORD = "record"
    SOCKET = "socket"
    RENDERED = "rendered"
    """What Envoys run; secret where it holds a symmetric key."""


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """A path, and what it is called where it was named."""

    kind: PlaceKind
    path: Path
    name: str


def places_of(settings: Settings) -> Iterator[NamedPlace]:
    """Everything that the settings of a server name."""
    for name in ("tls_key", "admin_tls_key", "otlp_key", "admin_token_file", "audit_hash_key", "audit_signing_key",
                 "otlp_headers", "policies_headers"):  # fmt: skip
        if (path := getattr(settings, name)) is not None:
            yield NamedPlace(PlaceKind.SECRET, path, f"setting `{name}`")
    if "://" not in settings.policies:
        yield NamedPlace(PlaceKind.TRUSTED, Path(settings.policies), "setting `policies`")
    for name in ("mesh", "peer_revocations", "tls_client_ca", "admin_tls_client_ca", "tls_certificate",
                 "policies_cache", "policies_signers", "policies_ca"):  # fmt: skip
        if (path := getattr(settings, name)) is not None:
            yield NamedPlace(PlaceKind.TRUSTED, path, f"setting `{name}`")
    for path in settings.policies_public_keys:
        yield NamedPlace(PlaceKind.TRUSTED, path, "setting `policies_public_keys`")
    for bundles in settings.peer_trust_bundles.values():
        for path in bundles.split(","):
            yield NamedPlace(PlaceKind.TRUSTED, Path(path.strip()), "setting `peer_trust_bundles`")
    for sink in settings.audit:
        if sink.startswith("file:"):
            yield NamedPlace(PlaceKind.RECORD, Path(sink.removeprefix("file:")), "setting `audit`")
    doors = (door.listen for door in settings.http_doors)
    for address in (*settings.listen, *doors, *AccessLogSettings.of(settings).listen, settings.admin):
        if address.startswith("unix:"):
            name = "setting `listen`, `http_doors`, `access_logs` or `admin`"
            yield NamedPlace(PlaceKind.SOCKET, Path(address.removeprefix("unix:")), name)
    if settings.access_log_state is not None:
        yield NamedPlace(PlaceKind.RENDERED, settings.access_log_state, "setting `access_log_state`")


def judge_places(places: Iterable[NamedPlace], now: float) -> Iterator[Finding]:
    """Yield what is wrong with each; what is not there is passed over. ``now``: seconds since the epoch."""
    for place in places:
        for path in _expand(place):
            try:
                status = path.stat()
            except OSError:
                continue
            where = f"{path} ({place.name})"
            yield from _mode(place.kind, path, where, stat.S_IMODE(status.st_mode))
            if place.kind is PlaceKind.SECRET and stat.S_ISREG(status.st_mode):
                yield from _age(where, (now - status.st_mtime) / DAY)
        yield from _parent(place)


def _expand(place: NamedPlace) -> Iterator[Path]:
    """The path, and what is below it where it is a directory."""
    yield place.path
    if place.kind is PlaceKind.SOCKET or not place.path.is_dir():
        return
    left = MAX_FILES
    for directory, folders, names in os.walk(place.path):
        for name in (*folders, *names):
            if place.kind is PlaceKind.RENDERED and directory == str(place.path) and name in ("logs", "run", "certs"):
                continue
            left -= 1
            if left < 0:
                return
            yield Path(directory, name)
        folders[:] = [name for name in folders if name not in ("logs", "run", "certs")]


def _mode(kind: PlaceKind, path: Path, where: str, mode: int) -> Iterator[Finding]:
    shown = f"mode {mode:04o}"
    if kind is PlaceKind.SOCKET:
        if mode & 0o002:
            yield Finding(
                3, where, f"every user of this machine may connect ({shown})",
                "set `socket_mode` to 660, and give Envoys' users its group",
            )  # fmt: skip
        return
    is_secret = kind is PlaceKind.SECRET or (kind is PlaceKind.RENDERED and _holds_symmetric_key(path))
    if is_secret and path.is_file() and mode & 0o004:
        yield Finding(3, where, f"others may read this secret ({shown})", f"chmod o= {path}", Severity.ERROR)
    elif kind is PlaceKind.RECORD and mode & 0o004:
        yield Finding(3, where, f"others may read the record ({shown})", f"chmod o= {path}")
    if mode & 0o002 and not mode & stat.S_ISVTX:
        yield Finding(3, where, f"others may write it ({shown})", f"chmod o-w {path}", Severity.ERROR)
    elif kind is PlaceKind.SECRET and mode & 0o020:
        yield Finding(3, where, f"its group may write it ({shown})", f"chmod g-w {path}", Severity.ERROR)


def _parent(place: NamedPlace) -> Iterator[Finding]:
    """Whoever may write the directory can put another file in its place."""
    parent = place.path.parent
    try:
        mode = stat.S_IMODE(parent.stat().st_mode)
    except OSError:
        return
    if mode & 0o002 and not mode & stat.S_ISVTX:
        what = f"others may replace what lies in it (mode {mode:04o})"
        yield Finding(3, f"{parent} (directory of {place.name})", what, f"chmod o-w {parent}", Severity.ERROR)


def _age(where: str, days: float) -> Iterator[Finding]:
    if days > KEY_DAYS:
        what = f"has not been changed for {days:.0f} days"
        yield Finding(4, where, what, "make a new one, and keep both valid until everybody has it")


def _holds_symmetric_key(path: Path) -> bool:
    if path.suffix not in (".json", ".yaml"):
        return False
    try:
        return path.is_file() and _SYMMETRIC.search(path.read_bytes()) is not None
    except OSError:
        return False
