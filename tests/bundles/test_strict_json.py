"""JSON that two readers could understand differently is none."""

import pytest

from authz.bundles.strict_json import read_strict_json


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b'[{"a": 1, "a": 2}]', b"NaN", b"[Infinity]",
        b"-Infinity",
        b"\xff", b'{"a": "\xc3"}', b'\xef\xbb\xbf{"a": 1}', b"[" * 100_000, b"1" * 10_000, b'{"a": 1} x',
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # of any kind
        read_strict_json(data)


def test_other_json_is_read_as_it_is() -> None:
    assert read_strict_json(b'{"a": [1, 2.5, null, true, "\xc3\xbc"], "b": {}}') == {
        "a": [1, 2.5, None, True, "ü"],
        "b": {},
    }
