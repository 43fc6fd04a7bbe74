"""Values of headers that a proxy writes: text, with what Envoy puts in between percent signs."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND = re.compile(r"([A-Z][A-Z0-9_]*)(\([^()%]*\))?(:\d{1,5})?")
_WITH_ARGUMENT = frozenset(
    (
        *("REQ", "RESP", "TRAILER", "DYNAMIC_METADATA", "CLUSTER_METADATA", "UPSTREAM_METADATA", "FILTER_STATE"),
        *("UPSTREAM_FILTER_STATE", "ENVIRONMENT"),
    )
)
_WITHOUT = frozenset(
    (
        *("PROTOCOL", "HOSTNAME", "START_TIME", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS"),
        *("BYTES_RECEIVED", "BYTES_SENT", "DURATION", "REQUEST_DURATION", "RESPONSE_DURATION", "ROUTE_NAME"),
        *("VIRTUAL_CLUSTER_NAME", "STREAM_ID", "TRACE_ID", "REQUESTED_SERVER_NAME", "CONNECTION_ID"),
        *("CONNECTION_TERMINATION_DETAILS", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW"),
        *("UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT"),
        *("UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_PORT"),
        *("UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_PROTOCOL", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
        *("DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT"),
        *("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT"),
        *("DOWNSTREAM_DIRECT_REMOTE_PORT", "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT"),
        *("DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_URI_SAN"),
        *("DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_CERT"),
        *("DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION"),
        *("DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_FINGERPRINT_1", "DOWNSTREAM_PEER_SERIAL"),
        *("DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END"),
    )
)


def header_value_fault(value: str) -> str:
    """Why Envoy would not take the value of a header; empty if it would."""
    if _CONTROL.search(value):
        return "the value has a control character"
    at = value.find("%")
    while at >= 0:
        end = value.find("%", at + 1)
        if end < 0:
            return "a `%` stands alone: write `%%` for the sign itself"
        if end > at + 1 and not _is_written(value[at + 1 : end]):
            return f"`{value[at : end + 1]}` is not something that Envoy writes: write `%%` for the sign itself"
        at = value.find("%", end + 1)
    return ""


def _is_written(command: str) -> bool:
    found = _COMMAND.fullmatch(command)
    if found is None:
        return False
    has_argument = found[2] not in (None, "()")
    return found[1] in (_WITH_ARGUMENT if has_argument else _WITHOUT)
