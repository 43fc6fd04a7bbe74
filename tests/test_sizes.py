"""No file or function is longer than somebody keeps in the head; what must be longer stands here with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import authz

ROOT = Path(authz.__file__).parent
MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 60

LONG_FILES: dict[str, str] = {}
"""By file: why its parts are one thing. A file that became shorter leaves the list."""

LONG_FUNCTIONS = {
    "admin/workers.py:create_workers_app": "one HTTP application: short handlers and the table of their paths",
    "cli/control.py:command": "one parameter for each of the command's options, and its help",
    "demo/issuer.py:application": "one HTTP application: short handlers and the table of their paths",
    "cli/mesh.py:render": "one parameter for each of the command's options, and its help",
    "service/app.py:App.__init__": "the assembly place: every part is made here once, in order",
}

FILES = [path for path in sorted(ROOT.rglob("*.py")) if "_proto" not in path.parts]


def functions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, int]]:
    """Every function with its number of lines, decorators not counted; those inside others belong to them."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{within}{node.name}", node.end_lineno - node.lineno + 1


def test_no_file_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    found = {file: number for file, number in lines.items() if number > MAX_FILE_LINES}
    assert found.keys() == LONG_FILES.keys(), found


def test_no_function_is_too_long() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{name}"
        for path in FILES
        for name, lines in functions(ast.parse(path.read_text()).body)
        if lines > MAX_FUNCTION_LINES
    }
    assert found == set(LONG_FUNCTIONS)


def test_a_method_is_measured_by_its_own_lines() -> None:
    source = "class A:\n    @cache\n    def b(self):\n        def c():\n            pass\n        return c\n"
    assert list(functions(ast.parse(source).body)) == [("A.b", 4)]
