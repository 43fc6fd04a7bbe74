"""The filters of a stage as Istio's builder emits them: one RBAC filter that walks every rule."""

from dataclasses import dataclass

from authz.envoy.native.ext_authz import SHADOW_PREFIX
from authz.envoy.native.rbac import Policies
from authz.envoy.native.stages import FilterStage, StageRules
from authz.envoy.native.value_matchers import TYPE, Message

HTTP_RBAC = "envoy.filters.http.rbac"
TCP_RBAC = "envoy.filters.network.rbac"
HTTP_RBAC_TYPE = f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"
TCP_RBAC_TYPE = f"{TYPE}envoy.extensions.filters.network.rbac.v3.RBAC"
ACTIONS = {FilterStage.CUSTOM: "DENY", FilterStage.AUDIT: "LOG", FilterStage.DENY: "DENY", FilterStage.ALLOW: "ALLOW"}
_DRY_RUN = {FilterStage.DENY: "istio_dry_run_deny_", FilterStage.ALLOW: "istio_dry_run_allow_"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter: its name in Envoy and its typed configuration with ``@type``."""

    name: str
    config: Message

    def as_extension(self) -> Message:
        """As it stands in a list of filters or in ECDS."""
        return {"name": self.name, "typed_config": self.config}


def rbac_rules(stage: FilterStage, policies: Policies) -> Message:
    """The rules of an RBAC filter for one stage."""
    return {"action": ACTIONS[stage], "policies": dict(policies)}


def stage_filter(stage: FilterStage, rules: StageRules, *, tcp: bool = False) -> Filter:
    """AUDIT, DENY or ALLOW: enforced rules, and those of dry runs as shadow rules (AP-87)."""
    found = _rbac(tcp=tcp)
    if rules.enforced is not None:
        found["rules"] = rbac_rules(stage, rules.enforced)
    if rules.dry_run is not None:
        found["shadow_rules"] = rbac_rules(stage, rules.dry_run)
    # Istio writes the prefix whether or not there are such rules; without any it is that of ALLOW.
    found["shadow_rules_stat_prefix"] = _DRY_RUN[stage if rules.dry_run is not None else FilterStage.ALLOW]
    return _filter(found, tcp=tcp)


def custom_filter(policies: Policies, *, tcp: bool = False) -> Filter:
    """The rules of a provider, which only say whether it is asked."""
    found = _rbac(tcp=tcp)
    found["shadow_rules"] = rbac_rules(FilterStage.CUSTOM, policies)
    found["shadow_rules_stat_prefix"] = SHADOW_PREFIX
    return _filter(found, tcp=tcp)


def refusing_filter(policies: Policies, *, tcp: bool = False) -> Filter:
    """The rules of a provider that cannot be asked (AP-80)."""
    found = _rbac(tcp=tcp)
    found["rules"] = rbac_rules(FilterStage.CUSTOM, policies)
    return _filter(found, tcp=tcp)


def dry_run_prefix(stage: FilterStage) -> str:
    """The prefix that Envoy puts before the names of a stage's dry-run statistics."""
    return _DRY_RUN[stage]


def _rbac(*, tcp: bool) -> Message:
    return {"@type": TCP_RBAC_TYPE, "stat_prefix": "tcp."} if tcp else {"@type": HTTP_RBAC_TYPE}


def _filter(config: Message, *, tcp: bool) -> Filter:
    return Filter(TCP_RBAC if tcp else HTTP_RBAC, config)
