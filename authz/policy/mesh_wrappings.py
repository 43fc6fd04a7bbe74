"""
Where a MeshConfig stands in a file: bare, in a ConfigMap, in the resource of an operator, in Helm values.

Each is found with its document, so that problems have places, and with the environment of istiod beside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from authz.core.errors import Problem
from authz.documents import reading
from authz.documents.inner_yaml import embedded_origin
from authz.documents.reading import Document, Kind, Node, Scalar, read_documents
from authz.documents.schema import Notes, given, text_of

_SAIL_KINDS = ("Istio", "IstioRevision")
"""The kinds of ``sailoperator.io``."""


class WrittenMesh(NamedTuple):
    """A mapping that is a MeshConfig, and the environment of istiod beside it."""

    document: Document
    config: Node | None
    environment: reading.Mapping | None = None
    resource: str = ""


def search(documents: Iterable[Document], data: bytes, problems: list[Problem]) -> Iterator[WrittenMesh]:
    """Yield every MeshConfig of some documents of ``data``; what is wrong with those around them is noted."""
    for document in documents:
        root = document.root
        if not isinstance(root, reading.Mapping):
            Notes(document, problems).error("RE-14", root, "a document is not a mapping", "expected a MeshConfig")
            continue
        kind = text_of(root.entries.get("kind"))
        if kind == "ConfigMap":
            yield from _in_config_map(document, root, data, problems)
        elif kind in ("IstioOperator", *_SAIL_KINDS):
            yield from _in_operator(document, root, kind or "", problems)
        elif kind == "ProxyConfig":
            _check_proxy_config(document, root, problems)
        elif "kind" not in root.entries and "apiVersion" not in root.entries:
            if "meshConfig" in root.entries or "pilot" in root.entries:
                yield WrittenMesh(document, given(root, "meshConfig"), _environment(root))
            else:
                yield WrittenMesh(document, root)


def _in_operator(
    document: Document, root: reading.Mapping, kind: str, problems: list[Problem]
) -> Iterator[WrittenMesh]:
    """
    ``spec.meshConfig`` of an IstioOperator, or ``spec.values.meshConfig`` of it or of the sail operator's kinds.

    The latter have no ``spec.meshConfig``. Both at once would be merged in a cluster, which is not done here.
    """
    spec = given(root, "spec")
    if not isinstance(spec, reading.Mapping):
        return
    values = given(spec, "values")
    own = given(spec, "meshConfig")
    held = given(values, "meshConfig") if isinstance(values, reading.Mapping) else None
    if own is not None and kind in _SAIL_KINDS:
        message = f"`spec.meshConfig` is not a field of {kind}"
        Notes(document, problems, kind).error("RE-14", own, message, "write it as `spec.values.meshConfig`")
    elif own is not None and held is not None:
        message = "`spec.meshConfig` and `spec.values.meshConfig` are both given"
        Notes(document, problems, kind).error("RE-14", held, message, "put all settings into `spec.meshConfig`")
    else:
        yield WrittenMesh(document, own or held, _environment(values), kind)


def _in_config_map(
    document: Document, root: reading.Mapping, data: bytes, problems: list[Problem]
) -> Iterator[WrittenMesh]:
    """The ConfigMap ``istio``, or ``istio-<revision>``, with the settings as text."""
    metadata, held = given(root, "metadata"), given(root, "data")
    name = text_of(given(metadata, "name")) if isinstance(metadata, reading.Mapping) else None
    mesh = given(held, "mesh") if isinstance(held, reading.Mapping) else None
    if mesh is None or not name or not (name == "istio" or name.startswith("istio-")):
        return
    if not isinstance(mesh, Scalar) or mesh.kind is not Kind.TEXT:
        Notes(document, problems, f"ConfigMap {name}").error("RE-14", mesh, "`data.mesh` is a text with YAML in it")
        return
    prefix = f"{document.prefix}.data.mesh" if document.prefix else "data.mesh"
    embedded = read_documents(document.file, mesh.value.encode(), problems, origin=embedded_origin(mesh, data))
    for inner in embedded:
        yield WrittenMesh(replace(inner, number=document.number, prefix=prefix), inner.root, None, f"ConfigMap {name}")


def _check_proxy_config(document: Document, root: reading.Mapping, problems: list[Problem]) -> None:
    spec = given(root, "spec")
    settings = given(spec, "connectionSettings") if isinstance(spec, reading.Mapping) else None
    if settings is not None:
        no_connection_settings(settings, Notes(document, problems, "ProxyConfig"))


def _environment(values: Node | None) -> reading.Mapping | None:
    """``pilot.env`` of Helm values."""
    pilot = given(values, "pilot") if isinstance(values, reading.Mapping) else None
    env = given(pilot, "env") if isinstance(pilot, reading.Mapping) else None
    return env if isinstance(env, reading.Mapping) else None


def no_connection_settings(node: Node, notes: Notes) -> None:
    """Section 10: it could override the mesh's normalisation for one proxy."""
    message = "`connectionSettings` can change path normalisation for one proxy, which is not supported"
    notes.error("PN-1", node, message, "remove it and set `pathNormalization` for the mesh")
