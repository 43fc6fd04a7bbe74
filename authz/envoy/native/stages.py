"""The RBAC policies that apply to a workload, in the stages that Istio has: CUSTOM by provider, AUDIT, DENY, ALLOW."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from authz.core.resources import Action, AuthorizationPolicy, ExtensionProvider, MeshConfig
from authz.envoy.native.rbac import Policies, rbac_policies

BAD_CUSTOM = "-deny-due-to-bad-CUSTOM-action"


class FilterStage(StrEnum):
    """The stages in the order in which a request passes them (EV-1)."""

    CUSTOM = "custom"
    JWT = "jwt"
    AUDIT = "audit"
    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """The CUSTOM rules of one provider name; ``provider`` None: it cannot be asked, so they refuse (AP-80, AP-81)."""

    name: str
    provider: ExtensionProvider | None
    policies: Policies


@dataclass(frozen=True, slots=True)
class StageRules:
    """
    Enforced policies and those of dry runs; None where there is none of the kind.

    An ALLOW policy whose rules are all unusable on TCP still counts: then the policies are empty, not None (AP-69).
    """

    enforced: Policies | None
    dry_run: Policies | None

    def __bool__(self) -> bool:
        return self.enforced is not None or self.dry_run is not None


@dataclass(frozen=True, slots=True)
class Stages:
    """The rules of one workload by stage, as Envoy's filters take them."""

    custom: tuple[ProviderRules, ...]
    audit: StageRules
    deny: StageRules
    allow: StageRules

    def of(self, stage: FilterStage) -> StageRules:
        """The rules of one stage other than CUSTOM."""
        return {FilterStage.AUDIT: self.audit, FilterStage.DENY: self.deny, FilterStage.ALLOW: self.allow}[stage]


def stages_of(written: Iterable[AuthorizationPolicy], mesh: MeshConfig, *, tcp: bool = False) -> Stages:
    """Emit the policies of a workload (``Engine.written_for``) stage by stage; names in byte order (AP-93)."""
    written = tuple(written)

    def policies(chosen: list[AuthorizationPolicy]) -> Policies | None:
        if not chosen:
            return None
        found = dict(pair for policy in chosen for pair in rbac_policies(policy, mesh, tcp=tcp))
        return {name: found[name] for name in sorted(found, key=str.encode)}

    def stage(action: Action) -> StageRules:
        enforced = policies([one for one in written if one.action is action and not one.dry_run])
        return StageRules(enforced, policies([one for one in written if one.action is action and one.dry_run]))

    custom = [policy for policy in written if policy.action is Action.CUSTOM]
    providers = {provider.name: provider for provider in mesh.extension_providers}
    names = sorted({policy.provider for policy in custom}, key=str.encode)
    too_many = len(names) > 1 and not mesh.multiple_custom_providers
    sets = []
    for name in names:
        provider = providers.get(name)
        found = policies([policy for policy in custom if policy.provider == name]) or {}
        if too_many or provider is None or not provider.is_usable:
            sets.append(ProviderRules(name, None, {f"{rule}{BAD_CUSTOM}": policy for rule, policy in found.items()}))
        elif not (tcp and provider.protocol == "http"):  # AP-84
            sets.append(ProviderRules(name, provider, found))
    return Stages(tuple(sets), stage(Action.AUDIT), stage(Action.DENY), stage(Action.ALLOW))
