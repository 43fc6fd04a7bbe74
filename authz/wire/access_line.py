"""
Lines of ``envoy.native.record_log`` to entries; what lines have in common is read once.

A line ends with what belongs to its request alone, under names that begin with a tilde. What comes before is the same,
byte for byte, for requests that are alike, so it is looked up as bytes, and only the rest of the line is parsed.
"""

import json
from typing import Any

from authz.wire.access_log import BROKEN, MAX_ALIKE, Alike, LogEntry, NotAnEntry, Own, asked_facts

LINE_BEGINS = b'{"authz":'
"""The beginning of every line: its first key, which is the first in the alphabet, as Envoy sorts them."""
_OWN = b',"~at":"'
"""Where the request's own part begins. No text of a client can hold this: within JSON text a quote is escaped."""
_ABSENT = "=-"
_FIXED_TEXT = ("iss", "sub")
"""Claims that are text in every token that a verifier accepts."""
MAX_REMEMBERED = 4096
MAX_DEPTH = 100
"""Deepest nesting of a claim: protobuf's reader, which is Envoy's, takes no more. What looks deeper is text."""
_decode = json.JSONDecoder().raw_decode


class LineReader:
    """Reads lines of files, by one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, Alike] = {}
        self.torn = 0
        """Lines that a killed proxy had begun and that run into another one."""

    def read(self, line: bytes) -> LogEntry:
        """
        Read one line; if a torn line runs into the next without a line feed, the next one is read.

        Raises:
            NotAnEntry: it is not a line of ours, or is broken.
        """
        at = line.rfind(_OWN)
        try:
            alike = self._known.get(line[:at]) or self._alike(line, at)
            told, _ = _decode("{" + line[at + 1 :].decode())
            start, lasted, size = told["~at"].split(" ")
            return alike.entry(
                Own(
                    float(start), int(lasted) if lasted != "-" else 0, int(size), told["~direct"] or "",
                    told["~remote"] or "", told["~id"] or "", told.get("~path") or "", told.get("~trace") or "",
                ),
                alike,
            )  # fmt: skip
        except NotAnEntry:
            begins = line.rfind(LINE_BEGINS)
            if begins <= 0:
                raise
            self.torn += 1
            return self.read(line[begins:])
        except BROKEN as error:
            raise NotAnEntry(f"not what the format says: {type(error).__name__}") from None

    def _alike(self, line: bytes, at: int) -> Alike:
        shared = line[:at] + b"}" if at > 0 else line
        try:
            told = json.loads(shared)
        except (ValueError, RecursionError):
            raise NotAnEntry("no JSON") from None
        if at < 0 or not isinstance(told, dict) or "authz" not in told:
            raise NotAnEntry("a line of another format")
        alike = Alike(_facts(told), is_remembered=at <= MAX_ALIKE)
        if not alike.is_remembered:
            return alike
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[line[:at]] = alike
        return alike


def _facts(told: dict[str, Any]) -> dict[str, Any]:
    """The names and types of a stream: what came as text after an equals sign becomes what it was before."""
    told = {**told, **asked_facts(told.get("asked"))}
    claims, otherwise = told.get("claims"), None
    if isinstance(claims, str):
        claims = _structure(_text(claims))
    elif claims:
        texts = {name: _text(value) for name, value in claims.items()}
        claims = {name: _claim(name, text) for name, text in texts.items()}
        doubtful = {name: _otherwise(name, text) for name, text in texts.items()}
        otherwise = doubtful if doubtful != claims else None
    return {
        **told,
        "claims": claims,
        "claims_otherwise": otherwise,
        "kid": _text(told.get("kid")),
        "limit": _text(told.get("limit")),
        "rbac": {name: _text(value) for name, value in (told.get("rbac") or {}).items()},
        "hint": _structure(_text(told.get("hint"))),
        "metadata": {name: _structure(_text(value)) for name, value in (told.get("metadata") or {}).items()},
    }


def _text(value: str | None) -> str | None:
    """The text after an equals sign; None where there was nothing."""
    if value is None or value == _ABSENT:
        return None
    if not value.startswith("="):
        raise ValueError
    return value[1:]


def _structure(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _claim(name: str, text: str | None) -> Any:
    """Restore what a claim most likely was before Envoy wrote it as text; to a verifier ``exp`` is a number."""
    if text is None or name in _FIXED_TEXT:
        return text
    if name == "exp":
        return float(text)
    if text[:1] in ("[", "{") or text in ("true", "false"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text if _is_deeper(value, MAX_DEPTH) else value
    return text


def _is_deeper(value: Any, levels: int) -> bool:
    inside = [value]
    for _ in range(levels):
        containers = [one for one in inside if isinstance(one, list | dict)]
        if not containers:
            return False
        inside = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, list | dict) for one in inside)


def _otherwise(name: str, text: str | None) -> Any:
    """Give what it may have been instead: text that reads like a list, a number that reads like text."""
    if name in _FIXED_TEXT or name == "exp":
        return _claim(name, text)
    if text is None:
        return _ABSENT[1:]
    if text[:1] in "-0123456789":
        try:
            return float(text)
        except ValueError:
            return text
    return text
