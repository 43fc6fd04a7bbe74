"""One public name, one meaning: a type or a file is called the same in two rooms only where this table says why."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from authz.cli import COMMANDS

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

FILE_NAMES = {
    "__main__.py": "Python's own name",
}
"""File names that stand in several rooms, with the reason."""


def types_of(file: Path) -> Iterator[str]:
    """Public classes and type aliases of a module."""
    for node in ast.parse(file.read_text()).body:
        match node:
            case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                if name[0].isupper() and not name.isupper():
                    yield name


def is_command(file: Path) -> bool:
    """Whether a file is called as the command that it holds, so that whoever knows the command knows the file."""
    return file.parent.name == "cli" and file.stem in COMMANDS


def test_a_public_type_has_one_meaning() -> None:
    rooms = defaultdict(set)
    for file in FILES:
        for name in types_of(file):
            rooms[name].add(str(file.relative_to(ROOT)))
    assert {name for name, where in rooms.items() if len(where) > 1} == set(TYPES)


def test_a_file_name_stands_in_several_rooms_only_for_a_reason() -> None:
    rooms = defaultdict(set)
    for file in FILES:
        if file.name != "__init__.py" and not is_command(file):
            rooms[file.name].add(file.parent)
    assert {name for name, where in rooms.items() if len(where) > 1} == set(FILE_NAMES)
