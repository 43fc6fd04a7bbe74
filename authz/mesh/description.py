"""
Read a mesh description: Istio's kinds in YAML files become one ``Mesh``, or problems with their places.

Understood kinds: ConfigMap ``istio`` (MeshConfig), WorkloadEntry, Sidecar, ServiceEntry, DestinationRule, Gateway,
VirtualService, EnvoyFilter, WasmPlugin, Telemetry and BackendTrafficPolicy. Where Istio has no field, annotations that
begin with ``mesh.authz/`` take its place:

- ``mesh.authz/compose-address`` on WorkloadEntry and ServiceEntry: its IP address among containers.
- ``mesh.authz/compose-app`` on WorkloadEntry: address and port of the application among containers.
- ``mesh.authz/enforce`` on WorkloadEntry: ``check`` or ``native``, who enforces its policies.
- ``mesh.authz/login`` on Gateway: how people sign in there with a browser.
- ``mesh.authz/weakens-enforcement`` on EnvoyFilter: why it may change what enforces policies.
"""

from collections.abc import Iterable
from threading import Lock

from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.uncollected import WithoutCollector
from authz.documents.accessors import Part
from authz.documents.reading import MAX_FILE_BYTES, Document, Extent, Mapping, read_documents
from authz.documents.schema import Notes
from authz.documents.splitting import split_documents
from authz.mesh.kind_parts import CODES
from authz.mesh.kinds import READERS
from authz.mesh.linking import LinkedProxies, link
from authz.mesh.mesh_documents import Written, joined, note_second_settings
from authz.mesh.nouns import (
    Mesh,
)
from authz.mesh.read_telemetry_providers import read_telemetry_providers
from authz.policy.mesh_config import read_mesh

MeshRead = tuple[Mesh, tuple[Problem, ...]]
"""A mesh, and what is to be said of its description."""


def read_mesh_description(files: Iterable[tuple[str, bytes]]) -> MeshRead:
    """
    Read (file name, content) pairs. Never raises on content.

    The mesh is meaningful only if no problem ``is_error``. The order of files and of documents does not matter.
    """
    return DescriptionReader().read(files)


class DescriptionReader:
    """
    Reads a description again and again, and each time only the documents that changed or moved.

    Several threads may read with it. Where no text changed, the very mesh of before is returned.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Parts] = {}
        self._proxies: LinkedProxies | None = None
        self._last: tuple[list[tuple[str, bytes]], MeshRead] | None = None
        self._turn = Lock()

    def read(self, files: Iterable[tuple[str, bytes]]) -> MeshRead:
        """Read as ``read_mesh_description`` does; what comes of unchanged documents are the very nouns of before."""
        asked = list(files)
        with self._turn, WithoutCollector():
            if self._last is None or self._last[0] != asked:
                self._last = asked, self._read(asked)
            return self._last[1]

    def _read(self, files: Iterable[tuple[str, bytes]]) -> MeshRead:
        problems: list[Problem] = []
        read: list[Written] = []
        known: dict[str, _Parts] = {}
        for file, data in files:
            known[file] = parts = _read_file(file, data, self._known.get(file, {}))
            read += parts.values()
            if not any(part.documents or part.problems for part in parts.values()):
                message = "the file holds no document; what is missing may be the mesh settings"
                problems.append(Problem(Severity.ERROR, "empty", message, Location(file), help=_EMPTY_HELP))
        self._known = known
        written = joined(read)
        mesh, self._proxies = link(written, self._proxies)
        found = [*problems, *written.problems, *(one for part in read for one in part.problems)]
        # What a Sidecar gets wrong is noted for each workload that it selects.
        return mesh, sort_problems(dict.fromkeys(found))


_OF_POLICIES = "this is a policy: put it into the directory of `--policies`"
_OTHER_KINDS = {
    **dict.fromkeys(("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"), _OF_POLICIES),
    "Service": "write a ServiceEntry with `location: MESH_INTERNAL` and the host `NAME.NAMESPACE.svc.cluster.local`",
    **dict.fromkeys(("Deployment", "Pod", "StatefulSet", "DaemonSet"), "write a WorkloadEntry for each workload"),
    **dict.fromkeys(("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "Ingress"), "write a VirtualService"),
}
_Parts = dict[tuple[int, int, bytes], Written]
"""By line, number of documents before, and text: what depends on its place is read again when it has moved."""
_EMPTY_HELP = "write the description, or leave the file out"


def _read_file(file: str, data: bytes, known: _Parts) -> _Parts:
    """Read the parts of a file, or all of it where a part means something else alone."""
    cut = split_documents(data) if len(data) <= MAX_FILE_BYTES else None
    found: _Parts = {}
    number = 0
    for part in cut or ():
        key = part.line, number, part.text
        read = known.get(key)
        if read is None or read.config_part is not None:  # YAML within YAML is located by the whole file
            read, extent = _read_part(file, data, part.line, number, part.text)
            if extent.is_broken or extent.has_aliases:
                break
        else:
            del read.problems[read.own_problems :]
        found[key] = read
        number += read.documents
    else:
        if cut is not None:
            return found
    return {(1, 0, data): _read_part(file, data, 1, 0, data)[0]}


def _read_part(file: str, data: bytes, line: int, number: int, text: bytes) -> tuple[Written, Extent]:
    read, extent = Written(data=data), Extent()
    for document in read_documents(file, text, read.problems, origin=(line, 1), number=number, extent=extent):
        _read_document(document, read)
    read.data = b""
    read.documents, read.own_problems = extent.documents, len(read.problems)
    return read, extent


def _read_document(document: Document, written: Written) -> None:
    if not isinstance(document.root, Mapping):
        place = Location(document.file, document.root.line, document.root.column)
        message = "a document of a mesh description must be a mapping with `kind`"
        written.problems.append(Problem(Severity.ERROR, "ME-1", message, place, document.number))
        return
    part = Part(document.root, document.prefix, Notes(document, written.problems), CODES)
    kind = part.text("kind", required=True)
    metadata = part.part("metadata")
    if metadata:
        part.notes.resource = f"{kind} {metadata.text('namespace', 'default')}/{metadata.text('name')}"
    if kind == "ConfigMap":
        if written.config_part is not None:
            note_second_settings(part, written)
            return
        written.config, problems = read_mesh(document.file, written.data, documents=(document,))
        written.config_part = part
        written.problems.extend(problems)
        written.telemetry_providers = read_telemetry_providers(document, written.data, written.problems)
    elif kind in READERS:
        READERS[kind](part, written)
    elif kind:
        kinds = ", ".join(("ConfigMap", *READERS))
        help_text = _OTHER_KINDS.get(kind, f"understood: {kinds}")
        part.note("ME-6", f"the kind `{kind}` does not describe a mesh here", "kind", help_text)
