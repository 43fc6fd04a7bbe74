"""
Where policies come from, as the setting ``policies`` says it.

    policies/                                   a directory or a file
    https://host/shop.tar.gz                    a signed bundle; http:// for this machine alone
    file:///var/lib/shop.tar.gz                 the same, put there by somebody else
    git+https://host/policies.git#main          a branch or tag of a repository
    git+file:///srv/policies.git#main:shop      a folder in it
    nats://one:4222,two:4222/shop               the bundle in force in the truth of a fleet
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from authz.core.errors import SettingsError
from authz.truth.truth_address import SCHEME as NATS
from authz.truth.truth_address import read_truth_address

_REF = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]*[A-Za-z0-9_-])?")
_LOCAL = ("localhost", "127.0.0.1", "::1")
FORMS = "a path, https://…/bundle.tar.gz, file:///…/bundle.tar.gz, git+https://…#ref, git+file:///…#ref or nats://HOST/FLEET"


class AddressKind(StrEnum):
    """What answers at an address."""

    PATH = "path"
    HTTP = "http"
    FILE = "file"
    GIT = "git"
    TRUTH = "truth"


@dataclass(frozen=True, slots=True)
class PolicyAddress:
    """An address taken apart."""

    kind: AddressKind
    place: str
    """A path, a URL without fragment, or what git calls a repository."""
    ref: str = ""
    folder: str = ""
    """Within a repository; empty for all of it."""

    @property
    def is_bundle(self) -> bool:
        """Whether what comes from there is signed by itself."""
        return self.kind in (AddressKind.HTTP, AddressKind.FILE, AddressKind.TRUTH)

    def __str__(self) -> str:
        """As people and metrics see it: without user, password and query."""
        if self.kind in (AddressKind.PATH, AddressKind.TRUTH):
            return self.place
        parts = urlsplit(self.place)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
        shown = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="").geturl()
        if self.kind is not AddressKind.GIT:
            return shown
        return f"git+{shown}#{self.ref}{f':{self.folder}' if self.folder else ''}"


def read_address(text: str) -> PolicyAddress:
    """
    Take an address apart.

    Raises:
        SettingsError: it has a scheme that is not known here, or cannot be an address.
    """
    scheme, divider, _ = text.partition("://")
    if not divider:
        return PolicyAddress(AddressKind.PATH, text)
    if scheme == NATS:
        return PolicyAddress(AddressKind.TRUTH, str(read_truth_address(text)))
    plain, _, fragment = text.partition("#")
    try:
        parts = urlsplit(plain)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(f"`{scheme}://…` is not an address: {FORMS}") from None
    if scheme in ("https", "http") and host and not fragment:
        if scheme == "http" and host not in _LOCAL:
            raise SettingsError("policies are fetched from other machines by https:// only")
        return PolicyAddress(AddressKind.HTTP, plain)
    if scheme in ("file", "git+file") and (host or not parts.path.startswith("/") or parts.query):
        raise SettingsError(f"`{scheme}://` is followed by a whole path, as in {scheme}:///srv/policies")
    if scheme == "file" and not fragment:
        return PolicyAddress(AddressKind.FILE, plain)
    if scheme in ("git+https", "git+file") and (host or scheme == "git+file"):
        ref, _, folder = unquote(fragment).partition(":")
        return PolicyAddress(AddressKind.GIT, plain.removeprefix("git+"), _ref(ref), _folder(folder))
    raise SettingsError(f"`{scheme}://…` is none of the addresses of policies: {FORMS}")


def _ref(ref: str) -> str:
    if not ref:
        return "HEAD"
    if not _REF.fullmatch(ref) or ".." in ref or "//" in ref or ref.endswith(".lock"):
        raise SettingsError(f"`#{ref}` names no branch or tag")
    return ref


def _folder(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or any(part.startswith(".") for part in path.parts) or not folder.isprintable():
        raise SettingsError(f"`{folder}` is no folder within a repository")
    return "" if str(path) == "." else str(path)
