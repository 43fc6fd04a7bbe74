"""What a verified token writes into the request: the payload header and claim headers (RA-47, RA-48)."""

import base64
import json
from collections.abc import Mapping

from authz.core.attributes import Json
from authz.core.resources import JwtRule
from authz.tokens.locations import UNSENDABLE

MAX_UNSIGNED_64 = 2**64


def output_names(rule: JwtRule) -> frozenset[str]:
    """Lower-case names of every header the rule may write: removed from each request first (RA-49)."""
    names = {output.header.lower() for output in rule.output_claim_to_headers}
    if rule.output_payload_to_header:
        names.add(rule.output_payload_to_header.lower())
    return frozenset(names)


def output_headers(rule: JwtRule, claims: Mapping[str, Json], payload_text: str) -> tuple[tuple[str, str], ...]:
    """
    Return the headers to set, names lower-case; of two outputs to one header the later wins.

    A text that cannot stand in a header (line feed, NUL and the like) leaves its header unset, as an empty one does.
    """
    headers: dict[str, str] = {}
    if rule.output_payload_to_header:
        headers[rule.output_payload_to_header.lower()] = payload_text
    for output in rule.output_claim_to_headers:
        text = claim_text(claim_at(claims, output.claim))
        if text and not UNSENDABLE.search(text):
            headers[output.header.lower()] = text
    return tuple(headers.items())


def claim_at(claims: Mapping[str, Json], path: str) -> Json:
    """Walk a dot-separated path into nested objects; None when something on it is missing (RA-48)."""
    value: Json = dict(claims)
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def claim_text(value: Json) -> str:
    """Write a claim as header text; empty for a missing claim (RA-48)."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(int(value)) if value == int(value) and 0 <= value < MAX_UNSIGNED_64 else f"{value:f}"
        case _:
            text = json.dumps(_whole_numbers(value), separators=(",", ":"), ensure_ascii=False)
            return base64.b64encode(text.encode()).decode("ascii")


def _whole_numbers(value: Json) -> Json:
    """Write 5.0 as 5, as Envoy's JSON does, whose only number type is the double."""
    match value:
        case float() if value == int(value) and abs(value) < MAX_UNSIGNED_64:
            return int(value)
        case list():
            return [_whole_numbers(item) for item in value]
        case dict():
            return {name: _whole_numbers(item) for name, item in value.items()}
        case _:
            return value
