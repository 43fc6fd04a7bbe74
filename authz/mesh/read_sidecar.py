"""The reader of Sidecar: the ports of a proxy."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_host_port, read_listener_port, read_metadata, read_spec
from authz.mesh.mesh_documents import Sidecar, Written
from authz.mesh.nouns import InboundPort, OutboundPort, Place, Protocol


def read_sidecar(part: Part, written: Written) -> None:
    """The ports of a proxy, inbound and outbound."""
    _, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    spec.only("workloadSelector", "ingress", "egress", "outboundTrafficPolicy")
    selector = spec.part("workloadSelector", required=True)
    inbound = []
    for listener in spec.parts("ingress"):
        listener.only("port", "bind", "captureMode", "defaultEndpoint")
        number, name, protocol = read_listener_port(listener)
        app = read_host_port(listener, "defaultEndpoint", listener.text("defaultEndpoint", required=True))
        inbound.append((InboundPort(number, name, protocol, Place(app, app)), listener))
    outbound = []
    for listener in spec.parts("egress"):
        listener.only("port", "bind", "captureMode", "hosts")
        if listener.text("bind", "127.0.0.1") != "127.0.0.1":
            listener.note(
                "ME-6", "outbound ports are bound to 127.0.0.1 only", "bind", "anybody could use this identity"
            )
        number, _, protocol = read_listener_port(listener)
        hosts = listener.texts("hosts", required=True)
        outbound.append((OutboundPort(number, protocol, _egress_host(listener, hosts, protocol)), listener))
    labels = selector.strings("labels") if selector else {}
    written.sidecars.append(Sidecar(namespace, labels, tuple(inbound), tuple(outbound), part))


def _egress_host(listener: Part, hosts: tuple[str, ...], protocol: Protocol) -> str:
    """``./host`` and ``namespace/host`` name one service; ``*/*`` belongs to the forward proxy."""
    if protocol is Protocol.HTTP_PROXY:
        if hosts != ("*/*",):
            listener.note(
                "ME-1", "an HTTP_PROXY port leads everywhere", "hosts", 'write `hosts: ["*/*"]`; policies decide'
            )
        return ""
    if len(hosts) != 1 or "*" in hosts[0]:
        listener.note(
            "ME-6", "an outbound port leads to exactly one service", "hosts", "write one port for each service"
        )
        return ""
    return hosts[0].partition("/")[2] or hosts[0]
