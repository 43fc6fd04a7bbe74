"""Records as bytes: one compact JSON line, plain ASCII so that no reader stumbles, keys in the record's order."""

import json

from authz.core.decided import Record

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False, allow_nan=False)


def encode_record(record: Record) -> bytes:
    """Encode one record without a newline."""
    return _encoder.encode(record).encode()
