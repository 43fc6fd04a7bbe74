"""
Everything that decides for one workload, as filters of its Envoy, in Istio's order (EV-1, EV-5).

``http_filters`` and ``tcp_filters`` are pure: policies and key sets in, filters out. ``slots`` turns the HTTP
filters into what a running Envoy takes without closing a connection.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from authz.core.attributes import Workload
from authz.core.index import Needs
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import Action
from authz.core.uncollected import WithoutCollector
from authz.envoy.native import ext_authz
from authz.envoy.native.ext_authz import SHADOW_PREFIX, ClusterOf, istio_cluster
from authz.envoy.native.indexed import Form, StageSize, indexed_stage
from authz.envoy.native.jwt import jwt_filter
from authz.envoy.native.linear import Filter, custom_filter, dry_run_prefix, refusing_filter, stage_filter
from authz.envoy.native.lookup import MAX_WALK
from authz.envoy.native.rbac import Policies
from authz.envoy.native.stages import FilterStage, ProviderRules, StageRules, stages_of
from authz.envoy.native.value_matchers import JWT_FILTER

LOCAL = (FilterStage.AUDIT, FilterStage.DENY, FilterStage.ALLOW)


@dataclass(frozen=True, slots=True)
class NativeFilters:
    """The filters of one workload in Istio's order, and how large each stage became."""

    filters: tuple[Filter, ...]
    sizes: tuple[StageSize, ...]


def linear_tcp(engine: PoliciesByWorkload, workload: Workload, cluster_of: ClusterOf = istio_cluster) -> list[Filter]:
    """The network filters of one workload in the order of the stages."""
    return list(tcp_filters(engine, workload, cluster_of=cluster_of).filters)


def http_filters(
    engine: PoliciesByWorkload,
    workload: Workload,
    key_sets: Mapping[str, str],
    *,
    form: Form = Form.AUTO,
    walk: int = MAX_WALK,
    gateway: bool = False,
    cluster_of: ClusterOf = istio_cluster,
) -> NativeFilters:
    """
    The HTTP filters of a workload, to stand before the router.

    ``key_sets``: texts of JWKS by ``JwtRule.keys_from``. ``walk``: the most rules of one stage, or of one bucket, that
    need no look-up. ``limits`` says what Envoy cannot decide by itself; these filters know nothing of it.
    """
    with WithoutCollector():
        return _http_filters(engine, workload, key_sets, form, walk, gateway=gateway, cluster_of=cluster_of)


def _http_filters(
    engine: PoliciesByWorkload,
    workload: Workload,
    key_sets: Mapping[str, str],
    form: Form,
    walk: int,
    *,
    gateway: bool,
    cluster_of: ClusterOf,
) -> NativeFilters:
    stages = stages_of(engine.written_for(workload), engine.mesh)
    writer = _Writer(form, walk, _needs(engine, workload))
    filters: list[Filter] = []
    for rules in stages.custom:
        filters += writer.custom(rules, cluster_of)
    jwt = jwt_filter(engine.for_workload(workload).jwt_rules, key_sets, gateway=gateway)
    if jwt is not None:
        filters.append(Filter(JWT_FILTER, jwt))
    for stage in LOCAL:
        if stages.of(stage):
            filters += writer.stage(stage, stages.of(stage))
    return NativeFilters(tuple(filters), tuple(writer.sizes))


def tcp_filters(
    engine: PoliciesByWorkload, workload: Workload, *, cluster_of: ClusterOf = istio_cluster
) -> NativeFilters:
    """The network filters of TCP ports, to stand before the TCP proxy; always linear, asked once per connection."""
    stages = stages_of(engine.written_for(workload), engine.mesh, tcp=True)
    filters: list[Filter] = []
    sizes = []
    for rules in stages.custom:
        filters += _custom(rules, cluster_of, tcp=True)
        sizes.append(StageSize(f"custom {rules.name}", len(rules.policies), Form.LINEAR))
    for stage in LOCAL:
        if found := stages.of(stage):
            filters.append(stage_filter(stage, found, tcp=True))
            sizes.append(StageSize(stage, _number(found), Form.LINEAR))
    return NativeFilters(tuple(filters), tuple(sizes))


def _custom(rules: ProviderRules, cluster_of: ClusterOf, *, tcp: bool) -> Iterator[Filter]:
    if rules.provider is None:
        yield refusing_filter(rules.policies, tcp=tcp)
        return
    yield custom_filter(rules.policies, tcp=tcp)
    yield _asking(rules, cluster_of, tcp=tcp)


def _asking(rules: ProviderRules, cluster_of: ClusterOf, *, tcp: bool) -> Filter:
    assert rules.provider is not None
    if tcp:
        return Filter("envoy.filters.network.ext_authz", ext_authz.tcp_filter(rules.provider, cluster_of))
    return Filter("envoy.filters.http.ext_authz", ext_authz.http_filter(rules.provider, cluster_of))


def _needs(engine: PoliciesByWorkload, workload: Workload) -> dict[str, Needs]:
    """Find what each rule needs, by Istio's name of the rule."""
    found = {}
    for policy in engine.for_workload(workload).policies:
        prefix = f"istio-ext-authz-{policy.provider}-" if policy.action is Action.CUSTOM else ""
        for rule in policy.http_rules:
            found[prefix + rule.reference.name] = rule.needs()
    return found


def _number(rules: StageRules) -> int:
    return len(rules.enforced or ()) + len(rules.dry_run or ())


class _Writer:
    """Writes stages in the form asked for, and notes how large they became."""

    def __init__(self, form: Form, walk: int, needs: Mapping[str, Needs]) -> None:
        self._form = form
        self._walk = walk
        self._needs = needs
        self.sizes: list[StageSize] = []

    def stage(self, stage: FilterStage, rules: StageRules) -> Iterator[Filter]:
        if not self._looks_up(_number(rules)):
            self.sizes.append(StageSize(stage, _number(rules), Form.LINEAR))
            yield stage_filter(stage, rules)
            return
        if rules.dry_run is not None:  # first, as in the linear filter: a refusal must not hide what a dry run says
            yield from self._indexed(stage, f"{stage} (dry run)", rules.dry_run, dry_run_prefix(stage))
        if rules.enforced is not None:
            yield from self._indexed(stage, stage, rules.enforced)

    def custom(self, rules: ProviderRules, cluster_of: ClusterOf) -> Iterator[Filter]:
        name = f"custom {rules.name}"
        if rules.provider is None or not self._looks_up(len(rules.policies)):
            self.sizes.append(StageSize(name, len(rules.policies), Form.LINEAR))
            yield from _custom(rules, cluster_of, tcp=False)
            return
        yield from self._indexed(FilterStage.CUSTOM, name, rules.policies, SHADOW_PREFIX)
        yield _asking(rules, cluster_of, tcp=False)

    def _looks_up(self, rules: int) -> bool:
        return self._form is Form.INDEXED or (self._form is Form.AUTO and rules > self._walk)

    def _indexed(self, stage: FilterStage, name: str, policies: Policies, shadow: str = "") -> list[Filter]:
        filters, size = indexed_stage(stage, name, policies, self._needs, walk=self._walk, shadow=shadow)
        self.sizes.append(size)
        return filters
