"""
Messages of Envoy's gRPC access log service to the entries of ``wire.access_log``: bytes in, nouns out.

Each entry is turned into the facts of a line of the file carrier, so both are read in one way. What entries have in
common is read once.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue

from authz._proto import access_log_pb2 as pb
from authz._proto import ext_authz_pb2
from authz.wire.access_log import BROKEN, MAX_ALIKE, Alike, LogEntry, NotAnEntry, Own, asked_facts

_TAG, _VERSION, _ASKED = "authz", "authz.policy_version", "authz.asked"
_RBAC = ("envoy.filters.http.rbac", "envoy.filters.network.rbac")
_JWT, _COMMON = "envoy.filters.http.jwt_authn", "envoy.common"
_RATE_LIMIT = "envoy.filters.http.ratelimit"
MAX_REMEMBERED = 4096
_known: dict[tuple[object, ...], Alike] = {}
"""The shared part of entries, by everything it is made from; values are never changed."""
_ENDS = {0, 3, 6}
"""AccessLogType: not said, the end of a connection, the end of a request. At any other time nobody may have decided."""
_PROTOCOLS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}


def read_message(message: bytes) -> Iterator[LogEntry | NotAnEntry]:
    """
    Read a serialised StreamAccessLogsMessage; what is not an entry of ours yields an error in its place.

    Raises:
        ValueError: these bytes are not such a message.
    """
    try:
        told = pb.StreamAccessLogsMessage.FromString(message)
    except DecodeError as error:
        raise ValueError("not a StreamAccessLogsMessage") from error
    for entry in told.http_logs.log_entry:
        yield _read(entry.common_properties, entry)
    for connection in told.tcp_logs.log_entry:
        yield _read(connection.common_properties, None)


def _read(common: pb.AccessLogCommon, http: pb.HTTPAccessLogEntry | None) -> LogEntry | NotAnEntry:
    if common.access_log_type not in _ENDS:
        return NotAnEntry("written before its request or connection had ended, as `access_log_options` may ask for")
    try:
        headers = tuple(sorted(http.request.request_headers.items())) if http is not None else ()
        trace = next((_text(value) for name, value in headers if name == "traceparent"), "")
        shared = (_shared(common, http), *(one for one in headers if one[0] != "traceparent"))
        alike = _known.get(shared)
        if alike is None:
            told = _common(common) | (_http(http, common) if http is not None else _tcp(common))
            alike = Alike(told, is_remembered=_size(shared) <= MAX_ALIKE)
            if alike.is_remembered:
                if len(_known) >= MAX_REMEMBERED:
                    _known.clear()
                _known[shared] = alike
        return alike.entry(_own(common, http, trace), alike)
    except NotAnEntry as error:
        return error
    except (*BROKEN, DecodeError) as error:
        return NotAnEntry(f"not what the format says: {type(error).__name__}")


def _shared(common: pb.AccessLogCommon, http: pb.HTTPAccessLogEntry | None) -> tuple[object, ...]:
    """Everything that ``Alike`` is made from, except headers, as it came."""
    version, asked = common.filter_state_objects.get(_VERSION), common.filter_state_objects.get(_ASKED)
    shared = (
        common.custom_tags.get(_TAG),
        common.tls_properties.SerializeToString(deterministic=True),
        common.metadata.SerializeToString(deterministic=True),
        version.value if version is not None else None,
        asked.value if asked is not None else None,
        common.downstream_local_address.SerializeToString(),
        common.connection_termination_details,
    )
    if http is None:
        return shared
    request, response = http.request, http.response
    return (
        *shared, request.authority, request.scheme, request.user_agent, http.protocol_version,
        response.response_code.value, response.response_code_details,
    )  # fmt: skip


def _size(shared: tuple[object, ...]) -> int:
    """How many bytes and characters are in it."""
    return sum(
        _size(one) if isinstance(one, tuple) else len(one) if isinstance(one, str | bytes) else 0 for one in shared
    )


def _own(common: pb.AccessLogCommon, http: pb.HTTPAccessLogEntry | None, trace: str) -> Own:
    start, lasted = common.start_time, common.duration
    if not common.HasField("duration"):
        lasted = common.time_to_last_downstream_tx_byte
    return Own(
        start.seconds + start.nanos // 1000 / 1e6,
        lasted.seconds * 1e3 + lasted.nanos / 1e6,
        http.request.request_body_bytes if http is not None else 0,
        _address(common.downstream_direct_remote_address.SerializeToString()),
        _address(common.downstream_remote_address.SerializeToString()),
        _text(http.request.request_id if http is not None else common.stream_id),
        _text(http.request.path) if http is not None else "",
        trace,
    )


def _common(common: pb.AccessLogCommon) -> dict[str, Any]:
    tls, metadata = common.tls_properties, common.metadata.filter_metadata
    peer = tls.peer_certificate_properties
    names = [name for name in _RBAC if name in metadata]
    version = common.filter_state_objects.get(_VERSION)
    return {
        "authz": common.custom_tags[_TAG] if _TAG in common.custom_tags else _missing(),
        "local": _address(common.downstream_local_address.SerializeToString()),
        "peer": ",".join(_text(name.uri) for name in peer.subject_alt_name if name.uri),
        "dns": ",".join(_text(name.dns) for name in peer.subject_alt_name if name.dns),
        "peer_subject": _text(peer.subject),
        "own": next((_text(name.uri) for name in tls.local_certificate_properties.subject_alt_name if name.uri), ""),
        "sni": _text(tls.tls_sni_hostname),
        "rbac": _members(metadata[names[0]]) if names else {},
        "hint": _members(metadata[_COMMON]).get("access_log_hint") if _COMMON in metadata else None,
        "version": StringValue.FromString(version.value).value if version is not None else "",
        "limit": _members(metadata[_RATE_LIMIT]).get("rule") if _RATE_LIMIT in metadata else None,
        "metadata": {name: _members(metadata[name]) for name in metadata},
    }


def _http(entry: pb.HTTPAccessLogEntry, common: pb.AccessLogCommon) -> dict[str, Any]:
    request, response = entry.request, entry.response
    headers = {name: _text(value) for name, value in request.request_headers.items() if name != "traceparent"}
    jwt = common.metadata.filter_metadata
    authenticated = _members(jwt[_JWT]) if _JWT in jwt else {}
    return {
        "method": headers.pop(":method", ""),
        "host": _text(request.authority),
        "scheme": request.scheme,
        "user_agent": _text(request.user_agent) or None,
        "content_type": headers.pop("content-type", None),
        "headers": headers | _asked(common),
        "protocol": _PROTOCOLS.get(entry.protocol_version, ""),
        "code": response.response_code.value,
        "details": _text(response.response_code_details),
        "claims": authenticated.get("payload"),
        "kid": (authenticated.get("header") or {}).get("kid"),
    }


def _asked(common: pb.AccessLogCommon) -> dict[str, Any]:
    """The headers that filters told; an entry has all claims and metadata anyhow."""
    state = common.filter_state_objects.get(_ASKED)
    told = StringValue.FromString(state.value).value if state is not None else None
    headers: dict[str, Any] = asked_facts(told).get("headers") or {}
    return {name: value for name, value in headers.items() if value is not None}


def _tcp(common: pb.AccessLogCommon) -> dict[str, Any]:
    return {"details": _text(common.connection_termination_details)}


def _missing() -> str:
    raise NotAnEntry("an entry of another format")


def _members(struct: Struct) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(struct)
    return found


def _text(value: str | bytes) -> str:
    """Bytes that are not UTF-8 arrive as bytes (CS-5)."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _address(serialised: bytes) -> str:
    return (_socket_address if len(serialised) <= MAX_ALIKE else _socket_address.__wrapped__)(serialised)


@lru_cache(maxsize=8192)
def _socket_address(serialised: bytes) -> str:
    socket = ext_authz_pb2.Address.FromString(serialised).socket_address
    return f"{socket.address}:{socket.port_value}"
