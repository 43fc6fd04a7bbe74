"""
What one of several authorities below one root says of itself: public facts that the others need.

    <directory>/announcement.json     our own
    <directory>/others/<name>.json    of every other authority, the last good one

The intermediates help to judge a leaf that comes alone (XA-35), the keys to judge a JWT-SVID, the states to see
how far it is with a change of the root. Each is signed (``signed_document``): it does not matter how it got here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from authz.core.attributes import Json
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import read_bundle_document
from authz.identity.secret_files import write_file
from authz.identity.signed_document import unseal
from authz.tokens.jwks import Key

KIND = "announcement"
OWN_FILE = "announcement.json"
OTHERS_DIRECTORY = "others"
TRUSTED = "trusted"
FIRST_NAME = "first"
"""The authority that `authz ca init` makes."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Announcement:
    """One authority, as it described itself last."""

    name: str
    sequence: int
    """Milliseconds since the epoch when it was made; a smaller one never replaces a larger one."""
    intermediates: tuple[x509.Certificate, ...] = ()
    jwt_keys: tuple[Key, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    """By id of a root: the state in which this authority has it; ``TRUSTED`` if it cannot sign below it."""
    awaited: Mapping[str, str] = field(default_factory=dict)
    """By id of a root: the public key (PEM) for which an intermediate below it is wanted."""
    plan: int = 0
    """The sequence of the last change of the root that it follows."""
    taken: Mapping[str, int] = field(default_factory=dict)
    """By kind: the number of the signed entries and revocations that are in force there."""


def check_name(name: str) -> str:
    """The name itself. Raises ValueError for one that is no name of an authority."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"`{name}` is not a name of an authority; write up to 63 of a-z, 0-9 and `-`")
    return name


def read_announcement(data: bytes, bundle: TrustBundle) -> Announcement:
    """Read and verify one. ``bundle``: our own trust domain's. Raises ValueError with a reason."""
    payload = unseal(KIND, data, bundle)
    try:
        return Announcement(
            check_name(str(payload["name"])),
            _whole(payload, "sequence"),
            _certificates(str(payload["intermediates"])),
            read_bundle_document(bundle.trust_domain, str(payload["bundle"]).encode()).bundle.jwt_keys,
            _texts(payload, "states"),
            _texts(payload, "awaited"),
            _whole(payload, "plan"),
            _numbers(payload, "taken"),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"it is not an announcement: {error}") from None


def read_others(directory: Path, own: str, bundle: TrustBundle) -> tuple[tuple[Announcement, ...], tuple[str, ...]]:
    """
    Read what the other authorities said, and say of each file that cannot be believed why not. Raises OSError.

    What is not believed adds nothing; it never takes this authority down. One may have been signed below a root that
    was retired, by an authority that was not there at the time.
    """
    found, problems = [], []
    for path in sorted((directory / OTHERS_DIRECTORY).glob("*.json")):
        try:
            other = read_announcement(path.read_bytes(), bundle)
            if other.name != path.stem:
                raise ValueError(f"it is of the authority `{other.name}`")
            if other.name == own:
                raise ValueError("this authority has the same name; make others with `authz ca intermediate issue`")
            found.append(other)
        except ValueError as error:
            problems.append(f"`{path}` is not believed: {error}")
    return tuple(found), tuple(problems)


def keep_other(directory: Path, data: bytes, name: str, bundle: TrustBundle) -> Announcement | None:
    """
    Keep what the authority of this name said; None if there is nothing new in it.

    Raises ValueError for one that is not believed, or older than the one at hand; OSError.
    """
    told = read_announcement(data, bundle)
    if told.name != name:
        raise ValueError(f"it is of the authority `{told.name}`")
    path = directory / OTHERS_DIRECTORY / f"{told.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if path.exists():
        try:
            kept = read_announcement(path.read_bytes(), bundle)
        except ValueError:  # what is not believed is replaced by what is
            kept = None
        if kept is not None and kept.sequence >= told.sequence:
            if kept.sequence > told.sequence:
                raise ValueError(f"the authority `{told.name}` said something newer before")
            return None
    write_file(path, data)
    return told


def drop_forgotten(directory: Path, known: Iterable[str], bundle: TrustBundle) -> None:
    """
    Drop what authorities said that are known no longer, once it says nothing: below a root that was retired.

    Until then it stays, for what they signed is still good. Raises OSError.
    """
    names = set(known)
    for path in (directory / OTHERS_DIRECTORY).glob("*.json"):
        if path.stem not in names:
            try:
                read_announcement(path.read_bytes(), bundle)
            except ValueError:
                path.unlink(missing_ok=True)


def _certificates(pem: str) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(pem.encode())) if pem else ()


def _whole(payload: Mapping[str, Json], name: str) -> int:
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` is not a whole number")
    return value


def _texts(payload: Mapping[str, Json], name: str) -> dict[str, str]:
    value = payload[name]
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` is not an object")  # content, not a mistake in a program
    return {key: str(text) for key, text in value.items()}


def _numbers(payload: Mapping[str, Json], name: str) -> dict[str, int]:
    """None where an older version said nothing of it."""
    value = payload.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` is not an object")  # content, not a mistake in a program
    return {key: _whole(value, key) for key in value}
