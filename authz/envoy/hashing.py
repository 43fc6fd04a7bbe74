"""What of a request a consistent hash is made from; the route says it, the cluster only which endpoint a hash means."""

from envoy_data_plane.envoy.config.route.v3 import (
    RouteActionHashPolicy,
    RouteActionHashPolicyConnectionProperties,
    RouteActionHashPolicyCookie,
    RouteActionHashPolicyCookieAttribute,
    RouteActionHashPolicyHeader,
    RouteActionHashPolicyQueryParameter,
)

from authz.envoy.messages import seconds
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.mesh.traffic_policy import ConsistentHash, HashKey


def hash_policies(mesh: Mesh, workload: MeshWorkload, host: str, subset: str, port: int) -> list[RouteActionHashPolicy]:
    """
    The hash policies of a route of ``workload``'s proxy to a service, or to one of its subsets; mostly none.

    Raises KeyError for a host that is no service.
    """
    rule = mesh.rule_for(workload, mesh.service(host))
    if rule is None:
        return []
    policy = rule.policy_for(port, rule.subset(subset) if subset else None)
    wanted = policy.load_balancer.consistent_hash if policy.load_balancer else None
    return [] if wanted is None or wanted.key is HashKey.NONE else [_hash_policy(wanted)]


def _hash_policy(wanted: ConsistentHash) -> RouteActionHashPolicy:
    match wanted.key:
        case HashKey.HEADER:
            return RouteActionHashPolicy(header=RouteActionHashPolicyHeader(header_name=wanted.name))
        case HashKey.QUERY_PARAMETER:
            return RouteActionHashPolicy(query_parameter=RouteActionHashPolicyQueryParameter(name=wanted.name))
        case HashKey.COOKIE:
            attributes = [RouteActionHashPolicyCookieAttribute(name=n, value=v) for n, v in wanted.cookie_attributes]
            cookie = RouteActionHashPolicyCookie(
                name=wanted.name,
                path=wanted.cookie_path,
                ttl=None if wanted.cookie_seconds is None else seconds(wanted.cookie_seconds),
                attributes=attributes,
            )
            return RouteActionHashPolicy(cookie=cookie)
        case _:
            properties = RouteActionHashPolicyConnectionProperties(source_ip=wanted.source_ip)
            return RouteActionHashPolicy(connection_properties=properties)
