"""
What a change loses, compared with what was in force: it looks like a truncated file or a missing mount, and would
allow more.

One lost rule among others is a change like any other; the loss of all policies or described workloads at once, or of a
mesh setting that was written, is not, unless the operator says that it is meant.
"""

from collections.abc import Iterator
from pathlib import Path

from authz.core.errors import Location, Problem, Severity
from authz.core.resources import MeshConfig
from authz.service.loading.snapshot import Snapshot

_SETTINGS = {
    "root_namespace": "rootNamespace",
    "trust_domain": "trustDomain",
    "trust_domain_aliases": "trustDomainAliases",
    "path_normalization": "pathNormalization.normalization",
    "extension_providers": "extensionProviders",
    "num_trusted_proxies": "defaultConfig.gatewayTopology.numTrustedProxies",
    "multiple_custom_providers": "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS",
    "skip_validate_trust_domain": "PILOT_SKIP_VALIDATE_TRUST_DOMAIN",
}
"""Attributes of MeshConfig, as they are written."""


def losses(before: Snapshot, after: Snapshot, policies: Path, mesh_file: Path | None) -> Iterator[Problem]:
    """Yield an error for all policies that are gone, for all described workloads, and for each mesh setting."""
    had, has = before.resources.authorization_policies, after.resources.authorization_policies
    if had and not has:
        number = "the only AuthorizationPolicy is" if len(had) == 1 else f"all {len(had)} AuthorizationPolicies are"
        yield Problem(
            Severity.ERROR,
            "lost",
            f"{number} gone, and without one everything would be allowed",
            Location(str(policies)),
            help="restore them; to stop denying on purpose, write an ALLOW policy with `rules: [{}]`, or restart with "
            "`--allow-empty`",
        )
    if before.workloads and not after.workloads:
        yield Problem(
            Severity.ERROR,
            "lost",
            f"all WorkloadEntries are gone, and without one what sidecars say of their labels would count; until now "
            f"there were {len(before.workloads)}",
            Location(str(mesh_file or "")),
            help="restore them, or restart with `--allow-empty`",
        )
    for name, written in _SETTINGS.items():
        if _is_lost(name, before.mesh, after.mesh):
            yield Problem(
                Severity.ERROR,
                "lost",
                f"`{written}` is no longer given; until now it was {_shown(getattr(before.mesh, name))}",
                Location(str(mesh_file or "")),
                help="restore it; if Istio's default is meant, write the default, or restart with `--allow-empty`",
            )


def _is_lost(name: str, before: MeshConfig, after: MeshConfig) -> bool:
    """Whether it was given, no longer is, and that makes a difference."""
    was_given = name in before.written and name not in after.written
    return was_given and getattr(before, name) != getattr(after, name)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{getattr(item, 'name', item)}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
