"""
Envoy's CheckRequest to nouns of the core: bytes in, nouns out, nothing else; ``answer`` is the way back.

Protobuf ends here. Nothing here decides, waits, logs or knows which policies exist. What a request does not tell is
UNKNOWN, never absent (CS-7, CS-8).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from urllib.parse import unquote

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    UNKNOWN,
    AttributeContext,
    Destination,
    HttpRequest,
    Source,
    Unknown,
    Workload,
)
from authz.core.networks import parse_address
from authz.core.normalize import client_address

RemoteMetadata = Iterable[tuple[str, str | bytes]]
"""gRPC metadata of a Check call; unforgeable by the client, because Envoy writes it (XA-58)."""

DeliveredMetadata = Mapping[str, Mapping[str, object]]
"""Dynamic metadata by namespace; a namespace that is missing was not delivered."""

REMOTE_IP_METADATA = "x-authz-remote-ip"
"""``%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%``: the client address as Envoy determined it (AP-41)."""
DIRECT_IP_METADATA = "x-authz-direct-ip"
"""``%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%``: the physical peer, before PROXY protocol (CS-2)."""
RESERVED_LABELS = "authz/"
"""Labels with this prefix say who the workload is; they never select policies."""
NAMESPACE_LABEL = "authz/namespace"
SERVICE_ACCOUNT_LABEL = "authz/service-account"
WORKLOAD_LABEL = "authz/workload"
PROXY_LABEL = "authz/proxy"
"""``gateway`` for a gateway-like Envoy, ``use_remote_address: true`` (CS-9)."""

_SPIFFE_WORKLOAD = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)")
_NO_EXTENSIONS: Mapping[str, str] = {}
_NOTHING_DELIVERED: DeliveredMetadata = {}


def read_attributes(
    message: bytes,
    metadata: RemoteMetadata = (),
    *,
    trusted_proxies: int = 0,
    delivered: DeliveredMetadata = _NOTHING_DELIVERED,
) -> AttributeContext:
    """
    Read a serialised CheckRequest.

    Args:
        message: as Envoy sent it; raw headers are preferred, merged ones accepted (CS-5, XA-44).
        metadata: of the call; gives the addresses and trace that the message lacks (XA-58, XA-170).
        delivered: namespaces of dynamic metadata that Envoy is told to send, each empty (CS-12).
        trusted_proxies: ``numTrustedProxies``, for a gateway that does not send the client address (CS-9).

    Raises:
        google.protobuf.message.DecodeError: these bytes are not a CheckRequest.
    """
    attributes = pb.CheckRequest.FromString(message).attributes
    told = dict(metadata)
    extensions = _extensions(attributes.context_extensions) if attributes.context_extensions else _NO_EXTENSIONS
    destination = _destination(
        attributes.destination,
        extensions.get("namespace", ""),
        extensions.get("service_account", ""),
        extensions.get("workload", ""),
    )
    source, certificate = _source(attributes.source, told.get(DIRECT_IP_METADATA), told.get(REMOTE_IP_METADATA))
    http = _http(attributes.request.http) if attributes.HasField("request") else None
    if http is not None and REMOTE_IP_METADATA not in told:
        source = _forwarded(source, http, gateway=destination.is_gateway, trusted_proxies=trusted_proxies)
    trace_parent = told.get("traceparent")
    if trace_parent is None:
        trace_parent = http.headers.get("traceparent", ("",))[0] if http is not None else ""  # XA-172
    return AttributeContext(
        source,
        destination,
        http,
        _text(attributes.tls_session.sni).lower() if attributes.HasField("tls_session") else UNKNOWN,
        NOT_AUTHENTICATED,
        _metadata(attributes.metadata_context, delivered) if attributes.HasField("metadata_context") else delivered,
        extensions,
        _text(trace_parent),
        certificate,
        _text(told["tracestate"]) if "tracestate" in told else "",
    )


def _http(http: pb.HttpRequest) -> HttpRequest:
    if http.HasField("header_map"):
        raw = http.header_map.headers
        headers: dict[str, tuple[str, ...]]
        try:
            headers = {header.key: (header.raw_value.decode(),) for header in raw}
        except UnicodeDecodeError:
            headers = {}
        if len(headers) != len(raw):  # several occurrences of a name, or bytes that are not UTF-8
            headers = {}
            for header in raw:
                value = (header.raw_value.decode("utf-8", "surrogateescape"),)
                headers[header.key] = headers.get(header.key, ()) + value
    else:
        headers = {name: (_text(value),) for name, value in http.headers.items()}
    method, host, path = http.method, http.host, http.path
    if not type(method) is type(host) is type(path) is str:
        method, host, path = _text(method), _text(host), _text(path)
    is_partial = False
    if ":path" not in headers or ":method" not in headers or ":authority" not in headers or ":scheme" not in headers:
        # The fields have what pseudo headers say; where only the headers lack it, the sidecar hides headers (XA-49).
        is_partial = bool(http.scheme) and ":scheme" not in headers
        for name, text in ((":method", method), (":authority", host), (":path", path)):
            if text and name not in headers:
                headers[name], is_partial = (text,), True
    return HttpRequest(method, host, path, headers, http.scheme, http.id, http.protocol, http.size, is_partial)


def _extensions(written: Mapping[str, str]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in written.items()}


def _text(value: str | bytes) -> str:
    """Bytes that are not UTF-8 arrive as bytes; surrogate escapes keep different ones different (CS-5)."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=8192)
def _source(serialised: bytes, direct_ip: str | bytes | None, remote_ip: str | bytes | None) -> tuple[Source, str]:
    """
    The peer and its certificate; remembered, because a connection carries many requests.

    Without ``remote_ip`` the remote address is the peer's, as for TCP (AP-41).
    """
    peer = pb.Peer.FromString(serialised)
    socket = peer.address.socket_address  # empty behind a Unix socket (XA-38)
    ip = _address(direct_ip) if direct_ip is not None else _address(socket.address)
    remote = _address(remote_ip) if remote_ip is not None else ip
    principal = _text(peer.principal)
    certificate = unquote(_text(peer.certificate)) if peer.certificate else ""
    return Source((principal,) if principal else (), ip, remote, socket.port_value), certificate


def _address(text: str | bytes) -> str | Unknown:
    """UNKNOWN for what is not an address, such as the path of a Unix socket."""
    return text if isinstance(text, str) and parse_address(text) is not None else UNKNOWN


def _forwarded(source: Source, http: HttpRequest, *, gateway: bool, trusted_proxies: int) -> Source:
    """The client address from the delivered x-forwarded-for (CS-9), where Envoy does not send it."""
    forwarded_for = http.headers.get("x-forwarded-for", ())
    if http.is_partial and not forwarded_for and not (gateway and trusted_proxies == 0):
        return replace(source, remote_ip=UNKNOWN)  # it may have been there (CS-8)
    peer = "" if isinstance(source.ip, Unknown) else source.ip
    client = client_address(peer, forwarded_for, gateway=gateway, trusted_proxies=trusted_proxies)
    return replace(source, remote_ip=client or UNKNOWN)


@lru_cache(maxsize=4096)
def _destination(serialised: bytes, namespace: str, service_account: str, workload_name: str) -> Destination:
    """
    The workload that asks, and whether it is a gateway; remembered, because a sidecar says the same every time.

    Who it is: ``context_extensions``, else the reserved labels, else our own certificate. An empty namespace means
    that nothing said so, which the service refuses.
    """
    peer = pb.Peer.FromString(serialised)
    labels = {_text(name): _text(value) for name, value in peer.labels.items()}
    principal = _text(peer.principal)
    own = _SPIFFE_WORKLOAD.fullmatch(principal)
    namespace = namespace or labels.get(NAMESPACE_LABEL, "")
    service_account = service_account or labels.get(SERVICE_ACCOUNT_LABEL, "")
    if own is not None:
        namespace = namespace or own[1]
        service_account = service_account or own[2]
    workload = Workload(
        namespace,
        frozenset(pair for pair in labels.items() if not pair[0].startswith(RESERVED_LABELS)),
        service_account,
        workload_name or labels.get(WORKLOAD_LABEL, ""),
    )
    is_gateway = labels.get(PROXY_LABEL) == "gateway"
    if not peer.address.HasField("socket_address"):
        return Destination(workload, principal=principal, is_gateway=is_gateway)  # a Unix socket (XA-38)
    socket = peer.address.socket_address
    return Destination(workload, socket.address or UNKNOWN, socket.port_value, principal, is_gateway)


def _metadata(context: pb.Metadata, delivered: DeliveredMetadata) -> DeliveredMetadata:
    """
    Dynamic metadata by namespace (CS-12).

    Envoy sends nothing of a namespace that no filter wrote, and nothing of one that it was not told to send: only the
    deployment knows which, so what it did not name stays out of the mapping and is UNKNOWN.
    """
    written = context.filter_metadata
    if not written:
        return delivered
    return {**delivered, **{namespace: _members(struct) for namespace, struct in written.items()}}


def _members(struct: Struct) -> dict[str, object]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> object:
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    held = getattr(value, kind)
    if isinstance(held, Struct):
        return _members(held)
    if isinstance(held, ListValue):
        return [_value(element) for element in held.values]
    return held
