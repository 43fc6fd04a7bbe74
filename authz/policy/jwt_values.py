"""Checks of single values of JWT rules; each returns None or the fault. Durations occur in providers, too."""

import re
from fractions import Fraction
from urllib.parse import urlsplit

from authz.documents.schema import Fault

_DURATION = re.compile(r"\+?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {
    "ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6), "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600),
}  # fmt: skip
_HEADER_NAME = re.compile(r"[-_A-Za-z0-9]+")
MAX_URI = 2048
_ESCAPED = "%[0-9A-Fa-f]{2}"
_GO_URL = re.compile(
    r"[A-Za-z]+://"
    rf"(?:(?:[A-Za-z0-9._:~!$&'()*+,;=-]|{_ESCAPED})*@)?"
    rf"(?:\[[^\]\s]*\]|(?:[A-Za-z0-9._~!$&'()*+,;=<>\"-]|[^\x00-\x7f\s]|%[89A-Fa-f][0-9A-Fa-f])*)"
    rf"(?::[0-9]*)?(?:(?=[/?])(?:/(?:[^\x00-\x20\x7f%?#]|{_ESCAPED})*)?"
    rf"(?:\?[^\x00-\x20\x7f#]*)?(?:#(?:[^\x00-\x20\x7f%]|{_ESCAPED})*)?)?"
)
"""
The form that Go's net/url takes for an address with a host: no spaces, no half escapes, and in a host only escapes of
letters beyond ASCII. Both the CRD's rule and the webhook read it this way, but for the former a `#` right after the
host is part of it.
"""


def jwks_uri(value: str) -> Fault | None:
    """Check the address of a key set (VA-34, VA-35)."""
    if not value:
        return Fault("VA-34", "the key set's address is empty", "remove it to use the issuer's discovery document")
    if len(value) > MAX_URI:
        return Fault("VA-34", f"the key set's address has {len(value)} characters, at most {MAX_URI} are allowed")
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        is_usable = False
    if not is_usable or not _GO_URL.fullmatch(value):
        return Fault("VA-35", f"`{value}` is not an address of a key set", "expected `http://` or `https://`, a host "
                     "and, where needed, a numeric port")  # fmt: skip
    return None


def header_name(value: str) -> Fault | None:
    """VA-40: a header name has only letters that HTTP allows."""
    if _HEADER_NAME.fullmatch(value):
        return None
    return Fault("VA-40", f"`{value}` is not a header name", "letters, digits, `-` and `_` only")


def duration(value: str) -> Fault | None:
    """VA-41: a duration is a number with a unit."""
    seconds = parse_duration(value)
    if seconds is None:
        return Fault("VA-41", f"`{value}` is not a duration", "for example `5s`, `10ms` or `1m30s`")
    if seconds < Fraction(1, 1000):
        return Fault("VA-41", f"`{value}` is shorter than a millisecond")
    if (seconds * 1000).denominator != 1:
        return Fault("VA-41", f"`{value}` is not a whole number of milliseconds")
    return None


def parse_duration(value: str) -> Fraction | None:
    """Seconds of ``1m30s``; None when it is not a duration."""
    if len(value) > 64 or not _DURATION.fullmatch(value):
        return None
    return sum(
        (Fraction(number.rstrip(".")) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value)), Fraction()
    )
