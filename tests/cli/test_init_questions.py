"""``authz init`` at a terminal: a real one, on which it asks, asks again, and writes what was answered."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_SECONDS = 30.0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "authz", *arguments], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""

    def answer(self, question: str, answer: str) -> None:
        """Wait for a question, which must be new, and answer it."""
        self.wait_for(question)
        self.said = ""
        os.write(self._ours, f"{answer}\n".encode())

    def wait_for(self, text: str) -> None:
        ends = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"`{text}` never came: {self.said}"
            try:
                self.said += os.read(self._ours, 65536).decode()
            except OSError:  # Linux: nobody has the other end any more
                break
        assert text in self.said, self.said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path, "init", "mine")
    yield found
    found.close()


@pytest.mark.slow
def test_it_asks_for_everything_and_again_for_what_cannot_be(terminal: Terminal, tmp_path: Path) -> None:
    terminal.answer("Service:", "")
    terminal.answer("`` is not NAME:PORT", "web:8080")
    terminal.answer("Service:", "api:8080")
    terminal.answer("cannot both listen on port 8080", "api:9000")
    terminal.answer("Service:", "")
    terminal.answer("Whom does web call? [none]:", "apj")
    terminal.answer("`apj` is not one of api", "api")
    terminal.answer("Whom does api call? [none]:", "")
    terminal.answer("open to the outside? [none]:", "db")
    terminal.answer("`db` is not one of web, api", "web")
    terminal.answer("[a trial one]:", "idp.example")
    terminal.answer("must be a URL", "https://idp.example")
    terminal.answer("For which audience? [default]:", "shop")
    terminal.wait_for("next   authz up mine")
    assert terminal.process.wait(PATIENCE_SECONDS) == 0
    policies = {path.name: path.read_text() for path in (tmp_path / "mine/policies").iterdir()}
    assert re.findall(r"name: (\S+-from-[\w-]+)", policies["edges.yaml"]) == ["web-from-ingress", "api-from-web"]
    assert 'issuer: "https://idp.example"\n    audiences: [shop]' in policies["ingress.yaml"]


@pytest.mark.slow
def test_one_service_and_empty_answers_are_enough(terminal: Terminal, tmp_path: Path) -> None:
    terminal.answer("Service:", "api:9000/grpc")
    terminal.answer("Service:", "")
    terminal.answer("open to the outside? [none]:", "")
    terminal.wait_for("next   authz up mine")
    assert terminal.process.wait(PATIENCE_SECONDS) == 0
    assert not (tmp_path / "mine/policies/ingress.yaml").exists()
