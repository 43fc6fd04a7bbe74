"""A mesh rendered again and again: only what a change touches is made anew."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from authz.core.resources import MtlsMode
from authz.envoy.browser_login import kept_document, kept_file
from authz.envoy.clusters import called_destinations
from authz.envoy.dependencies import Dependencies, policy_dependencies, proxy_dependencies, sidecar_surroundings
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.options import RenderOptions
from authz.envoy.proxy_parts import Native, extended_resources
from authz.envoy.render import render_client_secrets, render_endpoints, render_proxy
from authz.envoy.rendered_text import READABLE_WORKLOADS
from authz.mesh.nouns import Mesh, MeshWorkload

RenderedFiles = dict[str, bytes]


@contextmanager
def uncollected() -> Iterator[None]:
    """Make very many objects, all of them without cycles, and let nothing walk over them meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Proxy:
    policies: tuple[tuple[MtlsMode, ...], str]
    mesh: tuple[Dependencies, Dependencies]
    files: RenderedFiles


@dataclass(slots=True)
class Rendering:
    """
    Every file of the mesh as it was last rendered, and what each proxy's files were made of.

    ``render`` returns what ``render.render_all`` would, filters excepted, which follow the policies and have a version
    of their own. The content of an unchanged file is the very object of before.
    """

    _around: object = None
    """What every file is made of."""
    _beside: Dependencies = ()
    """What every sidecar's files are made of beside the policies."""
    _proxies: dict[str, "_Proxy"] = field(default_factory=dict)
    _endpoints: tuple[object, RenderedFiles] = (None, {})

    def render(
        self, mesh: Mesh, mode_of: MtlsModeOf, options: RenderOptions, native: Native | None = None
    ) -> RenderedFiles:
        """Render what differs from last time. Raises LoadError where extensions are refused."""
        with uncollected():
            return self._render(mesh, mode_of, options, native)

    def _render(self, mesh: Mesh, mode_of: MtlsModeOf, options: RenderOptions, native: Native | None) -> RenderedFiles:
        around = (mesh.config, options, len(mesh.workloads) > READABLE_WORKLOADS)
        if around != self._around:
            self._around, self._proxies, self._endpoints, self._beside = around, {}, (None, {}), ()
        files: RenderedFiles = {}
        known, self._proxies = self._proxies, {}
        beside = sidecar_surroundings(mesh)
        is_beside_same, self._beside = beside == self._beside, beside
        for workload in mesh.workloads:
            policies = policy_dependencies(workload, mode_of, options, native)
            before = known.get(workload.name)
            is_same = before is not None and is_beside_same and not workload.is_gateway
            needs = before.mesh if before is not None and is_same else proxy_dependencies(mesh, workload, options)
            made = before.files if before is not None else {}
            if before is None or (before.policies, before.mesh) != (policies, needs):
                extended = extended_resources(mesh, mode_of, options, native, workload)
                has_clusters = before is not None and (before.policies, before.mesh[0]) == (policies, needs[0])
                kept = {name: made[name] for name in made if has_clusters and name.startswith("cds/")}
                made = render_proxy(mesh, workload, mode_of, options, native, extended, has_clusters=bool(kept)) | kept
            self._proxies[workload.name] = _Proxy(policies, needs, made)
            files |= made
        files |= render_client_secrets(mesh, options)
        files |= self._rendered_endpoints(mesh, mode_of, options)
        for login in mesh.logins:
            files[kept_file(login)] = kept_document(login, options.logins[login.issuer])
        return dict(sorted(files.items()))

    def render_some(
        self,
        mesh: Mesh,
        workloads: Iterable[MeshWorkload],
        mode_of: MtlsModeOf,
        options: RenderOptions,
        native: Native | None = None,
    ) -> RenderedFiles | None:
        """
        Render some workloads, where nothing but policies and token rules differs from what was last rendered.

        Others have what they had. Which workloads, that is for the caller to know.

        Returns:
            Their files that are made anew. None where these policies change more than the files of these proxies: who
            is spoken to in plaintext is in the endpoints of all callers.

        Raises:
            LoadError: an extension is refused.
        """
        files: RenderedFiles = {}
        for workload in workloads:
            before = self._proxies.get(workload.name)
            policies = policy_dependencies(workload, mode_of, options, native)
            if before is None:
                return None
            if before.policies == policies:
                continue
            if _plaintext(before.policies[0]) != _plaintext(policies[0]):
                return None
            extended = extended_resources(mesh, mode_of, options, native, workload)
            made = render_proxy(mesh, workload, mode_of, options, native, extended)
            if made.keys() != before.files.keys():
                return None
            self._proxies[workload.name] = _Proxy(policies, before.mesh, made)
            files |= made
        return files

    def _rendered_endpoints(self, mesh: Mesh, mode_of: MtlsModeOf, options: RenderOptions) -> RenderedFiles:
        modes = [_plaintext(mode_of(w, port.number) for port in w.inbound) for w in mesh.workloads]
        ruled = mesh.workloads if mesh.destination_rules.rules else ()
        called = [(w.name, one) for w in ruled for one in called_destinations(mesh, w) if one.rule is not None]
        needs = (mesh.services, mesh.workloads, modes, called)
        before, made = self._endpoints
        if before != needs:
            made = {}
            for compose in (False, True):
                made |= render_endpoints(mesh, mode_of, options, compose=compose)
            self._endpoints = needs, made
        return made


def _plaintext(modes: Iterable[MtlsMode]) -> tuple[bool, ...]:
    """All that endpoints take from the modes of a workload's ports."""
    return tuple(mode is MtlsMode.DISABLE for mode in modes)
