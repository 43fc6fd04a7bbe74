"""One public name, one meaning: a type or a file is called the same in two rooms only where this table says why."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "authz"
FILES = [file for file in sorted(ROOT.rglob("*.py")) if "_proto" not in file.parts]

ASGI = "ASGI's own words: the module in Envoy gives plain dictionaries, other servers mutable mappings"
TYPES = {
    "Receive": ASGI,
    "Scope": ASGI,
    "Send": ASGI,
    "Source": "Istio's `source` of a rule (its name is part of policy versions), and the source of Envoy's attributes",
}
"""Public types of one name and several meanings, with the reason."""

COMMAND = "cli: a file is called as its command; demo.checks: as what is tried"
FLOORS = "the same noun, seen by the room that the folder names"
FILE_NAMES = {
    "__main__.py": "Python's own name",
    "access_log.py": "envoy.native asks Envoy for what wire reads",
    "app.py": FLOORS,
    "ca.py": COMMAND,
    "certificates.py": FLOORS,
    "check.py": "a CheckRequest in wire and in service; " + COMMAND,
    "credentials.py": COMMAND,
    "embedded.py": COMMAND,
    "enrolment.py": COMMAND,
    "explain.py": COMMAND,
    "fields.py": "documents: how they are read; settings: which there are",
    "files.py": FLOORS,
    "filters.py": "audit: which records; envoy.native: Envoy's filters",
    "findings.py": COMMAND,
    "follow.py": "control follows policies, sources.access_logs follows logs",
    "health.py": FLOORS,
    "in_force.py": "envoy.native reads from one proxy what service.native measures of all",
    "key_sets.py": COMMAND,
    "listeners.py": FLOORS,
    "mesh.py": COMMAND,
    "output.py": COMMAND,
    "passthrough.py": COMMAND,
    "processes.py": FLOORS,
    "providers.py": "extension providers: as nouns, as written, as asked, as Envoy's filter",
    "proxies.py": FLOORS,
    "reader.py": FLOORS,
    "reading.py": FLOORS,
    "record.py": FLOORS,
    "records.py": COMMAND,
    "render.py": FLOORS,
    "rotation.py": COMMAND,
    "rules.py": "a rule as compiled and as written",
    "run.py": FLOORS,
    "server.py": FLOORS,
    "status.py": COMMAND,
    "supervisor.py": FLOORS,
    "template.py": "identity: of a certificate; policy: of documents that differ in words",
    "tls.py": FLOORS,
    "told.py": FLOORS,
    "validate.py": "a certificate, a rendered configuration; " + COMMAND,
    "values.py": FLOORS,
    "verify.py": COMMAND,
    "written.py": FLOORS,
}
"""File names that stand in several rooms, with the reason."""


def types_of(file: Path) -> Iterator[str]:
    """Public classes and type aliases of a module."""
    for node in ast.parse(file.read_text()).body:
        match node:
            case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                if name[0].isupper() and not name.isupper():
                    yield name


def test_a_public_type_has_one_meaning() -> None:
    rooms = defaultdict(set)
    for file in FILES:
        for name in types_of(file):
            rooms[name].add(str(file.relative_to(ROOT)))
    assert {name for name, where in rooms.items() if len(where) > 1} == set(TYPES)


def test_a_file_name_stands_in_several_rooms_only_for_a_reason() -> None:
    rooms = defaultdict(set)
    for file in FILES:
        rooms[file.name].add(file.parent)
    assert {name for name, where in rooms.items() if len(where) > 1} - {"__init__.py"} == set(FILE_NAMES)
