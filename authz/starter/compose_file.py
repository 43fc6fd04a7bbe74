"""
The services of a compose file as those of a new mesh: names, ports, and who seems to call whom.

Only what the Compose Specification says about these is read; the rest of the file is passed over. What is guessed or
left out is said in a remark, because a mesh that allows less than was meant is an outage.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from authz.core.errors import LoadError, Problem, sort_problems
from authz.documents import fields
from authz.documents import reading as yaml
from authz.documents.reading import Node, Scalar, read_documents
from authz.documents.schema import Notes
from authz.starter.mesh_plan import RESERVED, StarterService

COMPOSE = "compose"
"""Code of problems in the file."""
_OPAQUE = {
    "postgres": 5432, "redis": 6379, "valkey": 6379, "mysql": 3306, "mariadb": 3306, "mongo": 27017,
    "memcached": 11211, "rabbitmq": 5672, "kafka": 9092, "nats": 4222,
}  # fmt: skip
"""What does not speak HTTP: a word of the image's name, and the port that it has unless the file gives another."""
_SERVER_FIRST = frozenset({3306})
"""Where the server speaks first, which a proxy cannot hold back: MySQL."""
_GRPC_PORT = 50051
_FIRST_FREE = 9000
_LAST_PORT = 65535
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?:(:?[-?])([^}]*))?\}|(\w+)|(\$))")
_PORT = re.compile(
    r"(?:(?:(?P<ip>\[[0-9a-fA-F:]+\]|[\d.]+):)?(?P<host>\d{0,5})(?:-\d+)?:)?(?P<inside>\d{1,5})(?:-\d+)?"
)


@dataclass(frozen=True, slots=True)
class ComposeMesh:
    """What a compose file says about a mesh."""

    services: tuple[StarterService, ...]
    calls: tuple[tuple[str, str], ...]
    ingress: str
    """The one service that is published and that nobody calls; empty when there is none or more than one."""
    remarks: tuple[str, ...]
    """What was guessed or left out, one line each."""


@dataclass(slots=True)
class _Found:
    """One service as written."""

    name: str
    inside: int = 0
    """The container's port; 0: none is known."""
    published: int = 0
    """The host's port; 0: none is known."""
    networks: frozenset[str] = frozenset()
    calls: list[str] = field(default_factory=list)
    is_opaque: bool = False


def read_compose(
    file: str, data: bytes, environment: Mapping[str, str], given: Iterable[StarterService] = ()
) -> ComposeMesh:
    """
    Read the services.

    Args:
        file: name that appears in places.
        environment: values of ``${NAME}``.
        given: services whose ports are already known; they count as they are.

    Raises:
        LoadError: with every problem and its place.
    """
    problems: list[Problem] = []
    documents = list(read_documents(file, data, problems))
    found: dict[str, _Found] = {}
    remarks: list[str] = []
    for document in documents[:1]:
        notes = Notes(document, problems, code=COMPOSE)
        services = fields.named(_merged(document.root, notes).get("services"), "services", notes)
        if not services:
            notes.error(COMPOSE, document.root, "there are no `services`", "name a compose file that has some")
        reader = _ServiceReader(notes, environment, remarks)
        found = {name: reader.read(name, node) for name, node in services.items()}
    if any(problem.is_error for problem in problems):
        raise LoadError(sort_problems(problems))
    return _assembled(found, {service.name: service for service in given}, remarks)


def read_variables(text: str) -> dict[str, str]:
    """Read the ``.env`` file beside a compose file: ``NAME=VALUE`` lines."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and re.fullmatch(r"\w+", name.strip()):
            value = value.strip()
            is_quoted = value[:1] in "\"'" and len(value) > 1 and value[-1] == value[0]
            found[name.strip()] = value[1:-1] if is_quoted else value.partition(" #")[0].rstrip()
    return found


def _merged(node: Node | None, notes: Notes) -> dict[str, Node]:
    """The entries of a mapping, those of its merge keys (``<<``) included."""
    own = fields.named(node, "a mapping", notes)
    merged: dict[str, Node] = {}
    if (others := own.pop("<<", None)) is not None:
        for other in reversed(others.items) if isinstance(others, yaml.Sequence) else (others,):
            merged |= _merged(other, notes)
    return merged | own


class _ServiceReader:
    """Reads one service after the other."""

    def __init__(self, notes: Notes, environment: Mapping[str, str], remarks: list[str]) -> None:
        self._notes = notes
        self._environment = environment
        self._remarks = remarks

    def read(self, name: str, node: Node) -> _Found:
        top = _merged(node, self._notes)
        found = _Found(_label(name), networks=frozenset(_names(top.get("networks"), self._notes) or ("default",)))
        if found.name != name:
            self._remarks.append(f"`{name}` is called {found.name}, as names in the mesh must be")
        image = self._text(top.get("image")).rpartition("/")[2].partition(":")[0]
        kind = next((word for word in _OPAQUE if word in image), "")
        self._read_ports(found, top)
        found.inside = found.inside or (_OPAQUE[kind] if kind else 0)
        found.is_opaque = bool(kind) or found.inside in _OPAQUE.values()
        if "extends" in top:
            self._remarks.append(f"{name}: what it extends is not read")
        found.calls = [*self._dependencies(name, top.get("depends_on"))]
        found.calls += [text.partition(":")[0] for text in _names(top.get("links"), self._notes)]
        return found

    def _read_ports(self, found: _Found, top: Mapping[str, Node]) -> None:
        """The first port of TCP counts: what is published before what is exposed."""
        for node in fields.items(top.get("ports"), "ports", self._notes):
            inside, published = self._port(found.name, node)
            if inside and found.inside:
                self._remarks.append(f"{found.name}: port {inside} is left out, {found.inside} is taken")
            elif inside:
                found.inside, found.published = inside, published
        for node in fields.items(top.get("expose"), "expose", self._notes):
            inside, _ = self._port(found.name, node)
            found.inside = found.inside or inside

    def _port(self, name: str, node: Node) -> tuple[int, int]:
        """Container's and host's port of one entry; (0, 0) for what is not TCP or cannot be read."""
        if isinstance(node, yaml.Mapping):
            top = _merged(node, self._notes)
            target, published = self._text(top.get("target")), self._text(top.get("published"))
            text = f"{published}:{target}" if published else target
            text += f"/{self._text(top.get('protocol')) or 'tcp'}"
        else:
            text = self._text(node)
        numbers, _, protocol = text.partition("/")
        if protocol not in ("", "tcp"):
            self._remarks.append(f"{name}: {text} is left out, a proxy of the mesh takes only TCP")
            return 0, 0
        read = _PORT.fullmatch(numbers)
        inside, outside = (int(read["inside"]), int(read["host"] or 0)) if read is not None else (0, 0)
        if not 0 < inside <= _LAST_PORT or outside > _LAST_PORT:
            self._notes.error(COMPOSE, node, f"`{text}` is not a port", "for example 8080:80 or 127.0.0.1:8080:80")
            return 0, 0
        return inside, outside

    def _dependencies(self, name: str, node: Node | None) -> Iterator[str]:
        if not isinstance(node, yaml.Mapping):
            yield from _names(node, self._notes)
            return
        for other, how in _merged(node, self._notes).items():
            if self._text(_merged(how, self._notes).get("condition")) == "service_completed_successfully":
                self._remarks.append(f"{name} waits for {other} to end, which does not count as a call")
            else:
                yield other

    def _text(self, node: Node | None) -> str:
        """A text with its variables replaced, as compose replaces them."""
        text = fields.text(node, self._notes)

        def value(match: re.Match[str]) -> str:
            if match[5]:
                return "$"
            name, how, rest = match[1] or match[4], match[2] or "", match[3] or ""
            found = self._environment.get(name, "")
            if found or (name in self._environment and not how.startswith(":")):
                return found
            if how.endswith("-"):
                return rest
            assert node is not None, "a text with a variable was written somewhere"
            self._notes.error(COMPOSE, node, f"`{match[0]}` has no value", f"set {name} in the environment")
            return ""

        return _VARIABLE.sub(value, text)


def _names(node: Node | None, notes: Notes) -> tuple[str, ...]:
    """The names of a list, or of a mapping in its place."""
    if isinstance(node, yaml.Mapping):
        return tuple(_merged(node, notes))
    return tuple(item.value for item in fields.items(node, "a list of names", notes) if isinstance(item, Scalar))


def _label(name: str) -> str:
    """A name of compose as a DNS label."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    if label in RESERVED:
        return f"{label}-service"
    return label if label[:1].isalpha() else f"s-{label}"


def _assembled(found: Mapping[str, _Found], given: Mapping[str, StarterService], remarks: list[str]) -> ComposeMesh:
    for one in found.values():
        if one.name in given:
            one.inside = one.published = given[one.name].port
    remarks += [
        f"{one.name} names no port and is left out: give it one with --service {one.name}:PORT"
        for one in found.values()
        if not one.inside
    ]
    known = {name: one for name, one in found.items() if one.inside}
    ports = dict(_ports(known.values(), remarks))
    services = tuple(
        given.get(one.name) or StarterService(one.name, ports[one.name], _protocol(one)) for one in known.values()
    )
    calls = tuple(dict.fromkeys(_calls(found, known, remarks)))
    called = {other for _, other in calls}
    outside = [one.name for one in known.values() if one.published and not one.is_opaque and one.name not in called]
    if len(outside) > 1:
        remarks.append(f"{', '.join(outside)} are published: say with --ingress which one a gateway leads to")
    remarks += [
        f"{one.name}: no proxy of the mesh can be put before a server that speaks first, as MySQL's does"
        for one in known.values()
        if one.inside in _SERVER_FIRST
    ]
    return ComposeMesh(services, calls, outside[0] if len(outside) == 1 else "", tuple(remarks))


def _protocol(one: _Found) -> str:
    if one.is_opaque:
        return "tcp"
    return "grpc" if one.inside == _GRPC_PORT else "http"


def _ports(known: Iterable[_Found], remarks: list[str]) -> Iterator[tuple[str, int]]:
    """Where each service is reached from this machine: at its published port, else at a port that no other has."""
    every = tuple(known)
    taken = {one.published for one in every if one.published}
    for one in every:
        if one.published:
            yield one.name, one.published
            continue
        port = one.inside if one.inside not in taken else _FIRST_FREE
        while port in taken:
            port += 1
        taken.add(port)
        remarks.append(f"{one.name} publishes no port: publish 127.0.0.1:{port}:{one.inside} for its proxy")
        yield one.name, port


def _calls(found: Mapping[str, _Found], known: Mapping[str, _Found], remarks: list[str]) -> Iterator[tuple[str, str]]:
    """Who depends on whom and shares a network with it."""
    for name, one in known.items():
        for other in one.calls:
            if other not in found:
                remarks.append(f"{name} depends on {other}, which is not a service in the file")
            elif other in known and not one.networks & known[other].networks:
                remarks.append(
                    f"{name} depends on {other} but shares no network with it, which does not count as a call"
                )
            elif other in known and other != name:
                yield one.name, known[other].name
