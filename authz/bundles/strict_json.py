"""JSON from anybody, where two readers must not understand two things: no member twice, and no number that is none."""

import json
from typing import Any


def read_strict_json(data: bytes) -> Any:
    """
    Read UTF-8 JSON.

    Raises:
        ValueError: it is none, is nested too deeply, has a member twice, or NaN or an infinity.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands there twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")
