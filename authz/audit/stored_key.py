"""What a record is known by in a stream."""

import hashlib
import re

_ID = re.compile(rb'\{"decision_id":"([^"\\]{1,64})"')


def record_key(line: bytes) -> str:
    """
    What a record is known by: the id of the decision, and a digest of the whole.

    By the id alone, one writer could keep the record of another out of the stream, by being first.
    """
    found = _ID.match(line)
    return f"{found[1].decode() if found else ''}.{hashlib.sha256(line).hexdigest()[:24]}"
