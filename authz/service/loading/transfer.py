"""
How a snapshot gets from the process that reads it to the server: pickled messages over a pipe.

Pieces are sent while the rest is still being read, so that the server takes them one by one between its checks.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

from authz.core.compiler import compile_as_needed
from authz.core.errors import LoadError, Location, Problem
from authz.core.resources import MeshConfig, Resources
from authz.policy.memory import File, Found, Memory, Piece, Resource
from authz.service.loading.snapshot import Snapshot, load_snapshot

ALLOW_EMPTY = "--allow-empty"
"""The process's last argument, for ``load_snapshot``."""
PIECE = 5
"""Resources sent at once: taking a piece keeps the server's interpreter for a tenth of a millisecond."""


KNOWN_PIECES = 20
"""Pieces of files sent at once, for the same reason."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The process runs: from now on its end is a failure, not a machine where it cannot be started."""

    code: str
    """Its ``code_digest``: a server replaced on disk while it runs would otherwise be sent what it does not know."""


@dataclass(frozen=True, slots=True)
class LoadRefused:
    """The set has errors."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """Everything was read, checked and compiled."""

    numbers: tuple[list[int], list[int], list[int]]
    """Numbers of the resources as they were sent, in the order of ``Resources``: its three kinds, each sorted."""
    mesh: MeshConfig
    version: str
    digests: bytes
    """As ``Resources`` has them."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Some pieces of a file, for the server's memory; ``numbers`` of their resources stand for these."""

    name: str
    digest: bytes
    is_cut: bool
    pieces: list[Piece]
    """The pieces of the files, without what was found in them."""
    found: list[list[tuple[int, bytes, Location, int, str]]]
    """For each piece: the number of the resource as it was sent, and the rest of ``Found``."""


LoaderMessage = Ready | LoadRefused | Done | Known | list[Resource]
"""
A message of the process: first Ready, then any number of resources and of facts about files, then one of the other two.
"""


def code_digest() -> str:
    """Tells two installations of the program apart: names, sizes and times of the modules that read policies."""
    root = Path(__file__).parents[2]
    rooms = ("core", "documents", "policy", "service")
    files = (file for room in rooms for file in sorted((root / room).rglob("*.py")))
    facts = [(file.name, status.st_size, status.st_mtime_ns) for file in files if (status := file.stat())]
    return sha256(repr(facts).encode()).hexdigest()


def send_snapshot(policies: Path, mesh_file: Path | None, stream: IO[bytes], *, allow_empty: bool = False) -> None:
    """Read, check and compile everything; write it as messages."""
    piece: list[Resource] = []
    kept: list[Resource] = []  # or their identities would be given away again
    numbers: dict[int, int] = {}

    def on_resource(resource: Resource) -> None:
        numbers[id(resource)] = len(kept)
        kept.append(resource)
        piece.append(resource)
        if len(piece) == PIECE:
            write_message(piece, stream)
            piece.clear()

    write_message(Ready(code_digest()), stream)
    memory = Memory()
    try:
        snapshot = load_snapshot(policies, mesh_file, 0.0, on_resource, allow_empty=allow_empty, memory=memory)
    except LoadError as error:
        write_message(LoadRefused(error.problems), stream)
        return
    write_message(piece, stream)
    for known in _known(memory, numbers):
        write_message(known, stream)
    read = snapshot.resources
    in_order = (
        [numbers[id(policy)] for policy in read.authorization_policies],
        [numbers[id(authentication)] for authentication in read.request_authentications],
        [numbers[id(authentication)] for authentication in read.peer_authentications],
    )
    write_message(Done(in_order, snapshot.mesh, snapshot.version, read.digests, snapshot.problems), stream)


def _known(memory: Memory, numbers: dict[int, int]) -> Iterator[Known]:
    for name, file in memory.files.items():
        for begin in range(0, len(file.pieces), KNOWN_PIECES):
            pieces = file.pieces[begin : begin + KNOWN_PIECES]
            found = [[(numbers[id(one.resource)], *one[1:]) for one in piece.found] for piece in pieces]
            bare = [piece._replace(found=()) for piece in pieces]
            yield Known(name, file.digest, file.is_cut, bare, found)


def write_message(message: LoaderMessage, stream: IO[bytes]) -> None:
    """Send one message at once; ``receive`` takes it."""
    _Pickler(stream).dump(message)
    stream.flush()


class _Pickler(pickle.Pickler):
    """Writes a dataclass as a call with its fields: half the work that dataclasses with slots do by themselves."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)

    def reducer_override(self, value: object) -> Any:
        kind = type(value)
        if kind not in _READERS:
            _READERS[kind] = _reader_of(kind)
        read = _READERS[kind]
        return NotImplemented if read is None else (kind, read(value))


_READERS: dict[type, Callable[[object], tuple[object, ...]] | None] = {}
"""Readers of the fields of a dataclass in order; None for other types."""


def _reader_of(kind: type) -> Callable[[object], tuple[object, ...]] | None:
    if not is_dataclass(kind):
        return None
    names = [field.name for field in fields(kind)]
    return attrgetter(*names) if len(names) > 1 else lambda value: tuple(getattr(value, name) for name in names)


@dataclass(slots=True)
class Received:
    """All that a process has sent so far."""

    ready: Ready | None = None
    resources: list[Any] = field(default_factory=list)
    """Resources of three kinds; the numbers of ``Done`` tell them apart."""
    known: list[Known] = field(default_factory=list)
    outcome: Done | LoadRefused | None = None
    """None: it ended without a word."""

    def snapshot(self, outcome: Done, now: float) -> Snapshot:
        """Put the pieces together."""
        policies, requests, peers = (tuple(map(self.resources.__getitem__, numbers)) for numbers in outcome.numbers)
        resources = Resources(policies, requests, peers, outcome.version, outcome.digests)
        engine = compile_as_needed(resources, outcome.mesh)
        return Snapshot(engine, outcome.mesh, outcome.version, now, outcome.problems)

    def memory(self) -> Memory:
        """Everything the process knows of the files, with the resources that it sent."""
        pieces: dict[str, list[Piece]] = {}
        for known in self.known:
            pieces.setdefault(known.name, []).extend(
                piece._replace(found=tuple(Found(self.resources[one[0]], *one[1:]) for one in found))
                for piece, found in zip(known.pieces, known.found, strict=True)
            )
        facts = {known.name: known for known in self.known}
        files = {name: File(one.digest, one.is_cut, tuple(pieces[name])) for name, one in facts.items()}
        return Memory(files)


def receive(stream: IO[bytes], code: str) -> Received:
    """Take messages until the other side has closed the stream, or turns out to run other code."""
    received = Received()
    while True:
        try:
            message: LoaderMessage = pickle.load(stream)  # noqa: S301  # from our own process, over a pipe that nobody else has
        except (EOFError, pickle.UnpicklingError):  # the latter when it was killed in the middle of a piece
            return received
        if isinstance(message, list):
            received.resources += message
        elif isinstance(message, Known):
            received.known.append(message)
        elif isinstance(message, Ready):
            received.ready = message
            if message.code != code:
                return received
        else:
            received.outcome = message
