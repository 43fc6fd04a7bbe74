"""Every example of the command line's documentation is run, and gives what is printed there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, str, str]]:
    """Document, command, printed output (empty: not compared)."""
    for name in ("cli.md", "findings.md", "testing-policies.md", "why-was-i-denied.md"):
        for block in BLOCK.findall((ROOT / "docs" / name).read_text()):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield name, command, printed


@pytest.mark.parametrize(("document", "command", "printed"), list(examples()))
def test_the_example_prints_what_the_document_says(document: str, command: str, printed: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    if printed:
        assert done.stdout == printed


def test_the_documents_have_examples() -> None:
    assert len(list(examples())) >= 10
