"""
Files with one list of things, read with every problem at its place: registration entries, federation relationships.

    entries:
    - …
"""

from collections.abc import Mapping

from authz.core.errors import Location, Problem, Severity
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents import nodes as documents
from authz.documents.nodes import Node, Scalar, Sequence
from authz.documents.reading import read_documents
from authz.documents.schema import Notes, elements, note_unknown


class ListReader:
    """Collects every problem under ``code``; each kind of list says what an item is."""

    code = ""

    def __init__(self, notes: Notes, trust_domain: TrustDomain) -> None:
        self.notes = notes
        self.trust_domain = trust_domain

    def note(self, node: Node, message: str, help_text: str = "") -> None:
        """Note an error at a node."""
        self.notes.error(self.code, node, message, help_text)

    def listed(self, node: Node, name: str) -> tuple[Node, ...]:
        """The items of the document's one list."""
        items = self.mapping(node, (name,)).get(name)
        if items is None:
            if not self.notes.problems:
                self.note(node, f"there is no list `{name}`")
            return ()
        if not isinstance(items, Sequence):
            self.note(items, "expected a list")
            return ()
        return tuple(items.items)

    def mapping(self, node: Node, known: tuple[str, ...]) -> dict[str, Node]:
        """The known members; others are noted."""
        if not isinstance(node, documents.Mapping):
            self.note(node, "expected a mapping")
            return {}
        for name in node.entries:
            if name not in known:
                note_unknown(name, node, known, self.notes, self.code)
        return {name: child for name, child in node.entries.items() if name in known}

    def texts(self, fields: Mapping[str, Node], name: str) -> list[tuple[str, Node]]:
        """A list of strings, each with its place; empty when there is none."""
        node = fields.get(name)
        if node is None:
            return []
        found: list[tuple[str, Node]] = [(item.value, item) for item in elements(node) if isinstance(item, Scalar)]
        if not isinstance(node, Sequence) or len(found) < len(node.items):
            self.note(node, "expected a list of strings")
            return []
        if name == "selectors" and not found:
            self.note(node, "an empty list would be for nobody")
        return found

    def spiffe_id(self, fields: Mapping[str, Node], name: str) -> SpiffeId | None:
        """A SPIFFE ID; None when there is none, or none that can be read."""
        node = fields.get(name)
        if node is None:
            return None
        try:
            return SpiffeId.parse(node.value if isinstance(node, Scalar) else "")
        except ValueError as error:
            self.note(node, str(error))
            return None


def read_one_document(file: str, data: bytes, code: str, name: str, problems: list[Problem]) -> Notes | None:
    """The file's only document; None when it is empty or a problem was noted. Never raises on content."""
    written = list(read_documents(file, data, problems))
    if problems:
        return None
    for document in written[1:]:
        place = Location(file, document.root.line, document.root.column)
        problems.append(Problem(Severity.ERROR, code, f"expected one document with one list `{name}`", place))
    return Notes(written[0], problems) if written and not problems else None
