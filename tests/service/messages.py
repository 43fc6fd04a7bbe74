"""A valid CheckRequest; tests change one thing by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from authz._proto import ext_authz_pb2 as pb

OWN = "spiffe://cluster.local/ns/shop/sa/api"
CALLER = "spiffe://cluster.local/ns/web/sa/front"
LABELS = {
    "app": "api",
    "authz/namespace": "shop",
    "authz/service-account": "api",
    "authz/workload": "api-v1",
}


def peer(
    principal: str = "",
    address: str | None = "10.9.9.9",
    port: int = 40000,
    labels: Mapping[str, str] | None = None,
    certificate: str = "",
) -> bytes:
    message = pb.Peer()
    if address is None:
        message.address.pipe.path = "/run/listener.sock"
    else:
        message.address.socket_address.address = address
        message.address.socket_address.port_value = port
    if principal:
        message.principal = principal
    if certificate:
        message.certificate = certificate
    for name, value in (labels or {}).items():
        message.labels[name] = value
    return message.SerializeToString(deterministic=True)


def check_request(
    *,
    method: str = "GET",
    path: str = "/",
    host: str = "api.example.com",
    headers: Iterable[tuple[str, str | bytes]] = (),
    merged: Mapping[str, str] | None = None,
    source: bytes | None = None,
    destination: bytes | None = None,
    extensions: Mapping[str, str] | None = None,
    sni: str | None = "",
    dynamic: Mapping[str, Mapping[str, Any]] | None = None,
    tcp: bool = False,
) -> bytes:
    """``merged`` gives the ``headers`` map instead of raw headers; ``sni`` None leaves the TLS session out."""
    message = pb.CheckRequest()
    attributes = message.attributes
    attributes.source = peer(CALLER) if source is None else source
    attributes.destination = peer(OWN, "10.1.0.5", 8080, LABELS) if destination is None else destination
    for name, value in (extensions or {}).items():
        attributes.context_extensions[name] = value
    attributes.metadata_context.SetInParent()
    for namespace, members in (dynamic or {}).items():
        attributes.metadata_context.filter_metadata[namespace].update(members)
    if sni is not None:
        attributes.tls_session.sni = sni
    if tcp:
        return message.SerializeToString(deterministic=True)
    http = attributes.request.http
    http.method, http.path, http.host, http.scheme, http.protocol = method, path, host, "http", "HTTP/1.1"
    http.id = "11280866086404753152"
    if merged is not None:
        for name, value in merged.items():
            http.headers[name] = value
        return message.SerializeToString(deterministic=True)
    pseudo = [(":authority", host), (":path", path), (":method", method), (":scheme", "http")]
    for name, text in (*pseudo, *headers):
        http.header_map.headers.add(key=name, raw_value=text.encode() if isinstance(text, str) else text)
    return message.SerializeToString(deterministic=True)


def response(answer: object) -> pb.CheckResponse:
    assert isinstance(answer, bytes)
    return pb.CheckResponse.FromString(answer)


def told(answer: pb.CheckResponse) -> dict[str, Any]:
    """The dynamic metadata as plain values."""
    return dict(answer.dynamic_metadata.items())
