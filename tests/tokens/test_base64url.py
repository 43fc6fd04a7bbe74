"""Every short text of an alphabet with its troublemakers is read as RA-21 says, or refused."""

import base64
import itertools
import re

import pytest

from authz.tokens.base64url import read_base64url

DIGITS_AND_OTHERS = (b"A", b"9", b"_", b"-", b"+", b"/", b"=", b" ", b"!", b"\x00", b"\xff")
MEANT = re.compile(rb"([A-Za-z0-9_-]*)(={0,2})")


def defined(text: bytes) -> bytes | None:
    """White space is nothing, padding is whole or not there, and no bytes have one digit left over."""
    found = MEANT.fullmatch(text.replace(b" ", b""))
    if found is None:
        return None
    digits, padding = found.groups()
    wanted = b"=" * (-len(digits) % 4)
    if len(digits) % 4 == 1 or padding not in (b"", wanted):
        return None
    return base64.urlsafe_b64decode(digits + wanted)


@pytest.mark.parametrize("length", range(6))
@pytest.mark.parametrize("before", [b"", b"QUJD"])
def test_every_short_text_is_read_or_refused_as_defined(length: int, before: bytes) -> None:
    """RA-21."""
    for letters in itertools.product(DIGITS_AND_OTHERS, repeat=min(length, 4)):
        text = before + b"".join(letters) + b"A" * (length - min(length, 4))
        expected = defined(text)
        if expected is None:
            with pytest.raises(ValueError, match="not base64url"):
                read_base64url(text)
        else:
            assert read_base64url(text) == expected, text
