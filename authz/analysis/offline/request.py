"""
A request as a client sent it, described by a person, to the attributes that Envoy would ask about.

The shape is that of the conformance format (tests/conformance/README.md). What Envoy does before it asks
(path normalisation, joined headers, client address, lower-case SNI) is done here, exactly once.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from authz.core.attributes import (
    UNKNOWN,
    AttributeContext,
    Destination,
    HttpRequest,
    Source,
    Unknown,
    Workload,
)
from authz.core.engine import WorkloadPolicies
from authz.core.normalize import client_address, join_headers, normalize_path
from authz.core.pipeline import peer_mode
from authz.core.resources import MeshConfig, MtlsMode
from authz.documents import fields
from authz.documents.reading import Node, Sequence
from authz.documents.schema import Notes

REQUEST_KEYS = (
    *("protocol", "sourcePrincipal", "tls", "sourceIp", "destinationIp", "destinationPort", "sni"),
    *("method", "host", "path", "scheme", "headers", "metadata"),
)
"""Keys of ``request``; ``metadata`` (filter namespace → key → value) is ours."""
WORKLOAD_KEYS = ("namespace", "labels", "serviceAccount", "port", "name")

SUITE = "SUITE"
"""Code of every problem of a suite or request file."""
MAX_PORT = 65535
UNUSABLE_PATH = "*"
"""Stands for a path that Envoy answers 400 (PN-10): the pipeline refuses it at that very stage, after mTLS."""


@dataclass(frozen=True, slots=True)
class OfflineRequest:
    """One request or TCP connection as sent; the defaults are those of the conformance format."""

    protocol: str = "http"
    source_principal: str = ""
    """Identity of the client certificate, ``spiffe://`` included; empty for none."""
    tls: str = ""
    """``mtls``, ``simple`` (no client certificate) or ``plaintext``; empty: mTLS iff there is an identity."""
    source_ip: str = "10.9.9.9"
    destination_ip: str = "10.1.0.5"
    destination_port: int | None = None
    """None: the workload's port."""
    sni: str = ""
    method: str = "GET"
    host: str = "api.example.com"
    path: str | None = None
    """Before normalisation, query included; None: ``/``, and nothing for CONNECT."""
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()
    """In wire order. ``x-forwarded-for`` is as the check server sees it (CS-9)."""
    metadata: Mapping[str, Mapping[str, object]] | None = None
    """Dynamic metadata by filter namespace (AP-66); None: no filter set any."""

    @property
    def is_tcp(self) -> bool:
        """Whether it describes a connection without HTTP."""
        return self.protocol == "tcp"

    def substituted(self, substitute: Callable[[str], str]) -> "OfflineRequest":
        """Apply ``substitute`` to the path and every header value: placeholders to tokens."""
        return replace(
            self,
            path=substitute(self.path) if self.path is not None else None,
            headers=tuple((name, substitute(value)) for name, value in self.headers),
        )


@dataclass(frozen=True, slots=True)
class OfflineWorkload:
    """The workload that is asked for, and the port its requests go to unless they say otherwise."""

    workload: Workload
    port: int | None = None


def read_request(nodes: Mapping[str, Node], notes: Notes) -> OfflineRequest:
    """Read the values of ``request``, already merged over its defaults; problems are noted."""
    default = OfflineRequest()
    get = nodes.get
    return OfflineRequest(
        protocol=fields.one_of(get("protocol"), ("http", "tcp"), "a protocol", notes, default.protocol),
        source_principal=fields.text(get("sourcePrincipal"), notes),
        tls=fields.one_of(get("tls"), ("mtls", "simple", "plaintext"), "a kind of TLS", notes),
        source_ip=fields.address(get("sourceIp"), notes, default.source_ip),
        destination_ip=fields.address(get("destinationIp"), notes, default.destination_ip),
        destination_port=fields.number(get("destinationPort"), notes, most=MAX_PORT),
        sni=fields.text(get("sni"), notes),
        method=fields.text(get("method"), notes, default.method),
        host=fields.text(get("host"), notes, default.host),
        path=fields.optional_text(get("path"), notes),
        scheme=fields.text(get("scheme"), notes, default.scheme),
        headers=_read_headers(get("headers"), notes),
        metadata=_read_metadata(get("metadata"), notes),
    )


def _read_headers(node: Node | None, notes: Notes) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, child in fields.named(node, "headers", notes).items():
        if isinstance(child, Sequence):
            pairs.extend((name, fields.text(item, notes)) for item in child.items)
        else:
            pairs.append((name, fields.text(child, notes)))
    return tuple(pairs)


def _read_metadata(node: Node | None, notes: Notes) -> dict[str, dict[str, object]] | None:
    if node is None or node.is_null:
        return None
    return {
        namespace: {key: fields.plain(value, notes) for key, value in fields.named(members, namespace, notes).items()}
        for namespace, members in fields.named(node, "metadata", notes).items()
    }


def read_workload(node: Node | None, notes: Notes) -> OfflineWorkload:
    """Read ``workload``; problems are noted."""
    get = fields.entries(node, WORKLOAD_KEYS, "workload", notes).get
    labels = {name: fields.text(value, notes) for name, value in fields.named(get("labels"), "labels", notes).items()}
    return OfflineWorkload(
        Workload(
            fields.text(get("namespace"), notes, "default"),
            frozenset(labels.items()),
            fields.text(get("serviceAccount"), notes),
            fields.text(get("name"), notes),
        ),
        fields.number(get("port"), notes, most=MAX_PORT),
    )


def to_attributes(
    request: OfflineRequest, target: OfflineWorkload, mesh: MeshConfig, *, gateway: bool = False
) -> AttributeContext:
    """
    Return what Envoy would ask about.

    Args:
        gateway: the proxy is a gateway: it finds the client address as one (CS-9) and has its own TLS (PA-14).

    Returns:
        The attributes. ``http.path`` is UNUSABLE_PATH where Envoy answers 400. Without any port the port is UNKNOWN,
        which is not absent (CS-8).
    """
    port = request.destination_port if request.destination_port is not None else target.port
    is_mtls = bool(request.source_principal) and request.tls in ("", "mtls")
    is_plaintext = request.tls == "plaintext" or (not request.tls and not is_mtls)
    forwarded: tuple[str, ...] = ()
    http = None
    if not request.is_tcp:
        http = _http(request, mesh)
        forwarded = http.headers.get("x-forwarded-for", ())
    remote_ip = request.source_ip
    if http is not None:
        remote_ip = client_address(
            request.source_ip, forwarded, gateway=gateway, trusted_proxies=mesh.num_trusted_proxies
        )
    known_port: int | Unknown = port if port is not None else UNKNOWN
    return AttributeContext(
        Source((request.source_principal,) if is_mtls else (), request.source_ip, remote_ip),
        Destination(target.workload, request.destination_ip, known_port, is_gateway=gateway),
        http,
        "" if is_plaintext else request.sni.lower(),
        metadata=defaultdict(dict, request.metadata or {}),  # every namespace is known here
    )


def passed_through(
    request: OfflineRequest, attributes: AttributeContext, policies: WorkloadPolicies
) -> AttributeContext:
    """
    Return the request as the proxy sees it when it does not terminate the client's TLS.

    PERMISSIVE: "TLS that is not Istio mTLS is passed through to the application as opaque TCP, with no identity and
    only TCP rules applied" (PA-10). DISABLE terminates none at all (PA-11). A gateway terminates its own (PA-14).
    """
    tls = request.tls or ("mtls" if request.source_principal else "plaintext")
    mode = peer_mode(policies, attributes.destination)
    is_opaque = (tls == "simple" and mode is not MtlsMode.STRICT) or (tls == "mtls" and mode is MtlsMode.DISABLE)
    if not is_opaque or attributes.destination.is_gateway:
        return attributes
    return replace(attributes, source=replace(attributes.source, identities=()), http=None)


def _http(request: OfflineRequest, mesh: MeshConfig) -> HttpRequest:
    written = request.path
    if written is None:
        written = "" if request.method == "CONNECT" else "/"
    path = normalize_path(written, mesh.path_normalization) if written else ""
    if path is None:
        path = UNUSABLE_PATH
    headers = join_headers(request.headers)
    headers.pop("host", None)  # HTTP has one authority, and it is ``host`` of the description
    pseudo = {":method": (request.method,), ":authority": (request.host,), ":scheme": (request.scheme,)}
    if path:
        pseudo[":path"] = (path,)
    return HttpRequest(request.method, request.host, path, {**headers, **pseudo}, request.scheme)
