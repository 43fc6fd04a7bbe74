"""Every public name says what it is: shapes, units and errors that cannot be read from its types."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent
FILES = [path for path in sorted(ROOT.rglob("*.py")) if "_proto" not in path.parts]
OWED: frozenset[str] = frozenset()
"""Files that still owe docstrings; one that owes none any more leaves the list."""
SAYS_NOTHING = re.compile(r"\b[A-Z]{2}-\d+\b(?: (?:to|and)\b)?|\bRaises \w+(?:, \w+)*\.")
"""Clauses, and errors without a reason."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    return (node for node in body if isinstance(node, Definition) and not node.name.startswith("_"))


def says(node: Definition) -> bool:
    """Whether there are two words besides clauses and errors: a number or a name alone says nothing."""
    told = SAYS_NOTHING.sub("", ast.get_docstring(node) or "")
    return len(re.findall(r"\w+", told)) > 1


@cache
def inherited() -> dict[str, set[str]]:
    """The documented methods of every class of the package by its name, those of its bases with them."""
    own: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                own.setdefault(node.name, set()).update(one.name for one in definitions(node.body) if says(one))
                bases.setdefault(node.name, set()).update(base.id for base in node.bases if isinstance(base, ast.Name))

    def methods(name: str) -> set[str]:
        return own.get(name, set()).union(*(methods(base) for base in bases.get(name, ()) if base != name))

    return {name: methods(name) for name in own}


def undocumented(source: str) -> list[str]:
    """Public functions, classes and methods without a docstring; one that overrides a documented method needs none."""
    found = []
    for node in definitions(ast.parse(source).body):
        found += [node.name] * (not says(node))
        if isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            known = {method for base in bases for method in inherited().get(base, ())}
            found += [
                f"{node.name}.{one.name}" for one in definitions(node.body) if not says(one) and one.name not in known
            ]
    return found


def test_every_public_function_and_class_says_what_it_does() -> None:
    found = {str(path.relative_to(ROOT)): undocumented(path.read_text()) for path in FILES}
    owing = {file: names for file, names in found.items() if names}
    assert owing.keys() == OWED, owing


def test_a_missing_docstring_is_found() -> None:
    source = 'class A:\n    """Two words."""\n    def b(self): ...\n    def _c(self): ...\ndef d():\n    """One."""'
    assert undocumented(source) == ["A.b", "d"]


@pytest.mark.parametrize("text", ["VA-34, VA-35.", "Raises OSError, ValueError.", "PA-2 to PA-6.", "Workload."])
def test_a_docstring_that_only_cites_says_nothing(text: str) -> None:
    assert undocumented(f'def a():\n    """{text}"""') == ["a"]
