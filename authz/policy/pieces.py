"""
One file of policies, read part by part: a part that is remembered is taken, the others are read.

Where a part cannot be read alone, the file is one part: its YAML is broken, it has aliases, which are counted by file,
or something about it is said once for the whole file (variables, templates, documents without a kind).
"""

from collections.abc import Callable, Iterator

from authz.core.errors import Location, Problem
from authz.documents.reading import MAX_FILE_BYTES, Document, Extent, read_documents
from authz.documents.splitting import Slice, split_documents
from authz.policy import foreign, variables
from authz.policy.learning import Checked
from authz.policy.memory import File, Found, Memory, Piece, Resource, digest_of, moved
from authz.policy.templates import Templates
from authz.policy.version import facts_digest

ReadDocument = Callable[[Document, list[Problem], Checked | None], Resource | None]
"""Reads one document and notes its problems; None when it is not a policy."""


class FileReader:
    """Reads the files of one set, and only what is not remembered of them."""

    def __init__(self, memory: Memory | None, read_document: ReadDocument) -> None:
        self._memory = memory
        self._read_document = read_document
        self._templates = Templates()

    def read(self, file: str, data: bytes) -> File:
        """
        Read a file.

        The outcome is that of reading the whole file anew, places and numbers of documents included.
        """
        digest = digest_of(data)
        known = self._memory.files.get(file) if self._memory is not None else None
        if known is not None and known.digest == digest:
            return known
        pointer = foreign.pointer(file, data)
        if pointer is not None:
            return File(digest, False, (Piece(digest, 1, 0, 0, False, (), (pointer,)),))
        may_hold_variables = b"#@" in data or variables.may_hold_variables(data)
        parts = split_documents(data) if len(data) <= MAX_FILE_BYTES and not may_hold_variables else None
        if parts is not None:
            by_text = {piece.digest: piece for piece in known.pieces} if known is not None and known.is_cut else {}
            pieces = list(self._read_parts(file, parts, by_text))
            if pieces[-1] is not None:
                return File(digest, True, tuple(piece for piece in pieces if piece is not None))
        return File(digest, False, (self._read_whole(file, data, digest, may_hold_variables=may_hold_variables),))

    def _read_whole(self, file: str, data: bytes, digest: bytes, *, may_hold_variables: bool) -> Piece:
        looked_at: list[Document] | None = [] if may_hold_variables else None
        piece, _ = self._read_part(file, Slice(1, data), 0, digest, looked_at=looked_at)
        if looked_at is None:
            return piece
        is_no_yaml = any(problem.code == "YAML" for problem in piece.problems)
        if is_no_yaml or foreign.hold_actions(looked_at):
            template = foreign.template(file, data)
            if template is not None:
                return piece._replace(found=(), problems=(template,))
        is_refused = any(problem.is_error for problem in piece.problems)
        ytt = foreign.ytt(file, data, is_refused=is_refused)
        if ytt is not None and ytt.is_error:
            return piece._replace(found=(), problems=(ytt,))
        problems = [*piece.problems, ytt] if ytt is not None else list(piece.problems)
        variables.warn_of_variables(looked_at, problems)
        return piece._replace(problems=tuple(problems))

    def _read_parts(self, file: str, parts: list[Slice], by_text: dict[bytes, Piece]) -> Iterator[Piece | None]:
        """Yield a piece for each part; None, and nothing after it, when one cannot be read alone."""
        number = 0
        for part in parts:
            digest = digest_of(part.text)
            before = by_text.get(digest)
            piece = moved(before, part.line, number) if before is not None else None
            if piece is None:
                piece = self._read_alone(file, part, number, digest)
            yield piece
            if piece is None:
                return
            number += piece.documents

    def _read_alone(self, file: str, part: Slice, number: int, digest: bytes) -> Piece | None:
        found, is_certain = self._templates.read(file, part, number)
        if found is not None and is_certain:
            return Piece(digest, part.line, number, 1, False, (found,), ())
        checked: Checked = {}
        piece, extent = self._read_part(file, part, number, digest, checked)
        if extent.is_broken or extent.has_aliases or any(one.message == foreign.NO_KIND for one in piece.problems):
            return None
        if extent.documents == len(piece.found) == 1 and not piece.problems and not piece.found[0].prefix:
            self._templates.learn(file, part, piece.found[0], number, checked, found)
        return piece

    def _read_part(
        self,
        file: str,
        part: Slice,
        number: int,
        digest: bytes,
        checked: Checked | None = None,
        looked_at: list[Document] | None = None,
    ) -> tuple[Piece, Extent]:
        """``looked_at`` receives the documents that are policies; otherwise each is freed at once."""
        problems: list[Problem] = []
        found: list[Found] = []
        extent = Extent()
        is_empty = True
        for document in read_documents(file, part.text, problems, origin=(part.line, 1), number=number, extent=extent):
            is_empty = False
            resource = self._read_document(document, problems, checked)
            if resource is not None:
                if looked_at is not None:
                    looked_at.append(document)
                place = Location(file, document.root.line, document.root.column)
                found.append(Found(resource, facts_digest(resource), place, document.number, document.prefix))
        piece = Piece(digest, part.line, number, extent.documents, is_empty, tuple(found), tuple(problems))
        return piece, extent
