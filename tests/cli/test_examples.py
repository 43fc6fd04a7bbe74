"""Every example of the command line's documentation is run, and gives what is printed there."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import application

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "cli.md", "findings.md", "proofs.md", "testing-policies.md", "identity-providers.md", "why-was-i-denied.md",
)  # fmt: skip
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, str, str]]:
    """Document, command, printed output (empty: not compared)."""
    for name in DOCUMENTS:
        for block in BLOCK.findall((ROOT / "docs" / name).read_text()):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield name, command, printed


def shell(command: str, piped: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and errors of a command line with ``authz`` on its path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={"PATH": path}, input=piped, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def needs_shell(command: str) -> bool:
    """Whether ``authz`` is not alone at the beginning, or with the names of files that a shell finds."""
    return not command.startswith("authz ") or "/*.yaml" in command


def here(command: str) -> tuple[int, str, str]:
    """The same for ``authz …`` and pipes behind it, without a process for what imports half a second."""
    own, _, filtering = command.partition(" | ")
    result = CliRunner().invoke(application, shlex.split(own)[1:], prog_name="authz")
    return shell(filtering, result.stdout) if filtering else (result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(("document", "command", "printed"), list(examples()))
def test_the_example_prints_what_the_document_says(
    document: str, command: str, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, said, errors = shell(command) if needs_shell(command) else here(command)
    assert code in (0, 3), errors
    if printed:
        assert said == printed


def test_the_documents_have_examples() -> None:
    assert len(list(examples())) >= 10
