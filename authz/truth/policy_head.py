"""
What stands in the truth of the policies in force: a number, who pushed them and why, and the digest of their archive.

    {"format": "authz-policies/1", "number": 7, "digest": "…", "created": 1796022749, "author": "…", "message": "…",
     "rollback_of": null, "promoted_from": null, "files": 12, "added": 1, "changed": 2, "removed": 0,
     "reserved": 8, "candidate": {"number": 8, "digest": "…", …, "aborted": null}}

A candidate stands in the head beside which it was made, so that one compare-and-swap puts something else in its place
or takes it away. Its number comes from the same sequence, and is never given again.

Whoever may push can write anything here, so it is read as anybody's text, and decides nothing: an archive is judged by
its own signature.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from authz.bundles.strict_json import read_strict_json
from authz.core.errors import AuthzError

FORMAT = "authz-policies/1"
MAX_HEAD_BYTES = 64 << 10
MAX_NUMBER = 2**53 - 1
"""What every reader of JSON keeps exactly."""
MAX_AUTHOR, MAX_MESSAGE, MAX_REASON = 200, 4000, 1000
"""Characters."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COUNTS = ("files", "added", "changed", "removed")
_BOTH = ("number", "digest", "created", "author", "message", *_COUNTS)
_MEMBERS = frozenset((*_BOTH, "format", "rollback_of", "promoted_from", "reserved", "candidate"))
_OF_CANDIDATE = frozenset((*_BOTH, "aborted"))
_OF_ABORT = frozenset(("at", "by", "reason"))


class DamagedHead(AuthzError):
    """What stands in the truth is no head; the message says why."""


@dataclass(frozen=True, slots=True)
class CandidateAbort:
    """Who took a candidate back; ``at`` is in seconds since the epoch."""

    at: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class PushedSet:
    """What is said of every set of policies that was pushed."""

    number: int
    """Grows with every push, from 1; that of its bundle."""
    digest: str
    """SHA-256 of the archive, in hexadecimal: its name."""
    created: int
    """Seconds since the epoch, as its author says."""
    author: str
    message: str
    files: int
    """In the whole set."""
    added: int = 0
    changed: int = 0
    removed: int = 0
    """Files, compared with the revision before; of a candidate, with the one that is in force."""


@dataclass(frozen=True, slots=True)
class PushedCandidate(PushedSet):
    """A candidate as it was pushed. For whom it is, its archive says."""

    aborted: CandidateAbort | None = None


@dataclass(frozen=True, slots=True)
class PolicyHead(PushedSet):
    """One revision of the policies of a fleet."""

    rollback_of: int | None = None
    """The revision whose content it has again."""
    reserved: int = 0
    """The highest number that a candidate ever had; 0 for none."""
    candidate: PushedCandidate | None = None
    """Beside this revision."""
    promoted_from: int | None = None
    """The candidate whose policies it has."""

    @property
    def next_number(self) -> int:
        """What nobody has had yet."""
        return max(self.number, self.reserved) + 1


def write_head(head: PolicyHead) -> bytes:
    """
    Write it as it is read.

    Raises:
        DamagedHead: it could not be read again.
    """
    told: dict[str, Any] = {
        "format": FORMAT,
        **_told(head),
        "rollback_of": head.rollback_of,
        "promoted_from": head.promoted_from,
        "reserved": head.reserved,
        "candidate": None,
    }
    if (candidate := head.candidate) is not None:
        aborted = asdict(candidate.aborted) if candidate.aborted is not None else None
        told["candidate"] = {**_told(candidate), "aborted": aborted}
    data = json.dumps(told, ensure_ascii=True).encode()
    read_head(data)
    return data


def read_head(data: bytes) -> PolicyHead:
    """
    Read a head from anybody: exactly its members, each once, of its type and within its bounds.

    Raises:
        DamagedHead: it is none.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise DamagedHead(f"it has more than {MAX_HEAD_BYTES} bytes")
    try:
        told = read_strict_json(data)
    except ValueError:
        raise DamagedHead("it is no JSON in which every member stands once") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DamagedHead(f"it has another format than `{FORMAT}`: use a program that knows it")
    _members(told, _MEMBERS)
    both = _read(told)
    number = int(both["number"])
    reserved = _number(told["reserved"], "reserved", 0)
    for name in ("rollback_of", "promoted_from"):
        if told[name] is not None and _number(told[name], name, 1) >= number:
            raise DamagedHead(f"its `{name}` is not older than itself")
    candidate = None
    if told["candidate"] is not None:
        candidate = _read_candidate(told["candidate"])
        if not number < candidate.number <= reserved:
            raise DamagedHead("its candidate has a number that is not after its own, or not reserved")
    return PolicyHead(
        **both,
        rollback_of=told["rollback_of"],
        reserved=reserved,
        candidate=candidate,
        promoted_from=told["promoted_from"],
    )


def _told(head: PushedSet) -> dict[str, Any]:
    return {name: getattr(head, name) for name in _BOTH}


def _read_candidate(told: object) -> PushedCandidate:
    found = _members(told, _OF_CANDIDATE)
    aborted = None
    if found["aborted"] is not None:
        said = _members(found["aborted"], _OF_ABORT)
        aborted = CandidateAbort(
            _number(said["at"], "at", 0),
            _text(said["by"], "by", MAX_AUTHOR),
            _text(said["reason"], "reason", MAX_REASON),
        )
    return PushedCandidate(**_read(found), aborted=aborted)


def _read(told: Mapping[str, Any]) -> dict[str, Any]:
    """What revisions and candidates have in common."""
    if not isinstance(told["digest"], str) or not _DIGEST.fullmatch(told["digest"]):
        raise DamagedHead("its `digest` is no SHA-256")
    return {
        "number": _number(told["number"], "number", 1),
        "digest": told["digest"],
        "created": _number(told["created"], "created", 0),
        "author": _text(told["author"], "author", MAX_AUTHOR),
        "message": _text(told["message"], "message", MAX_MESSAGE),
        **{name: _number(told[name], name, 0) for name in _COUNTS},
    }


def _members(told: object, names: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(told, dict) or set(told) != names:
        raise DamagedHead(f"it does not have exactly the members {', '.join(sorted(names))}")
    return told


def _number(told: object, name: str, least: int) -> int:
    most = 253_402_300_799 if name in ("created", "at") else MAX_NUMBER  # later years have more than four digits
    if not isinstance(told, int) or isinstance(told, bool) or not least <= told <= most:
        raise DamagedHead(f"its `{name}` is no number from {least} to {most}")
    return told


def _text(told: object, name: str, most: int) -> str:
    if not isinstance(told, str) or len(told) > most or not told.replace("\n", " ").isprintable():
        raise DamagedHead(f"its `{name}` is no text of at most {most} characters that can be printed")
    return told
