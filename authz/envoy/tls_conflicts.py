"""Where a DestinationRule has a proxy speak what PeerAuthentication refuses: nobody gets in, and it should be said."""

from authz.core.resources import MtlsMode
from authz.envoy.clusters import called_destinations
from authz.envoy.destinations import workloads_behind
from authz.envoy.listeners import MtlsModeOf
from authz.mesh.nouns import Mesh
from authz.mesh.traffic_policy import ClientTlsMode


def tls_conflicts(mesh: Mesh, mode_of: MtlsModeOf) -> tuple[str, ...]:
    """One sentence for each rule and workload that cannot meet, each once and sorted."""
    found: set[str] = set()
    for workload in mesh.workloads:
        for called in called_destinations(mesh, workload):
            tls, rule = called.policy.tls, called.rule
            if tls is None or rule is None or called.service.external:
                continue
            refusing = MtlsMode.STRICT if tls.mode is ClientTlsMode.DISABLE else MtlsMode.DISABLE
            for server in workloads_behind(mesh, called):
                number = server.ports.get(called.port.name)
                if number is not None and not server.is_gateway and mode_of(server, number) is refusing:
                    whom = f"`{server.name}` at port {number}, where PeerAuthentication is {refusing.name}"
                    found.add(
                        f"DestinationRule {rule.namespace}/{rule.name} says `{tls.mode}` to {whom}: nobody gets in"
                    )
    return tuple(sorted(found))
