"""What a description chooses among: protocols, TLS, and who enforces."""

from enum import StrEnum


class Protocol(StrEnum):
    """The protocol on a port. ``GRPC`` and ``HTTP2`` differ from ``HTTP`` only on the way to the application."""

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    TCP = "TCP"
    TLS = "TLS"
    """Bytes that begin with TLS of the application's own, whose server name can be looked at."""
    HTTPS = "HTTPS"
    """Used for external services only: plain HTTP inside the mesh, TLS from the egress gateway outwards."""
    HTTP_PROXY = "HTTP_PROXY"
    """Used for outbound ports only: a forward proxy to any external host through the egress gateway."""

    @property
    def is_http(self) -> bool:
        """Whether Envoy reads requests, and not just bytes."""
        return self not in (Protocol.TCP, Protocol.TLS)


class Enforce(StrEnum):
    """Who enforces the policies of a workload: the check, or its own Envoy by native filters."""

    CHECK = "check"
    NATIVE = "native"


class TlsMode(StrEnum):
    """Istio's ``tls.mode`` of a gateway's server."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"
    """A client may show a certificate; one that does shows a good one."""
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    PASSTHROUGH = "PASSTHROUGH"
    """Used for a gateway's server only: the client's own TLS, unopened, goes to the host whose name it asks for."""


class Resolution(StrEnum):
    """How the addresses of a service are found."""

    STATIC = "STATIC"
    """They are written, or those of workloads."""
    DNS = "DNS"
    """Every address of a name."""
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    """The first address of a name, whenever a connection is made."""
    BY_NAME = "BY_NAME"
    """The name that is asked for, among many (``*.example.com``)."""
