"""A real Prometheus for tests, with the documented configuration and alert rules."""

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import authz

DOCS = Path(authz.__file__).parent.parent / "docs" / "observability"
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="Prometheus is not installed; `apt-get install prometheus` brings it and promtool",
)


@contextlib.contextmanager
def scraping(directory: Path, target: str) -> Iterator[str]:
    """Run Prometheus on ``docs/observability/prometheus.yml``, but five times a second, at ``host:port``; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.copy(DOCS / "alerts.yml", directory)
    text = (DOCS / "prometheus.yml").read_text().replace("15s", "200ms").replace("127.0.0.1:15014", target)
    (directory / "prometheus.yml").write_text(text)
    with (directory / "log").open("wb") as log:
        running = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)


def ask(url: str, expression: str) -> list[dict[str, Any]]:
    """Evaluate an expression now; nothing while Prometheus is still starting."""
    response = httpx.get(f"{url}/api/v1/query", params={"query": expression})
    if response.status_code == 503:
        return []
    answer = response.json()
    assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Poll another program that has no event to wait for."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.1)):
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        pause.wait(0.1)
    raise AssertionError("it did not happen")
