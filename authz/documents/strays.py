"""
Bytes that make a text another one for Go's YAML reader, which clusters use, than for libyaml.

Go's reader cuts a text at each `---` before it reads the parts, and so begins anew there.
"""

import codecs
import re
from typing import NamedTuple

_AFTER_MARK = re.compile(rb"^(---[^\n]*\n)\xef\xbb\xbf", re.MULTILINE)
"""Where files were joined: a byte order mark may stand at every beginning."""
_STRAYS = (
    (
        codecs.BOM_UTF8,
        re.compile(rb"(?<=\n)[ \t]*\xef\xbb\xbf"),
        "a byte order mark inside the text, which `kubectl` refuses",
        "remove it; it is invisible",
    ),
    (
        b"---",
        re.compile(rb"(?:\r|\xc2\x85|\xe2\x80[\xa8\xa9])(?=---(?:\s|$))"),
        "a `---` after a line end that is not a line feed; `kubectl` reads nothing after it",
        "save the file with line feeds",
    ),
)
"""Bytes that must occur for the shape to match, the shape, what is wrong with it, and what to do."""


class Stray(NamedTuple):
    """What Go's reader takes differently; ``offset`` counts bytes."""

    offset: int
    message: str
    advice: str


def without_marks(data: bytes) -> bytes:
    """The text without the byte order marks that Go's reader skips at the beginning of a part."""
    return _AFTER_MARK.sub(rb"\1", data) if codecs.BOM_UTF8 in data[1:] else data


def stray_in(data: bytes) -> Stray | None:
    """The first thing in the text that Go's reader takes differently and refuses."""
    for needed, shape, message, advice in _STRAYS:
        found = shape.search(data) if needed in data else None
        if found is not None:
            return Stray(found.end(), message, advice)
    return None
