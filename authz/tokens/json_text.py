"""
JSON as Envoy reads and writes it, which is protobuf's way (RA-23, RA-48): bytes or text in, values out, and back.

Its reader is stricter than most (a repeated name at any depth, a number beyond double range and a lone surrogate are
refused) and more lenient too (quotes may be single, a name may stand bare, a comma may trail). Its writer escapes more
than it must. Nothing here knows of tokens.
"""

import json
import math
import re
from typing import NoReturn

from authz.core.attributes import Json

MAX_DEPTH = 100
"""Nesting that is still read: the bound of protobuf's reader."""
MAX_EXACT_INTEGER = 2**53
"""Integers beyond it lose precision, as in a double (section 10)."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}


def read_object(data: bytes | str) -> dict[str, Json]:
    """
    Read one JSON object; ``null`` is an empty one.

    Raises ValueError for what protobuf's reader refuses: bytes that are not UTF-8, any other top-level value, a
    repeated member name at any depth, numbers beyond double range, ``NaN`` and ``Infinity``, lone surrogates and
    nesting deeper than ``MAX_DEPTH``.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    objects = text.count("{")
    if text.count("[") + objects > MAX_DEPTH and _depth_of(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value: Json
    if objects == 1 and (value := _flat_object(text)) is not None:
        return value
    try:
        value = _scan(text)
        if "\\u" in text and _SURROGATE.search(
            text
        ):  # a pair is one character by now; what is left of one is not UTF-8
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (json.JSONDecodeError, UnicodeEncodeError) as error:
        value = _LenientReader(text, error).read()
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _flat_object(text: str) -> dict[str, Json] | None:
    """
    Read a single object without checking each member for a repeated name; None where they must be checked.

    Where no white space follows a quotation mark, every member has its own `":`. If there are as many of these as there
    are members in the end, none was repeated.
    """
    if '" ' in text or "\n" in text or "\t" in text or "\r" in text or "\\" in text:
        return None
    try:
        value, end = _TRUSTING.scan_once(text, 0)  # type: ignore[attr-defined]  # as in `_scan`
    except (ValueError, StopIteration):
        return None
    return value if end == len(text) and type(value) is dict and len(value) == text.count('":') else None


def _scan(text: str) -> Json:
    """Read plain JSON. Raises JSONDecodeError; the common way needs one call."""
    try:
        value, end = _DECODER.scan_once(text, 0)  # type: ignore[attr-defined]  # typeshed does not know it
    except StopIteration:
        return _DECODER.decode(text)  # type: ignore[no-any-return]  # white space before it, or nothing at all
    return value if end == len(text) else _DECODER.decode(text)  # type: ignore[no-any-return]


def _depth_of(text: str) -> int:
    """Deepest nesting of brackets outside strings; the text need not be valid JSON."""
    depth = deepest = 0
    quote, escaped = "", False
    for character in text:
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _read_members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member name")
    return members


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number beyond double range")
    return value


def _read_int(text: str) -> int | float:
    if len(text) < 16:
        return int(text) or (0 if text == "0" else -0.0)
    value = _read_float(text)
    return exact if abs(exact := int(text)) <= MAX_EXACT_INTEGER else value


def _read_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_members, parse_float=_read_float, parse_int=_read_int, parse_constant=_read_constant
)
_TRUSTING = json.JSONDecoder(parse_float=_read_float, parse_int=_read_int, parse_constant=_read_constant)
"""Of a repeated name it keeps the last."""


class _LenientReader:
    """What protobuf reads though it is not JSON; the text is known to be nested no deeper than ``MAX_DEPTH``."""

    def __init__(self, text: str, error: ValueError) -> None:
        self._text = text
        self._at = 0
        self._error = error
        """What a reader of plain JSON found, which tells people more."""

    def read(self) -> Json:
        value = self._value()
        self._skip_space()
        if self._at != len(self._text):
            self._refuse()
        return value

    def _refuse(self) -> NoReturn:
        shown = "a lone surrogate" if isinstance(self._error, UnicodeEncodeError) else str(self._error)
        raise ValueError(shown) from self._error

    def _skip_space(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches, if only nothing

    def _takes(self, character: str) -> bool:
        self._skip_space()
        if not self._text.startswith(character, self._at):
            return False
        self._at += len(character)
        return True

    def _value(self) -> Json:
        self._skip_space()
        character = self._text[self._at : self._at + 1]
        if character == "{":
            return self._object()
        if character == "[":
            return self._list()
        if character in ('"', "'"):
            return self._string()
        if (number := _NUMBER.match(self._text, self._at)) is not None:
            self._at = number.end()
            return _read_int(number[0]) if number[0].lstrip("-").isdigit() else _read_float(number[0])
        word = _BARE_NAME.match(self._text, self._at)
        if word is None or word[0] not in _WORDS:
            self._refuse()
        self._at = word.end()
        return _WORDS[word[0]]

    def _object(self) -> Json:
        self._at += 1
        pairs: list[tuple[str, Json]] = []
        while not self._takes("}"):
            name = self._name()
            if not self._takes(":"):
                self._refuse()
            pairs.append((name, self._value()))
            if not self._takes(",") and not self._text.startswith("}", self._at):
                self._refuse()
        return _read_members(pairs)

    def _name(self) -> str:
        self._skip_space()
        if self._text[self._at : self._at + 1] in ('"', "'"):
            return self._string()
        bare = _BARE_NAME.match(self._text, self._at)
        if bare is None or bare[0] in _WORDS:
            self._refuse()
        self._at = bare.end()
        return bare[0]

    def _list(self) -> Json:
        self._at += 1
        items: list[Json] = []
        while not self._takes("]"):
            items.append(self._value())
            if not self._takes(",") and not self._text.startswith("]", self._at):
                self._refuse()
        return items

    def _string(self) -> str:
        quote = self._text[self._at]
        self._at += 1
        pieces: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self._text, self._at)
            assert plain is not None  # it always matches, if only nothing
            pieces.append(plain[0])
            self._at = plain.end() + 1
            if self._text[plain.end() : self._at] == quote:
                return "".join(pieces)
            if self._at > len(self._text):
                self._refuse()
            pieces.append(self._escape())

    def _escape(self) -> str:
        """What follows a backslash."""
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter not in ("u", "U"):
            return _ESCAPES[letter] if letter in _ESCAPES else self._refuse()
        code = self._hex()
        if 0xD800 <= code <= 0xDBFF and self._takes("\\u"):  # even with white space before it
            low = self._hex()
            if 0xDC00 <= low <= 0xDFFF:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
        return self._refuse() if 0xD800 <= code <= 0xDFFF else chr(code)

    def _hex(self) -> int:
        digits = _HEX.match(self._text, self._at)
        if digits is None:
            self._refuse()
        self._at = digits.end()
        return int(digits[0], 16)


# --- writing -----------------------------------------------------------------------------------------------------

_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(
    '[\x00-\x1f"\\\\<>\x7f-\x9f\xad\u0600-\u0603\u06dd\u070f\u17b4\u17b5\u200b-\u200f\u2028-\u202e\u2060-\u2064\u206a-\u206f\ufeff'
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""What protobuf's writer escapes: what JSON demands, what a browser might take for markup, and what nobody sees."""


def write_json(value: Json) -> str:
    """Write compact JSON as protobuf does, members in the order they have."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_ESCAPED.sub(_escaped, value)}"'
        case int() | float():
            return write_number(float(value))
        case list():
            return f"[{','.join(write_json(item) for item in value)}]"
        case _:
            members = (f"{write_json(name)}:{write_json(member)}" for name, member in value.items())
            return f"{{{','.join(members)}}}"


def write_number(value: float) -> str:
    """Write a double with 15 significant digits, or 17 where 15 would be another number."""
    text = f"{value:.15g}"
    return text if float(text) == value else f"{value:.17g}"


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
