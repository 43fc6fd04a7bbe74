"""Envoy's rate limit messages: what is asked about a request, and the answer with what is left."""

from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.message import DecodeError

from authz._proto import rate_limit_pb2 as pb

SERVICE, METHOD = "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit"
OK, OVER_LIMIT = 1, 2
REFUSED_BY = "rule"
"""Member of the dynamic metadata that names the rule."""
_UNITS = {1: 1, 60: 2, 3600: 3, 86_400: 4, 30 * 86_400: 5, 365 * 86_400: 6}
"""Seconds to Envoy's enumeration."""
MOST_REQUESTS = 2**32 - 1

Entries = tuple[tuple[str, str], ...]
"""Key and value of each entry of a descriptor, in order."""


class Quota(NamedTuple):
    """What became of one descriptor; Envoy writes the headers ``x-ratelimit-…`` from it."""

    is_over: bool = False
    requests: int = 0
    seconds: int = 0
    """The window; 0: nothing is told to the client."""
    remaining: int = 0
    reset_seconds: int = 0


NO_QUOTA = Quota()


def read_limit_request(message: bytes) -> tuple[Entries, ...]:
    """The descriptors of a RateLimitRequest. Raises ValueError for bytes that are none."""
    try:
        request = pb.RateLimitRequest.FromString(message)
    except DecodeError as error:
        raise ValueError("the message is not a RateLimitRequest") from error
    return tuple(tuple((_text(entry.key), _text(entry.value)) for entry in one.entries) for one in request.descriptors)


def _text(value: str | bytes) -> str:
    """What a client writes into a header need not be UTF-8, and arrives as bytes; different ones stay different."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def write_limit_response(quotas: Iterable[Quota], refused_by: str = "") -> bytes:
    """
    The RateLimitResponse: one status for each descriptor, and the answer for all of them.

    ``refused_by``: id of the rule that refuses the request, told to the proxy's log; empty: it may go on.
    """
    response = pb.RateLimitResponse(overall_code=OVER_LIMIT if refused_by else OK)
    if refused_by:
        response.dynamic_metadata.fields[REFUSED_BY].string_value = refused_by
    for quota in quotas:
        status = response.statuses.add(code=OVER_LIMIT if quota.is_over else OK)
        if quota.seconds:
            status.current_limit.requests_per_unit = min(quota.requests, MOST_REQUESTS)
            status.current_limit.unit = _UNITS[quota.seconds]
            status.limit_remaining = min(quota.remaining, MOST_REQUESTS)
            status.duration_until_reset.seconds = quota.reset_seconds
    return response.SerializeToString()
