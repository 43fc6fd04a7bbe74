"""
The manifest of a bundle: what is signed. It names the fleet, the revision, and the digest of every file.

    {"format": "authz-bundle/1", "fleet": "shop", "revision": 7, "created": "2026-11-30T12:00:00Z", …}

Its exact bytes are signed, so nothing is read from it that these bytes do not say: no unknown member, none twice.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from authz.bundles.strict_json import read_strict_json
from authz.canary.candidate_terms import CandidateTerms, read_terms, write_terms
from authz.core.errors import AuthzError

FORMAT = "authz-bundle/1"
MAX_FILES = 20_000
MAX_NAME_BYTES = 200
MAX_REVISION = 2**53 - 1
"""What every reader of JSON keeps exactly."""
FOLDERS = ("policies", "traffic", "trust")
MESH = "mesh.yaml"
"""The one file that stands in no folder: the mesh description."""
_FLEET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class BundleRefused(AuthzError):
    """A bundle that is not taken; the message names every reason."""


@dataclass(frozen=True, slots=True)
class BundledFile:
    """What the manifest says of one file; ``digest`` is its SHA-256 in hexadecimal."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the files come from, for people; nothing is decided by it. Empty where it is not known."""

    commit: str = ""
    author: str = ""
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is signed. Times are whole seconds since the epoch."""

    fleet: str
    revision: int
    """Grows with every bundle of a fleet, from 1."""
    created: int
    expires: int | None
    """From then on it is not put in force; None: never."""
    provenance: Provenance
    files: tuple[BundledFile, ...]
    """In the order of their names."""
    candidate: CandidateTerms | None = None
    """For whom it is if it is a candidate; None: it is for all."""


def write_manifest(manifest: Manifest) -> bytes:
    """
    Write it the one way in which it is read; the same manifest is the same bytes.

    Raises:
        BundleRefused: it could not be read again.
    """
    told: dict[str, Any] = {
        "format": FORMAT,
        "fleet": manifest.fleet,
        "revision": manifest.revision,
        "created": time_text(manifest.created),
        "expires": None if manifest.expires is None else time_text(manifest.expires),
        "provenance": {
            "commit": manifest.provenance.commit,
            "author": manifest.provenance.author,
            "tool": manifest.provenance.tool,
        },
        "files": [{"name": file.name, "size": file.size, "sha256": file.digest} for file in manifest.files],
    }
    if manifest.candidate is not None:
        try:
            told["candidate"] = write_terms(manifest.candidate)
        except ValueError as error:
            raise BundleRefused(f"the candidate's terms {error}") from None
    written = (json.dumps(told, indent=1, ensure_ascii=True) + "\n").encode()
    if read_manifest(written) != manifest:
        raise BundleRefused("the manifest cannot be written so that it is read as the same")
    return written


def read_manifest(data: bytes) -> Manifest:
    """
    Read and check everything that can be checked without the files.

    Raises:
        BundleRefused: it is not a manifest of this format.
    """
    try:
        told = read_strict_json(data)
    except ValueError as error:
        raise BundleRefused(f"the manifest is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise BundleRefused("the manifest is not a JSON object")
    if told.get("format") != FORMAT:
        raise BundleRefused(f"the manifest has another format than `{FORMAT}`: use a program that knows it")
    own = ("candidate",) if "candidate" in told else ()
    _members(told, "the manifest", ("format", "fleet", "revision", "created", "expires", "provenance", "files", *own))
    provenance = told["provenance"]
    _members(provenance, "`provenance`", ("commit", "author", "tool"))
    if not all(isinstance(value, str) for value in provenance.values()):
        raise BundleRefused("the manifest's `provenance` has a member that is not a string")
    if not isinstance(told["files"], list) or len(told["files"]) > MAX_FILES:
        raise BundleRefused(f"the manifest's `files` is not a list of at most {MAX_FILES}")
    files = tuple(map(_file, told["files"]))
    refuse_names([file.name for file in files])
    revision = _number(told["revision"], "revision", 1)
    return Manifest(
        fleet=fleet_name(told["fleet"]),
        revision=revision,
        created=read_time(told["created"], "created"),
        expires=None if told["expires"] is None else read_time(told["expires"], "expires"),
        provenance=Provenance(**provenance),
        files=files,
        candidate=_terms(told["candidate"], revision) if own else None,
    )


def fleet_name(text: object) -> str:
    """
    Check the name of a fleet, which is written as a DNS name is.

    Raises:
        BundleRefused: it is none.
    """
    if not isinstance(text, str) or not _FLEET.fullmatch(text):
        raise BundleRefused("a fleet's name has at most 63 characters of a-z, 0-9, `.` and `-`, such as `shop-eu`")
    return text


def refuse_names(names: list[str]) -> None:
    """
    Check that all names can stand beside each other on any file system.

    Raises:
        BundleRefused: a name leads elsewhere, stands twice, differs from another by case only, is both file and
            folder, or the names are not in order.
    """
    for name in names:
        if why := _wrong_name(name):
            raise BundleRefused(f"`{_shown(name)}` {why}")
    if names != sorted(names):
        raise BundleRefused("the files are not in the order of their names")
    folded: set[str] = set()
    folders: set[str] = set()
    for name in names:
        if name.casefold() in folded:
            raise BundleRefused(f"`{_shown(name)}` stands there twice, or differs from another name by case only")
        folded.add(name.casefold())
        parts = name.casefold().split("/")
        folders |= {"/".join(parts[:number]) for number in range(1, len(parts))}
    for both in sorted(folded & folders):
        raise BundleRefused(f"`{_shown(both)}` is a file and a folder")


def time_text(seconds: int) -> str:
    """Seconds since the epoch as in a manifest, ``2026-11-30T12:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def read_time(told: object, name: str) -> int:
    """
    Read what ``time_text`` wrote.

    Raises:
        BundleRefused: it is no such time; ``name`` says of what.
    """
    try:
        return int(datetime.strptime(str(told), _TIME).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise BundleRefused(f"`{name}` is no time such as `2026-11-30T12:00:00Z`") from None


def _wrong_name(name: str) -> str:
    parts = name.split("/")
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    if name != MESH and (parts[0] not in FOLDERS or len(parts) < 2):
        return f"stands in none of {', '.join(f'`{folder}/`' for folder in FOLDERS)} and is not `{MESH}`"
    if any(not part or part.startswith(".") for part in parts):
        return "has an empty part, or one that begins with a dot"
    if "\\" in name or not name.isprintable() or unicodedata.normalize("NFC", name) != name:
        return "has characters that other file systems write differently"
    return ""


def _shown(name: str) -> str:
    """A name in a message: one line, not too long."""
    return name.encode("unicode_escape").decode()[:MAX_NAME_BYTES]


def _file(told: object) -> BundledFile:
    _members(told, "a file of the manifest", ("name", "size", "sha256"))
    assert isinstance(told, Mapping), "its members were just looked at"
    name, digest = told["name"], told["sha256"]
    if not isinstance(name, str):
        raise BundleRefused("the manifest has a file whose name is not a string")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BundleRefused(f"the manifest has no SHA-256 of `{_shown(name)}`")
    return BundledFile(name, _number(told["size"], "size", 0), digest)


def _terms(told: object, revision: int) -> CandidateTerms:
    try:
        return read_terms(told, revision)
    except ValueError as error:
        raise BundleRefused(f"the manifest is that of a candidate, and its terms {error}") from None


def _members(told: object, what: str, names: tuple[str, ...]) -> None:
    if not isinstance(told, dict) or set(told) != set(names):
        raise BundleRefused(f"{what} does not have exactly the members {', '.join(f'`{name}`' for name in names)}")


def _number(told: object, name: str, least: int) -> int:
    if not isinstance(told, int) or isinstance(told, bool) or not least <= told <= MAX_REVISION:
        raise BundleRefused(f"the manifest's `{name}` is not a number from {least} to {MAX_REVISION}")
    return told
