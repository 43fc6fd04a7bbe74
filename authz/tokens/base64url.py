"""
base64url as Envoy reads it (RA-21): padding is optional, white space is skipped, and the bits after the last byte may
be anything.

A signature covers the text as it is written, so no spelling is accepted that the issuer did not sign; only the
signature itself can be respelt.
"""

import binascii
import re

_STANDARD = bytes(
    b"+/"[b"-_".index(byte)] if byte in b"-_" else 0x21 if byte in b"+/" else byte  # `!` is in no alphabet
    for byte in range(256)
)
_URL = bytes.maketrans(b"+/", b"-_")
_PADDING = (b"", b"===", b"==", b"=")
"""By how many digits are left over when the others are taken in fours; no bytes leave one over."""
_WHITE_SPACE = re.compile(rb"[ \t\n\v\f\r]+")
_PADDED = re.compile(rb"([A-Za-z0-9_-]*)(={0,2})")


def read_base64url(text: str | bytes) -> bytes:
    """
    Decode base64url.

    Raises ValueError for other characters, for padding that is not exactly what the length asks for, and for a length
    that no bytes have.
    """
    data = text.encode("ascii") if isinstance(text, str) else text  # UnicodeEncodeError is a ValueError
    loose = len(data) & 3
    if b"=" not in data and loose != 1:  # nearly every text
        try:
            found = binascii.a2b_base64(data.translate(_STANDARD) + _PADDING[loose])
        except binascii.Error:
            return _read_with_care(data)
        if len(found) == len(data) * 3 // 4:  # the decoder passes over what is in no alphabet: then it finds less
            return found
    return _read_with_care(data)


def _read_with_care(data: bytes) -> bytes:
    found = _PADDED.fullmatch(_WHITE_SPACE.sub(b"", data))
    if found is None:
        raise ValueError("not base64url")
    digits, padding = found.groups()
    wanted = _PADDING[len(digits) & 3]
    if len(wanted) == 3 or padding not in (b"", wanted):
        raise ValueError("not base64url: the length is impossible")
    return binascii.a2b_base64(digits.translate(_STANDARD) + wanted)


def write_base64url(value: bytes) -> str:
    """Encode as base64url without padding."""
    return binascii.b2a_base64(value, newline=False).translate(_URL).rstrip(b"=").decode("ascii")
