"""
A memory of what reading policy files gave, by the text of each document, so that only new texts are read again.

A document is known by its file and a digest of its text. What moved to another line gets its new place; what had
problems is then read again, since a message may name a line. The memory holds what the last reading found, and nothing
older.
"""

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

from authz.core.errors import Location, Problem
from authz.core.resources import AuthorizationPolicy, Metadata, PeerAuthentication, RequestAuthentication, Rule
from authz.documents.splitting import Slice, split_documents

Resource = AuthorizationPolicy | RequestAuthentication | PeerAuthentication


def digest_of(text: bytes) -> bytes:
    """A digest of sixteen bytes that tells texts apart."""
    return blake2b(text, digest_size=16).digest()


class Found(NamedTuple):
    """A resource, and which document or item of a list it is, in case another has its name."""

    resource: Resource
    facts: bytes
    """Its part in the policy version."""
    place: Location
    number: int
    """The document's number, one-based within the file."""
    prefix: str


class Piece(NamedTuple):
    """The result of reading a part of a file."""

    digest: bytes
    line: int
    """Where the part begins."""
    number: int
    """Documents before it."""
    documents: int
    is_empty: bool
    """Whether nothing stands in it but blanks, comments and empty documents."""
    found: tuple[Found, ...]
    problems: tuple[Problem, ...]


class File(NamedTuple):
    """The result of reading a file."""

    digest: bytes
    is_cut: bool
    """Whether its pieces were read one by one, so that each can be taken again without the others."""
    pieces: tuple[Piece, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no document, and nothing wrong that would say why."""
        return all(piece.is_empty and not piece.problems for piece in self.pieces)


@dataclass(slots=True)
class Memory:
    """The results of the last reading, by file."""

    files: dict[str, File] = field(default_factory=dict)

    def new_bytes(self, file: str, data: bytes) -> int:
        """How many bytes of a file would have to be read: those in no part that is known."""
        known = self.files.get(file)
        if known is None:
            return len(data)
        if known.digest == digest_of(data):
            return 0
        parts = split_documents(data) if known.is_cut else None
        texts = {piece.digest for piece in known.pieces}
        return sum(len(part.text) for part in parts or [Slice(1, data)] if digest_of(part.text) not in texts)


def moved(piece: Piece, line: int, number: int) -> Piece | None:
    """The same piece at another place in its file; None when it has to be read again for that."""
    by, later = line - piece.line, number - piece.number
    if not by and not later:
        return piece
    if piece.problems:
        return None
    found = tuple(
        Found(_moved(one.resource, by), one.facts, _lower(one.place, by), one.number + later, one.prefix)
        for one in piece.found
    )
    return Piece(piece.digest, line, number, piece.documents, piece.is_empty, found, ())


def _lower(place: Location, by: int) -> Location:
    return Location(place.file, place.line + by, place.column) if by else place


def _moved(resource: Resource, by: int) -> Resource:
    if not by:
        return resource
    metadata = _moved_metadata(resource.metadata, by)
    if isinstance(resource, AuthorizationPolicy):
        return replace(resource, metadata=metadata, rules=tuple(_moved_rule(rule, by) for rule in resource.rules))
    if isinstance(resource, RequestAuthentication):
        rules = tuple(replace(rule, location=_lower(rule.location, by)) for rule in resource.jwt_rules)
        return replace(resource, metadata=metadata, jwt_rules=rules)
    return replace(resource, metadata=metadata)


def _moved_metadata(metadata: Metadata, by: int) -> Metadata:
    return replace(metadata, location=_lower(metadata.location, by))


def _moved_rule(rule: Rule, by: int) -> Rule:
    conditions = tuple(replace(one, location=_lower(one.location, by)) for one in rule.conditions)
    return Rule(rule.sources, rule.operations, conditions, _lower(rule.location, by))
