"""
Read a mesh description: Istio's kinds in YAML files become one ``Mesh``, or problems with their places.

Understood kinds: ConfigMap ``istio`` (MeshConfig), WorkloadEntry, Sidecar, ServiceEntry, DestinationRule, Gateway and
VirtualService. Where Istio has no field, annotations that begin with ``mesh.authz/`` take its place:

- ``mesh.authz/compose-address`` on WorkloadEntry and ServiceEntry: its IP address among containers.
- ``mesh.authz/compose-app`` on WorkloadEntry: address and port of the application among containers.
- ``mesh.authz/enforce`` on WorkloadEntry: ``check`` or ``native``, who enforces its policies.
- ``mesh.authz/login`` on Gateway: how people sign in there with a browser.
"""

from collections.abc import Iterable

from authz.core.errors import NOWHERE, Location, Problem, Severity, sort_problems
from authz.documents.accessors import Part
from authz.documents.reading import Document, Mapping, read_documents
from authz.documents.schema import Notes
from authz.mesh.kind_parts import CODES
from authz.mesh.kinds import READERS
from authz.mesh.linking import link
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import (
    Mesh,
)
from authz.policy.mesh_config import read_mesh


def read_mesh_description(files: Iterable[tuple[str, bytes]]) -> tuple[Mesh, tuple[Problem, ...]]:
    """
    Read (file name, content) pairs. Never raises on content.

    The mesh is meaningful only if no problem ``is_error``. The order of files and of documents does not matter.
    """
    written = Written()
    for file, data in files:
        before, written.data = len(written.problems), data
        is_empty = True
        for document in read_documents(file, data, written.problems):
            is_empty = False
            _read_document(document, written)
        if is_empty and len(written.problems) == before:
            message = "the file holds no document; what is missing may be the mesh settings"
            written.problems.append(Problem(Severity.ERROR, "empty", message, Location(file), help=_EMPTY_HELP))
    return link(written), sort_problems(written.problems)


_EMPTY_HELP = "write the description, or leave the file out"


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
        if written.config_at is not NOWHERE:
            part.note("ME-5", f"the mesh settings are given twice, first at {written.config_at}")
            return
        written.config, problems = read_mesh(document.file, written.data, documents=(document,))
        written.config_at = part.location
        written.problems.extend(problems)
    elif kind in READERS:
        READERS[kind](part, written)
    elif kind:
        kinds = ", ".join(("ConfigMap", *READERS))
        part.note("ME-6", f"the kind `{kind}` does not describe a mesh here", "kind", f"understood: {kinds}")
