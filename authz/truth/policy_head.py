"""
What stands in the truth of the policies in force: a number, who pushed them and why, and the digest of their archive.

    {"format": "authz-policies/1", "number": 7, "digest": "…", "created": 1796022749, "author": "…", "message": "…",
     "rollback_of": null, "files": 12, "added": 1, "changed": 2, "removed": 0}

Whoever may push can write anything here, so it is read as anybody's text, and decides nothing: an archive is judged by
its own signature.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from authz.bundles.strict_json import read_strict_json
from authz.core.errors import AuthzError

FORMAT = "authz-policies/1"
MAX_HEAD_BYTES = 32 << 10
MAX_NUMBER = 2**53 - 1
"""What every reader of JSON keeps exactly."""
MAX_AUTHOR, MAX_MESSAGE = 200, 4000
"""Characters."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COUNTS = ("files", "added", "changed", "removed")
_MEMBERS = frozenset(("format", "number", "digest", "created", "author", "message", "rollback_of", *_COUNTS))


class DamagedHead(AuthzError):
    """What stands in the truth is no head; the message says why."""


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """One revision of the policies of a fleet."""

    number: int
    """Grows by one with every push, from 1; that of its bundle."""
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
    """Files, compared with the revision before."""
    rollback_of: int | None = None
    """The revision whose content it has again."""


def write_head(head: PolicyHead) -> bytes:
    """
    Write it as it is read.

    Raises:
        DamagedHead: it could not be read again.
    """
    told: dict[str, Any] = {
        "format": FORMAT,
        "number": head.number,
        "digest": head.digest,
        "created": head.created,
        "author": head.author,
        "message": head.message,
        "rollback_of": head.rollback_of,
        "files": head.files,
        "added": head.added,
        "changed": head.changed,
        "removed": head.removed,
    }
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
    if set(told) != _MEMBERS:
        raise DamagedHead(f"it does not have exactly the members {', '.join(sorted(_MEMBERS))}")
    if not isinstance(told["digest"], str) or not _DIGEST.fullmatch(told["digest"]):
        raise DamagedHead("its `digest` is no SHA-256")
    number = _number(told["number"], "number", 1)
    before = told["rollback_of"]
    if before is not None and _number(before, "rollback_of", 1) >= number:
        raise DamagedHead("its `rollback_of` is not older than itself")
    return PolicyHead(
        number=number,
        digest=told["digest"],
        created=_number(told["created"], "created", 0),
        author=_text(told["author"], "author", MAX_AUTHOR),
        message=_text(told["message"], "message", MAX_MESSAGE),
        rollback_of=before,
        **{name: _number(told[name], name, 0) for name in _COUNTS},
    )


def _number(told: object, name: str, least: int) -> int:
    most = 253_402_300_799 if name in ("created", "at") else MAX_NUMBER  # later years have more than four digits
    if not isinstance(told, int) or isinstance(told, bool) or not least <= told <= most:
        raise DamagedHead(f"its `{name}` is no number from {least} to {most}")
    return told


def _text(told: object, name: str, most: int) -> str:
    if not isinstance(told, str) or len(told) > most or not told.replace("\n", " ").isprintable():
        raise DamagedHead(f"its `{name}` is no text of at most {most} characters that can be printed")
    return told
