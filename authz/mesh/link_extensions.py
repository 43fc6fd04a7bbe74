"""Tie extensions to the workloads of a mesh: in their order, each name once, and none without a workload."""

from collections.abc import Mapping

from authz.documents.accessors import Part
from authz.mesh.extensions import EnvoyFilter, WasmPlugin
from authz.mesh.mesh_documents import Written


def linked_extensions(written: Written) -> tuple[tuple[EnvoyFilter, ...], tuple[WasmPlugin, ...]]:
    """
    EnvoyFilters in the order in which istiod applies them, and plugins before their priorities are looked at.

    EnvoyFilters by priority, then those of the root namespace, then the oldest, then by name and namespace; plugins
    of a proxy's own namespace before those of the root namespace, the oldest first, then by name.
    """
    root = written.config.root_namespace
    _check("EnvoyFilter", [((f.namespace, f.name), f.labels, part) for f, part in written.envoy_filters], written)
    _check("WasmPlugin", [((p.namespace, p.name), p.labels, part) for p, part in written.wasm_plugins], written)
    filters = sorted(
        (one for one, _ in written.envoy_filters),
        key=lambda f: (f.priority, f.namespace != root, f.created, f"{f.name}.{f.namespace}"),
    )
    plugins = sorted(
        (one for one, _ in written.wasm_plugins), key=lambda p: (p.namespace == root, p.created, p.name, p.namespace)
    )
    return tuple(filters), tuple(plugins)


def is_selected(
    own_namespace: str,
    labels: Mapping[str, str] | None,
    namespace: str,
    workload_labels: Mapping[str, str],
    root_namespace: str,
) -> bool:
    """
    Whether an extension is for a workload: of its namespace or of the root namespace, and every label is its own.

    ``own_namespace`` and ``labels`` are those of the extension; None and no labels select every workload.
    """
    if own_namespace not in (namespace, root_namespace):
        return False
    return (labels or {}).items() <= workload_labels.items()


def _check(kind: str, found: list[tuple[tuple[str, str], Mapping[str, str] | None, Part]], written: Written) -> None:
    first: dict[tuple[str, str], Part] = {}
    for (namespace, name), labels, part in found:
        other = first.setdefault((namespace, name), part)
        if other is not part:
            message = f"the {kind} `{namespace}/{name}` is given twice, first at {other.location}"
            part.note("ME-5", message, "metadata", "choose another name")
        root = written.config.root_namespace
        if not any(is_selected(namespace, labels, w.namespace, w.labels, root) for w, _ in written.workloads):
            help_text = f"it selects in its own namespace, and in all of them if that is `{root}`"
            part.note("ME-4", f"the {kind} selects no workload", "spec", help_text)
