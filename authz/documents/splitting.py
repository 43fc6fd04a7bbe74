"""
A file cut where its documents begin, so that a document whose text is known need not be read again.

Only where every part means the same alone as in the file; ``None`` says that the file has to be read as a whole.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_MARK = re.compile(rb"^---(?=[ \t\n]|\Z)", re.MULTILINE)
_OTHER_BREAKS = (b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
"""Characters that YAML 1.1 takes for the end of a line, besides the one that is counted here."""


class Slice(NamedTuple):
    """A piece of a file: usually one document, with the comments after it."""

    line: int
    """One-based, where it begins."""
    text: bytes


def split_documents(data: bytes) -> list[Slice] | None:
    """
    Cut a file before every line that begins a document; None when lines or characters could be counted otherwise.

    "---" at the beginning of a line ends every scalar and collection that is still open (YAML 1.1, 9.1.2), so a
    part that can be read alone reads the same within the file. One that cannot be read alone tells nothing.
    """
    if any(other in data for other in _OTHER_BREAKS if other[0] < 0x80 or not data.isascii()):
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return list(_parts(data))


def _parts(data: bytes) -> Iterator[Slice]:
    line, begin = 1, 0
    mark = _MARK.search(data)
    while mark is not None:  # finditer costs a block of memory for good now and then (CPython 3.11)
        end = mark.start()
        if end > begin:
            yield Slice(line, data[begin:end])
            line += data.count(b"\n", begin, end)
            begin = end
        mark = _MARK.search(data, mark.end())
    yield Slice(line, data[begin:])
