"""``up.yaml``: what ``authz up`` needs besides the mesh, which Istio's kinds have no field for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.errors import LoadError, Location, Problem, Severity, sort_problems
from authz.documents import fields
from authz.documents.reading import Node, read_documents
from authz.documents.schema import Notes

UP = "up"
"""Code of problems in this file."""
PAGE_PORT = 15000
AUDIENCE = "default"
_LAST_PORT = 65535
_URL = re.compile(r"[^A-Z0-9]")


@dataclass(frozen=True, slots=True)
class UpFile:
    """The file as values."""

    page: int = PAGE_PORT
    """Port of the operator's page, on loopback."""
    issuer: int = 0
    """Port of the issuer for trying; 0: none is started."""
    audience: str = AUDIENCE
    """The audience of its tokens, unless asked for another."""
    run: Mapping[str, str] = field(default_factory=dict)
    """By workload, the command of the shell that starts its application."""


def read_up_file(path: Path) -> UpFile:
    """
    Read the file; without one the defaults hold.

    Raises:
        LoadError: with every problem and its place.
        OSError: the file cannot be read.
    """
    problems: list[Problem] = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return UpFile()
    documents = list(read_documents(str(path), data, problems))
    read = UpFile()
    if len(documents) > 1:
        problems.append(Problem(Severity.ERROR, UP, "more than one document", Location(str(path))))
    elif documents:
        notes = Notes(documents[0], problems, code=UP)
        read = _read(documents[0].root, notes)
    if problems:
        raise LoadError(sort_problems(problems))
    return read


def _read(root: Node, notes: Notes) -> UpFile:
    top = fields.entries(root, ("page", "issuer", "audience", "run"), "up.yaml", notes)
    commands = fields.named(top.get("run"), "run", notes)
    return UpFile(
        page=_port(top.get("page"), notes, PAGE_PORT),
        issuer=_port(top.get("issuer"), notes, 0),
        audience=fields.text(top.get("audience"), notes, AUDIENCE),
        run={name: fields.text(node, notes) for name, node in commands.items()},
    )


def _port(node: Node | None, notes: Notes, default: int) -> int:
    return fields.number(node, notes, default, most=_LAST_PORT) or default


def url_variable(name: str) -> str:
    """The environment's name for where a service is reached: ``user-data`` is ``USER_DATA_URL``."""
    return _URL.sub("_", name.upper()) + "_URL"
