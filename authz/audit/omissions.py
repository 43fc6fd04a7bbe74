"""
What is left out of the audit trail: redaction by field, and drop rules for records nobody wants.

Both are written as one line of text, so that a setting, a flag and an environment variable hold the same thing:
    redact: ``$.source.ip``  ``$.token.subject:hash``  ``$.request.user_agent:remove``  ``$..remote_ip``  ``$.token.*``
    drop:   ``effect=allow,request.path=/healthz*``
A denial, an audited request and one that a dry-run policy would deny are always kept, whatever the drop rules say.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from secrets import token_bytes

from authz.core.attributes import Json, read_field
from authz.core.decided import Record

_REDACTION = re.compile(r"\$(?P<path>(?:\.{1,2}[A-Za-z0-9_*]+)+)(?::(?P<how>[a-z]+))?")
_STEP = re.compile(r"(\.{1,2})([A-Za-z0-9_*]+)")
FIXED = frozenset({"decision_id", "time", "effect", "stage"})
"""Fields that cannot be redacted: without them a record cannot be found or counted."""
MASK = "***"


class Redaction(StrEnum):
    """The treatment of a field that must not be recorded as it is."""

    MASK = "mask"
    """Replace the value by ``***``; null and absent stay as they are."""
    REMOVE = "remove"
    """Take the field out."""
    HASH = "hash"
    """Replace it by a keyed digest: equal values stay equal, and nobody without the key can guess them."""


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """One path and what happens to what stands there."""

    steps: tuple[tuple[bool, str], ...]
    """(at any depth, name or ``*``) from the root."""
    how: Redaction = Redaction.MASK

    @classmethod
    def parse(cls, text: str) -> "RedactionRule":
        """Parse ``$.token.subject:hash``. Raises ValueError with the reason."""
        match = _REDACTION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"`{text}` is not a redaction: expected a path such as `$.token.subject`, then `:mask`")
        try:
            how = Redaction(match["how"] or "mask")
        except ValueError:
            raise ValueError(f"`{match['how']}` is not a way to redact: expected mask, remove or hash") from None
        steps = tuple((dots == "..", name) for dots, name in _STEP.findall(match["path"]))
        if not steps[0][0] and (steps[0][1] in FIXED or (len(steps) == 1 and steps[0][1] == "*")):
            raise ValueError(f"`{text}` would redact a field without which a record cannot be found")
        return cls(steps, how)


@dataclass(frozen=True, slots=True)
class DropRule:
    """All ``conditions`` must hold for a record to be dropped; a pattern may begin or end with ``*``."""

    conditions: tuple[tuple[tuple[str, ...], str], ...]

    @classmethod
    def parse(cls, text: str) -> "DropRule":
        """Parse ``effect=allow,request.path=/healthz*``. Raises ValueError with the reason."""
        conditions = []
        for part in text.split(","):
            path, equals, pattern = part.strip().partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", path):
                raise ValueError(f"`{part.strip()}` is not a condition: expected `field=value`, as `effect=allow`")
            conditions.append((tuple(path.split(".")), pattern))
        return cls(tuple(conditions))

    def holds(self, record: Record) -> bool:
        """Say whether the record meets every condition."""
        return all(_matches(read_field(record, *path), pattern) for path, pattern in self.conditions)


def _matches(value: Json, pattern: str) -> bool:
    if value is None:
        return pattern in ("", "null")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(pattern) > 1 and pattern.startswith("*") and pattern.endswith("*"):
        return pattern[1:-1] in text
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text == pattern


@dataclass(frozen=True, slots=True)
class RecordRules:
    """All rules of one trail. Nothing is redacted or dropped by default."""

    redactions: tuple[RedactionRule, ...] = ()
    drop: tuple[DropRule, ...] = ()
    hash_key: bytes = field(default_factory=lambda: token_bytes(32), repr=False)
    """Key of ``hash``. The default is random: digests then compare within one run of the service only."""

    @classmethod
    def parse(cls, redact: tuple[str, ...] = (), drop: tuple[str, ...] = (), hash_key: bytes = b"") -> "RecordRules":
        """Parse settings. Raises ValueError with the reason."""
        redactions = tuple(RedactionRule.parse(text) for text in redact)
        drops = tuple(DropRule.parse(text) for text in drop)
        return cls(redactions, drops, hash_key) if hash_key else cls(redactions, drops)

    @property
    def is_empty(self) -> bool:
        """Whether records pass as they are."""
        return not self.redactions and not self.drop

    def drops(self, record: Record) -> bool:
        """Say whether the record is left out; asked before redaction, so that rules see what happened."""
        if not self.drop or record.get("effect") != "allow" or record.get("audit") or record.get("would_deny"):
            return False
        return any(rule.holds(record) for rule in self.drop)

    def redact(self, record: Record) -> Record:
        """Redact in place and return the record."""
        for rule in self.redactions:
            _walk(record, rule.steps, rule.how, self._digest, is_root=True)
        return record

    def _digest(self, text: str) -> str:
        return "hmac:" + hmac.new(self.hash_key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


def _walk(
    node: Json, steps: tuple[tuple[bool, str], ...], how: Redaction, digest: Callable[[str], str], *, is_root: bool
) -> None:
    if not isinstance(node, dict):
        return
    (is_deep, name), rest = steps[0], steps[1:]
    for key in list(node):
        if is_root and key in FIXED:
            continue
        if name in ("*", key):
            if rest:
                _walk(node[key], rest, how, digest, is_root=False)
            else:
                _replace(node, key, how, digest)
        if is_deep and key in node:
            _walk(node[key], steps, how, digest, is_root=False)


def _replace(node: dict[str, Json], key: str, how: Redaction, digest: Callable[[str], str]) -> None:
    value = node[key]
    if how is Redaction.REMOVE:
        del node[key]
    elif isinstance(value, dict):
        for inner in list(value):
            _replace(value, inner, how, digest)
    elif value is not None:
        node[key] = MASK if how is Redaction.MASK else digest(str(value))
