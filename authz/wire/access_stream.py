"""
Messages of Envoy's gRPC access log service to the entries of ``wire.access_log``: bytes in, nouns out.

Each entry is told in the facts of a line of the file carrier, so that there is one reading of both.
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
from authz.wire.access_log import LogEntry, NotAnEntry, read_facts

_TAG, _VERSION = "authz", "authz.policy_version"
_RBAC = ("envoy.filters.http.rbac", "envoy.filters.network.rbac")
_JWT, _COMMON = "envoy.filters.http.jwt_authn", "envoy.common"
_PROTOCOLS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}


def read_message(message: bytes) -> Iterator[LogEntry | NotAnEntry]:
    """
    Read a serialised StreamAccessLogsMessage; what is no entry of ours stands in its place as an error.

    Raises:
        ValueError: these bytes are no such message.
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
    try:
        facts = _common(common)
        facts.update(_http(http, common) if http is not None else _tcp(common))
        return read_facts(facts)
    except NotAnEntry as error:
        return error
    except (KeyError, ValueError) as error:
        return NotAnEntry(f"not what the format says: {type(error).__name__}")


def _common(common: pb.AccessLogCommon) -> dict[str, Any]:
    tls, metadata = common.tls_properties, common.metadata.filter_metadata
    peer = tls.peer_certificate_properties
    names = [name for name in _RBAC if name in metadata]
    version = common.filter_state_objects.get(_VERSION)
    start, lasted = common.start_time, common.duration
    if not common.HasField("duration"):
        lasted = common.time_to_last_downstream_tx_byte
    return {
        "authz": common.custom_tags[_TAG] if _TAG in common.custom_tags else _missing(),
        "start": start.seconds + start.nanos // 1000 / 1e6,
        "duration": lasted.seconds * 1e3 + lasted.nanos / 1e6,
        "direct": _address(common.downstream_direct_remote_address.SerializeToString()),
        "remote": _address(common.downstream_remote_address.SerializeToString()),
        "local": _address(common.downstream_local_address.SerializeToString()),
        "peer": ",".join(_text(name.uri) for name in peer.subject_alt_name if name.uri),
        "dns": ",".join(_text(name.dns) for name in peer.subject_alt_name if name.dns),
        "peer_subject": _text(peer.subject),
        "own": next((_text(name.uri) for name in tls.local_certificate_properties.subject_alt_name if name.uri), ""),
        "sni": _text(tls.tls_sni_hostname),
        "rbac": _members(metadata[names[0]]) if names else {},
        "hint": _members(metadata[_COMMON]).get("access_log_hint") if _COMMON in metadata else None,
        "version": StringValue.FromString(version.value).value if version is not None else "",
        "metadata": {name: _members(metadata[name]) for name in metadata},
    }


def _http(entry: pb.HTTPAccessLogEntry, common: pb.AccessLogCommon) -> dict[str, Any]:
    request, response = entry.request, entry.response
    headers = {name: _text(value) for name, value in request.request_headers.items()}
    jwt = common.metadata.filter_metadata
    authenticated = _members(jwt[_JWT]) if _JWT in jwt else {}
    return {
        "method": headers.pop(":method", ""),
        "host": _text(request.authority),
        "path": _text(request.path),
        "scheme": request.scheme,
        "id": _text(request.request_id),
        "user_agent": _text(request.user_agent) or None,
        "content_type": headers.pop("content-type", None),
        "trace": headers.pop("traceparent", ""),
        "headers": headers,
        "protocol": _PROTOCOLS.get(entry.protocol_version, ""),
        "bytes_in": request.request_body_bytes,
        "code": response.response_code.value,
        "details": _text(response.response_code_details),
        "claims": authenticated.get("payload"),
        "kid": (authenticated.get("header") or {}).get("kid"),
    }


def _tcp(common: pb.AccessLogCommon) -> dict[str, Any]:
    return {"id": _text(common.stream_id), "details": _text(common.connection_termination_details)}


def _missing() -> str:
    raise NotAnEntry("an entry of another format")


def _members(struct: Struct) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(struct)
    return found


def _text(value: str | bytes) -> str:
    """Bytes that are no UTF-8 arrive as bytes (CS-5)."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=8192)
def _address(serialised: bytes) -> str:
    socket = ext_authz_pb2.Address.FromString(serialised).socket_address
    return f"{socket.address}:{socket.port_value}"
