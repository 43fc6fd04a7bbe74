"""DestinationRules held against the services that they name: what leads nowhere, and what is not done for a service."""

from collections.abc import Iterator, Mapping

from authz.documents.accessors import Part
from authz.mesh.link_gateways import ROOTS
from authz.mesh.mesh_documents import Written
from authz.mesh.near_names import host_help
from authz.mesh.nouns import Mesh, MeshService, Resolution
from authz.mesh.secure_naming import identities
from authz.mesh.traffic_policy import ClientTlsMode, DestinationRule, TrafficPolicy


def check_rules(mesh: Mesh, written: Written) -> None:
    """Note the rules that nothing would follow from, and those that would mean what is not done here."""
    services = {service.host: service for service in mesh.services}
    first: dict[tuple[str, str], DestinationRule] = {}
    for rule, part in written.destination_rules:
        other = first.setdefault((rule.namespace, rule.name), rule)
        if other is not rule:
            name = f"{rule.namespace}/{rule.name}"
            part.note("ME-5", f"the DestinationRule `{name}` is given twice, first at {other.location}")
    by_rule: dict[int, list[MeshService]] = {}
    for service in mesh.services:
        for rule in mesh.destination_rules.for_service(service.host):
            by_rule.setdefault(id(rule), []).append(service)
    led_to = {(one.host, one.subset) for virtual in written.virtual_services for one, _ in virtual.destinations}
    for rule, part in written.destination_rules:
        spec = part.part("spec") or part
        if not rule.is_wildcard and rule.host and rule.host not in services:
            spec.note("ME-4", f"no ServiceEntry has the host `{rule.host}`", "host", host_help(mesh, rule.host))
        covered = by_rule.get(id(rule), [])
        _check_ports(rule, covered, spec)
        for service in covered:
            _check(mesh, rule, service, spec)
        _warn_of_empty_subsets(mesh, rule, by_rule.get(id(rule), []), spec, led_to)


def _check(mesh: Mesh, rule: DestinationRule, service: MeshService, spec: Part) -> None:
    for policy in _policies(rule):
        if policy.proxy_protocol and not service.external:
            help_text = "proxies of the mesh do not read that header; it is for hosts outside"
            spec.note("ME-6", f"`proxyProtocol` is not done for `{service.host}`", "trafficPolicy", help_text)
        if policy.tls is None:
            continue
        name = policy.tls.credential
        if name and (name == ROOTS or any(w.name in (name, f"{name}-cacert") for w in mesh.workloads)):
            help_text = "choose another name of the directory below certs/"
            spec.note("ME-5", f"the credential `{name}` has the name of the mesh's own", "trafficPolicy", help_text)
        is_opened = policy.tls.mode in (ClientTlsMode.SIMPLE, ClientTlsMode.MUTUAL)
        has_authority = policy.tls.ca_certificates or policy.tls.credential
        named = policy.tls.subject_alt_names or service.subject_alt_names
        if service.external and is_opened and named and not has_authority:
            message = f"`{service.host}` has `subjectAltNames`, and no authority is named for them"
            spec.note(
                "ME-3", message, "trafficPolicy", "add `caCertificates`: Envoy demands one with names of one's own"
            )
        if service.resolution is Resolution.BY_NAME and (policy.tls.sni or policy.tls.subject_alt_names):
            help_text = "leave `sni` and `subjectAltNames` out: they are the name that is asked for"
            spec.note("ME-6", f"one name is not that of every host of `{service.host}`", "trafficPolicy", help_text)
        if service.external and policy.tls.mode is ClientTlsMode.ISTIO_MUTUAL:
            help_text = "a host outside has no identity of the mesh: write SIMPLE, MUTUAL or DISABLE"
            spec.note("ME-6", f"`ISTIO_MUTUAL` is not done for `{service.host}`", "trafficPolicy", help_text)
        if not service.external and policy.tls.mode is ClientTlsMode.ISTIO_MUTUAL:
            known = {spiffe for workload in mesh.workloads_of(service) for spiffe in identities(mesh, workload)}
            for name in policy.tls.subject_alt_names:
                if name not in known:
                    help_text = "secure naming may be narrowed to some of its workloads, not widened"
                    message = f"`{name}` is not the identity of a workload behind `{service.host}`"
                    spec.note("ME-4", message, "trafficPolicy", help_text)
    if rule.is_wildcard:
        return
    gateway = mesh.egress_gateway
    if service.external and gateway is not None and mesh.rule_for(gateway, service) is None:
        message = f"the proxy that calls `{service.host}`, the egress gateway, does not heed this rule"
        spec.note("ME-4", message, "host", f"put it into the namespace of the ServiceEntry, {service.namespace}")


def _warn_of_empty_subsets(
    mesh: Mesh, rule: DestinationRule, services: list[MeshService], spec: Part, led_to: set[tuple[str, str]]
) -> None:
    """
    Warn of subsets with nobody in them (``istioctl analyze``: IST0173): a request that is led there gets a 503.

    Where no route leads, it is a remark: many write the subsets of versions that may come one day.
    """
    known = [labels for service in services for labels in _labels(mesh, service)]
    if not known or any(service.external and not service.endpoints for service in services):
        return  # nothing has labels, or nobody knows what is behind a host outside
    for i, subset in enumerate(rule.subsets):
        if not any(subset.labels.items() <= labels.items() for labels in known):
            is_used = any((service.host, subset.name) in led_to for service in services)
            written = ", ".join(f"{name}: {value}" for name, value in subset.labels.items())
            message = f"the subset `{subset.name}` is empty: no workload of `{rule.host}` has the labels `{written}`"
            help_text = "give a WorkloadEntry or an endpoint all of them"
            (spec.warn if is_used else spec.remark)("ME-4", message, f"subsets[{i}]", help_text)


def _labels(mesh: Mesh, service: MeshService) -> Iterator[Mapping[str, str]]:
    yield from (workload.labels for workload in mesh.workloads_of(service))
    yield from (endpoint.labels for endpoints in service.endpoints.values() for endpoint in endpoints)


def _check_ports(rule: DestinationRule, covered: list[MeshService], spec: Part) -> None:
    """
    Note settings of ports that no service of the rule has.

    Those of one host were meant for something, perhaps for its TLS; of many hosts it is a warning, because services
    come and go.
    """
    numbers = sorted({port.number for service in covered for port in service.ports})
    wanted = {number for policy in _policies(rule) for number in policy.ports if number} - set(numbers)
    if not wanted or not covered:
        return
    help_text = f"write one of {', '.join(map(str, numbers))}, or leave these settings out"
    for place in (spec, *spec.parts("subsets")):
        policy = place.part("trafficPolicy")
        for level in policy.parts("portLevelSettings") if policy else ():
            port = level.part("port")
            number = port.port("number") if port else 0
            if port is None or number not in wanted:
                continue
            if rule.is_wildcard:
                port.warn("ME-4", f"no service of `{rule.host}` has a port {number}", "number", help_text)
            else:
                port.note("ME-4", f"`{rule.host}` has no port {number}", "number", help_text)


def _policies(rule: DestinationRule) -> Iterator[TrafficPolicy]:
    for policy in (rule.policy, *(subset.policy for subset in rule.subsets)):
        if policy is not None:
            yield policy
            yield from policy.ports.values()
