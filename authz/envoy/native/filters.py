"""Everything that decides for one workload, as filters of its Envoy, in Istio's order (EV-1, EV-5)."""

from collections.abc import Iterator, Mapping

from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.envoy.native import providers
from authz.envoy.native.jwt import jwt_filter
from authz.envoy.native.linear import Filter, custom_filter, refusing_filter, stage_filter
from authz.envoy.native.providers import ClusterOf, istio_cluster
from authz.envoy.native.stages import ProviderRules, Stage, stages_of
from authz.envoy.native.values import JWT_FILTER

LOCAL = (Stage.AUDIT, Stage.DENY, Stage.ALLOW)


def linear_http(
    engine: Engine,
    workload: Workload,
    key_sets: Mapping[str, str],
    gateway: bool = False,
    cluster_of: ClusterOf = istio_cluster,
) -> list[Filter]:
    """The HTTP filters of one workload in the order of the stages, as Istio's builder emits them."""
    stages = stages_of(engine.written_for(workload), engine.mesh)
    found = [one for rules in stages.custom for one in _custom(rules, cluster_of, tcp=False)]
    jwt = jwt_filter(engine.for_workload(workload).jwt_rules, key_sets, gateway=gateway)
    if jwt is not None:
        found.append(Filter(JWT_FILTER, jwt))
    return found + [stage_filter(stage, stages.of(stage)) for stage in LOCAL if stages.of(stage)]


def linear_tcp(engine: Engine, workload: Workload, cluster_of: ClusterOf = istio_cluster) -> list[Filter]:
    """The network filters of one workload in the order of the stages."""
    stages = stages_of(engine.written_for(workload), engine.mesh, tcp=True)
    found = [one for rules in stages.custom for one in _custom(rules, cluster_of, tcp=True)]
    return found + [stage_filter(stage, stages.of(stage), tcp=True) for stage in LOCAL if stages.of(stage)]


def _custom(rules: ProviderRules, cluster_of: ClusterOf, *, tcp: bool) -> Iterator[Filter]:
    if rules.provider is None:
        yield refusing_filter(rules.policies, tcp=tcp)
        return
    yield custom_filter(rules.policies, tcp=tcp)
    if tcp:
        yield Filter("envoy.filters.network.ext_authz", providers.tcp_filter(rules.provider, cluster_of))
    else:
        yield Filter("envoy.filters.http.ext_authz", providers.http_filter(rules.provider, cluster_of))
