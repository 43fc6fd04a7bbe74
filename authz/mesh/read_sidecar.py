"""The reader of Sidecar: the ports of a proxy."""

from enum import StrEnum

from authz.documents.accessors import Part
from authz.mesh.kind_parts import check_capture_mode, read_host_port, read_listener_port, read_metadata, read_spec
from authz.mesh.mesh_documents import EgressListener, Sidecar, Written
from authz.mesh.nouns import InboundPort, OutboundPort, Place, Protocol
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import is_host, is_label, only_fields

UNWRITTEN_PORT = 15001
"""Where an application calls what an egress listener without a port leads to: Istio's number of what is captured."""


class _OutboundMode(StrEnum):
    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


def read_sidecar(part: Part, written: Written) -> None:
    """The ports of a proxy, inbound and outbound."""
    _, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    only_fields(spec, FIELDS["Sidecar"])
    selector = spec.part("workloadSelector")
    if selector:
        only_fields(selector, FIELDS["WorkloadSelector"])
    labels = selector.strings("labels") if selector else {}
    inbound = tuple((_inbound(listener), listener) for listener in spec.parts("ingress"))
    egress = spec.parts("egress")
    outbound = tuple(_outbound(listener, namespace) for listener in egress)
    for listener in egress[:-1]:
        if not listener.has("port"):
            help_text = "as in Istio: one alone may have none, and it is for what the others leave"
            listener.note("ME-1", "an egress listener without a port is the last one", "", help_text)
    if not inbound and not outbound and not spec.has("outboundTrafficPolicy"):
        spec.note("ME-3", "`ingress` or `egress` is missing", "ingress", "without a port a Sidecar says nothing")
    written.sidecars.append(Sidecar(namespace, labels or None, inbound, outbound, _leaves(spec), part))


def _leaves(spec: Part) -> bool | None:
    """Istio's default of a policy that is there but says nothing is REGISTRY_ONLY."""
    policy = spec.part("outboundTrafficPolicy")
    if policy is None:
        return None
    only_fields(policy, FIELDS["OutboundTrafficPolicy"])
    return policy.choice("mode", _OutboundMode, _OutboundMode.REGISTRY_ONLY) is _OutboundMode.ALLOW_ANY


def _inbound(listener: Part) -> InboundPort:
    only_fields(listener, FIELDS["IstioIngressListener"])
    if listener.text("bind") not in ("", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        help_text = "the same files serve processes and containers, whose addresses differ; leave it out"
        listener.note("ME-6", "inbound ports are bound to every address", "bind", help_text)
    number, name, protocol = read_listener_port(listener)
    app = read_host_port(listener, "defaultEndpoint", listener.text("defaultEndpoint", required=True))
    return InboundPort(number, name, protocol, Place(app, app))


def _outbound(listener: Part, namespace: str) -> EgressListener:
    only_fields(listener, FIELDS["IstioEgressListener"])
    if listener.text("bind", "127.0.0.1") != "127.0.0.1":
        listener.note("ME-6", "outbound ports are bound to 127.0.0.1 only", "bind", "anybody could use this identity")
    if not listener.has("port"):
        check_capture_mode(listener)
        unwritten = OutboundPort(UNWRITTEN_PORT, Protocol.HTTP, targets=(), is_unwritten=True)
        return EgressListener(unwritten, _hosts(listener, namespace), listener)
    number, _, protocol = read_listener_port(listener)
    hosts = _hosts(listener, namespace)
    if protocol is Protocol.HTTP_PROXY:
        if hosts != (("*", "*"),):
            help_text = 'write `hosts: ["*/*"]`; policies decide'
            listener.note("ME-1", "an HTTP_PROXY port leads everywhere", "hosts", help_text)
        return EgressListener(OutboundPort(number, protocol), (), listener)
    only = hosts[0] if len(hosts) == 1 else ("", "*")
    if "*" in only[1] or only[0].startswith("~"):
        return EgressListener(OutboundPort(number, protocol, targets=()), hosts, listener)
    return EgressListener(OutboundPort(number, protocol, only[1]), hosts, listener)


def _hosts(listener: Part, namespace: str) -> tuple[tuple[str, str], ...]:
    """``./host``, ``namespace/host`` or ``*/host``; a host alone is taken as one of any namespace."""
    found: dict[tuple[str, str], None] = {}
    for i, written in enumerate(listener.texts("hosts", required=True)):
        scope, slash, host = written.partition("/")
        if not slash:
            scope, host = "*", written
        negated, name = ("~", scope[1:]) if scope.startswith("~") else ("", scope)
        name = namespace if name == "." else name
        if not is_host(host) or ":" in host or (name != "*" and not is_label(name)):
            help_text = "for instance ./reviews.shop.svc.cluster.local, shop/*, */*.example.com"
            listener.note("ME-1", f"`{written}` is not a namespace and a host", f"hosts[{i}]", help_text)
            continue
        found[(negated + name, host)] = None
    if listener.has("hosts") and not listener.texts("hosts"):
        listener.note("ME-3", "`hosts` is empty", "hosts", 'write for instance `hosts: ["./*"]`')
    return tuple(found)
