"""The reader of ServiceEntry: a name that workloads call, in the mesh or outside."""

import ipaddress
from enum import StrEnum

from authz.documents.accessors import Part
from authz.mesh.kind_parts import (
    COMPOSE_ADDRESS,
    read_compose_address,
    read_export_to,
    read_metadata,
    read_protocol,
    read_service_account,
    read_spec,
)
from authz.mesh.locality_values import WorkloadLocality
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import TLS_MODE, Address, MeshService, Place, Resolution, ServiceEndpoint, ServicePort
from authz.mesh.quantities import read_whole
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import is_host, only_fields


class _Location(StrEnum):
    MESH_EXTERNAL = "MESH_EXTERNAL"
    MESH_INTERNAL = "MESH_INTERNAL"


class _Written(StrEnum):
    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


def read_service_entry(part: Part, written: Written) -> None:
    """A name that workloads call, in the mesh or outside."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS)
    spec = read_spec(part)
    only_fields(spec, FIELDS["ServiceEntry"])
    ports = _ports(spec)
    selector = spec.part("workloadSelector")
    if selector:
        only_fields(selector, FIELDS["WorkloadSelector"])
    external = spec.choice("location", _Location, _Location.MESH_EXTERNAL) is _Location.MESH_EXTERNAL
    has_endpoints = spec.has("endpoints")
    if selector and has_endpoints:
        help_text = "endpoints are written, or the labels of workloads are"
        spec.note("ME-1", "`workloadSelector` and `endpoints` exclude each other", "endpoints", help_text)
    if not external and selector is None and not has_endpoints:
        help_text = "a MESH_INTERNAL service is its workloads, or its `endpoints`"
        spec.note("ME-3", "`workloadSelector` is missing", "workloadSelector", help_text)
    if external and selector is not None:
        help_text = "write `location: MESH_INTERNAL`: what a workload of this mesh serves is inside"
        spec.note("ME-6", "a host outside has no workloads of this mesh", "workloadSelector", help_text)
    resolution = _resolution(spec, external=external)
    endpoints = _endpoints(spec, namespace, ports, annotations, is_inside=not external, resolution=resolution)
    for i, host in enumerate(spec.texts("hosts", required=True)):
        if not is_host(host) or host == "*" or ":" in host:
            help_text = "a DNS name or `*.example.com`; `*` alone would be everything"
            spec.note("ME-1", f"`{host}` is not a host", f"hosts[{i}]", help_text)
            continue
        if host.lower() in {other.lower() for other in spec.texts("hosts")[:i]}:
            spec.note("ME-5", f"the host `{host}` is given twice", f"hosts[{i}]", "write it once")
            continue
        service = MeshService(
            name=name,
            namespace=namespace,
            host=host.removesuffix("."),
            ports=ports,
            selector=selector.strings("labels") if selector else {},
            external=external,
            endpoints=endpoints,
            location=part.location,
            resolution=_resolution_of(spec, host, resolution, i, has_addresses=bool(endpoints) or not external),
            export_to=read_export_to(spec, namespace),
            addresses=_addresses(spec),
            subject_alt_names=spec.texts("subjectAltNames"),
        )
        written.services.append((service, part))
    if spec.has("hosts") and not spec.texts("hosts"):
        spec.note("ME-3", "`hosts` is empty", "hosts", "write the name by which it is called")
    for i, san in enumerate(spec.texts("subjectAltNames")):
        if not external and san and not san.startswith("spiffe://"):
            help_text = "for instance spiffe://cluster.local/ns/shop/sa/reviews"
            spec.note("ME-6", f"`{san}` is not an identity of a mesh", f"subjectAltNames[{i}]", help_text)
    if external and not endpoints and spec.has("subjectAltNames") and any("*" in host for host in spec.texts("hosts")):
        help_text = "leave it out: a certificate must be for the name that is asked for"
        spec.note("ME-6", "one name is not that of every host of a wildcard", "subjectAltNames", help_text)
    if "" in spec.texts("subjectAltNames"):
        spec.note("ME-1", "an empty name fits no certificate", "subjectAltNames", "leave it out")


def _ports(spec: Part) -> tuple[ServicePort, ...]:
    found: dict[str, ServicePort] = {}
    numbers: set[int] = set()
    for port in spec.parts("ports"):
        only_fields(port, FIELDS["ServicePort"])
        number, name = port.port("number", required=True), port.text("name", required=True)
        if name in found or number in numbers:
            port.note("ME-5", f"the port `{name}` or {number} is given twice", "name", "names and numbers differ")
            continue
        numbers.add(number)
        found[name] = ServicePort(number, name, read_protocol(port), port.port("targetPort"))
    if not found:
        spec.note("ME-3", "`ports` is missing", "ports", "a service is called at a port")
    return tuple(found.values())


def _addresses(spec: Part) -> tuple[str, ...]:
    """Single addresses are further names of the host; networks mean something only to captured traffic."""
    found = []
    for i, written in enumerate(spec.texts("addresses")):
        try:
            network = ipaddress.ip_network(written, strict=False)
        except ValueError:
            spec.note("ME-1", f"`{written}` is not an IP address", f"addresses[{i}]", "for instance 10.0.0.8")
            continue
        if network.prefixlen < network.max_prefixlen:
            help_text = "traffic is not captured here, so a network leads nowhere; write single addresses"
            spec.note("ME-6", f"`{written}` is a network", f"addresses[{i}]", help_text)
        else:
            found.append(str(network.network_address))
    return tuple(found)


def _resolution(spec: Part, *, external: bool) -> Resolution | None:
    """What is written, as far as it does not depend on a host; None: nothing is."""
    if not spec.text("resolution"):
        return None
    written = spec.choice("resolution", _Written, _Written.STATIC)
    has_endpoints = spec.has("endpoints")
    if written is _Written.NONE:
        if not external:
            help_text = "traffic is not captured, so no address is known: write STATIC or DNS"
            spec.note("ME-6", "`NONE` is not done inside the mesh", "resolution", help_text)
        if has_endpoints:
            spec.note("ME-1", "`NONE` has no endpoints", "endpoints", "write `resolution: STATIC`, or DNS")
        return None
    if written is _Written.STATIC and external and not has_endpoints:
        spec.note("ME-3", "`endpoints` is missing", "resolution", "STATIC is for written addresses; write DNS")
    if written is _Written.DYNAMIC_DNS:
        if has_endpoints or not external:
            help_text = "it is for wildcard hosts outside, without endpoints"
            spec.note("ME-1", "`DYNAMIC_DNS` finds addresses by the name that is asked for", "resolution", help_text)
        return Resolution.BY_NAME
    if written is _Written.DNS_ROUND_ROBIN and len(spec.parts("endpoints")) > 1:
        spec.note("ME-1", "`DNS_ROUND_ROBIN` has at most one endpoint", "endpoints", "write `resolution: DNS`")
    return Resolution(written.value)


def _resolution_of(spec: Part, host: str, written: Resolution | None, i: int, *, has_addresses: bool) -> Resolution:
    if has_addresses:
        return Resolution.STATIC if written in (None, Resolution.BY_NAME) else written
    if not host.startswith("*"):
        if written is Resolution.BY_NAME:
            help_text = "write `resolution: DNS`"
            spec.note("ME-1", f"`DYNAMIC_DNS` is for wildcards, and `{host}` is none", f"hosts[{i}]", help_text)
        return written or Resolution.DNS_ROUND_ROBIN
    if written in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN):
        help_text = "write `resolution: DYNAMIC_DNS` or NONE: the name that is asked for is looked up"
        spec.note("ME-1", f"`{host}` has no address in the DNS", f"hosts[{i}]", help_text)
    return Resolution.BY_NAME


def _endpoints(
    spec: Part,
    namespace: str,
    ports: tuple[ServicePort, ...],
    annotations: Part | None,
    *,
    is_inside: bool,
    resolution: Resolution | None,
) -> dict[str, tuple[ServiceEndpoint, ...]]:
    found: dict[str, list[ServiceEndpoint]] = {}
    by_name = resolution in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)
    if spec.has("endpoints") and not spec.parts("endpoints"):
        spec.note("ME-3", "`endpoints` is empty", "endpoints", "write an address, or leave it out")
    for endpoint in spec.parts("endpoints"):
        only_fields(endpoint, FIELDS["WorkloadEntry"])
        host = _endpoint_host(endpoint, by_name=by_name)
        written = endpoint.part("ports")
        for key in written.node.entries if written else ():
            if key not in {port.name for port in ports} and written:
                help_text = f"its ports: {', '.join(port.name for port in ports)}"
                written.note("ME-4", f"the service has no port `{key}`", key, help_text)
        if by_name and annotations is not None and annotations.has(COMPOSE_ADDRESS):
            help_text = "a name is looked up wherever the proxy runs; leave the annotation out"
            annotations.note("ME-1", "endpoints of DNS have no address of their own", COMPOSE_ADDRESS, help_text)
        compose = read_compose_address(annotations, host) if not by_name else host
        account = endpoint.text("serviceAccount")
        labels = endpoint.strings("labels")
        if is_inside and not account and labels.get(TLS_MODE) != "disabled" and not spec.texts("subjectAltNames"):
            help_text = f"name the account of its proxy; without a proxy write the label `{TLS_MODE}: disabled`"
            endpoint.note("ME-3", "`serviceAccount` is missing: who answers must be known", "serviceAccount", help_text)
        if account:
            read_service_account(endpoint, namespace)
        locality = WorkloadLocality.from_text(endpoint.text("locality"))
        weight, network = read_whole(endpoint, "weight") or 0, endpoint.text("network")
        for port in ports:
            number = (written.port(port.name) if written else 0) or port.target or port.number
            place = Place(Address(host, number), Address(compose, number))
            made = ServiceEndpoint(place, labels, locality, weight, account, network)
            found.setdefault(port.name, []).append(made)
    return {name: tuple(made) for name, made in found.items()}


def _endpoint_host(endpoint: Part, *, by_name: bool) -> str:
    written = endpoint.text("address", required=True)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        if by_name and is_host(written, wildcard=False) and ":" not in written:
            return written
    if endpoint.has("address"):
        code = "ME-6" if written.startswith("unix:") else "ME-1"
        what = "an IP address or a name" if by_name else "an IP address"
        help_text = "for names write `resolution: DNS`; sockets of the file system are not done here"
        endpoint.note(code, f"`{written}` is not {what}", "address", help_text)
    return "127.0.0.1"
