"""The threat model cannot rot: what it names is there, and every door of the program is in it."""

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

import authz
from authz.cli import application
from authz.settings.settings import Settings

ROOT = Path(authz.__file__).parent.parent
PAGE = ROOT / "docs" / "threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
DOORS = frozenset(
    {
        "listen",
        "admin",
        "access_logs",
        "access_log_admin",
        "http_doors",
        "audit",
        "otlp_endpoint",
        "otlp_headers",
        "rate_limits",
        "policies",
    }
)
"""Settings that open a door or lead out and are not files by their type."""


@cache
def defined_in(file: str) -> frozenset[str]:
    """The tests that a file defines, those of classes included."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions))
    return frozenset(name for name in found if name.startswith("test_"))


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED.findall(PAGE.read_text()))))
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in defined_in(file), f"{file} has no {test}"


def test_every_attack_names_the_test_that_holds_it() -> None:
    attacks = PAGE.read_text().partition("\n## Attacks")[2].partition("\n## ")[0]
    rows = [row for row in attacks.splitlines() if row.startswith("| ") and not row.startswith("| attack |")]
    assert len(rows) > 50
    assert [row for row in rows if NAMED.search(row) is None] == []


def test_every_setting_that_opens_a_door_or_names_a_file_is_in_it() -> None:
    page = PAGE.read_text()
    doors = {name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)} | DOORS
    assert {name for name in doors if not re.search(rf"`{name}\b", page)} == set()


def test_every_door_of_the_authority_is_in_it() -> None:
    command = application.get_command(click.Context(application), "ca")
    assert isinstance(command, click.Group)
    options = {name for option in command.commands["serve"].params for name in option.opts if name.startswith("--")}
    quiet = {"--dns", "--ca"}
    """Names in its certificate; the directory has a row of its own."""
    page = PAGE.read_text()
    assert {name for name in options - quiet if not re.search(rf"`(authz ca serve )?{name}\b", page)} == set()
