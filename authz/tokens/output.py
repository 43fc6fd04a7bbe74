"""What a verified token writes into the request: the payload header and claim headers (RA-47, RA-48)."""

import base64
from collections.abc import Mapping

from authz.core.attributes import Json
from authz.core.resources import JwtRule
from authz.tokens.json_text import write_json
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

    A text that cannot stand in a header (it has a control character other than the tab) leaves its header unset, as an
    empty one does; Envoy answers 503 to such a request.
    """
    headers: dict[str, str] = {}
    if rule.output_payload_to_header and not UNSENDABLE.search(payload_text):
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
    """
    Write a claim as header text, byte for byte Envoy's; empty for a missing claim (RA-48).

    Numbers are doubles. An object's members keep their order in the token; Envoy's own order varies.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            number = float(value)
            return str(int(number)) if 0 <= number < MAX_UNSIGNED_64 and number.is_integer() else f"{number:f}"
        case _:
            return base64.b64encode(write_json(value).encode()).decode("ascii")
