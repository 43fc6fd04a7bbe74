"""The configurations of docs/other-proxies.md, as the tests run them."""

import re
import socket
from pathlib import Path

import authz

PAGE = Path(authz.__file__).parent.parent / "docs" / "other-proxies.md"


def configuration(language: str, chapter: str) -> str:
    """The first block of a language in a chapter."""
    text = PAGE.read_text().partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"{PAGE.name} has no {language} under {chapter}"
    return found[1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
