"""Checks 6, 7 and 8 of policies and mesh settings: plaintext, tokens for anybody, authorizers that fail open."""

from collections.abc import Iterable, Iterator

from authz.analysis.hardening.checklist import Finding
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.errors import Severity
from authz.core.resources import Action, MeshConfig, MtlsMode


def judge_policies(engine: Engine, mesh: MeshConfig, workloads: Iterable[Workload]) -> Iterator[Finding]:
    """
    Yield what policies leave open.

    Args:
        engine: all policies.
        mesh: settings of the mesh.
        workloads: with a sidecar, of the mesh description; without any the mesh's own mode is judged.
    """
    yield from _modes(engine, mesh, tuple(workloads))
    for item in engine.resources.request_authentications:
        name = f"{item.metadata.namespace}/{item.metadata.name}"
        for rule in item.jwt_rules:
            if not rule.audiences:
                where = (
                    f"{rule.location if rule.location.file else item.metadata.location}: RequestAuthentication {name}"
                )
                what = f"tokens of `{rule.issuer or 'any issuer'}` are accepted, whomever they are for"
                yield Finding(7, where, what, "write `audiences` with the name that this service has there")
    used = {policy.provider for policy in engine.resources.authorization_policies if policy.action is Action.CUSTOM}
    for provider in mesh.extension_providers:
        if provider.fail_open and provider.name in used:
            where = f"{provider.location}: extensionProvider {provider.name}"
            what = "requests pass while it does not answer"
            yield Finding(8, where, what, "remove `failOpen`", Severity.ERROR)


def _modes(engine: Engine, mesh: MeshConfig, workloads: tuple[Workload, ...]) -> Iterator[Finding]:
    do = "PeerAuthentication with `mtls: {mode: STRICT}`; `authz mtls plan` says where it is safe"
    for workload in workloads:
        policies = engine.for_workload(workload)
        modes = {"": policies.base_mode, **{f" port {port}": mode for port, mode in policies.port_modes.items()}}
        for port, mode in modes.items():
            if mode is not MtlsMode.STRICT:
                where = f"workload {workload.namespace}/{workload.name}{port}"
                severity = Severity.ERROR if mode is MtlsMode.DISABLE else Severity.WARNING
                yield Finding(6, where, f"takes plaintext (mode {mode})", do, severity)
    if workloads:
        return
    peers = engine.resources.peer_authentications
    everywhere = [one for one in peers if one.metadata.namespace == mesh.root_namespace and not one.match_labels]
    if not any(one.mode is MtlsMode.STRICT for one in everywhere):
        yield Finding(6, f"namespace {mesh.root_namespace}", "no PeerAuthentication makes the whole mesh STRICT", do)
    for peer in peers:
        modes = {"": peer.mode, **{f" port {port}": mode for port, mode in (peer.port_level_mtls or {}).items()}}
        for port, mode in modes.items():
            if mode in (MtlsMode.PERMISSIVE, MtlsMode.DISABLE):
                name = f"PeerAuthentication {peer.metadata.namespace}/{peer.metadata.name}{port}"
                severity = Severity.ERROR if mode is MtlsMode.DISABLE else Severity.WARNING
                yield Finding(6, f"{peer.metadata.location}: {name}", f"takes plaintext (mode {mode})", do, severity)
