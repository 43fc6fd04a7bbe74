"""``authz status``: what a running server says of itself, asked as an operator or a roll-out does."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.conftest import Run

HEALTHY: dict[str, list[object]] = {"causes": []}
REFUSED = {"causes": [{"part": "policies", "message": "the last change was refused", "blocks": False}]}
STARTING = {"causes": [{"part": "keys", "message": "uri:x is being fetched", "blocks": True}]}
MISSING = {"causes": [{"part": "workers", "message": "worker 1 does not serve", "blocks": False}]}


class Admin(HTTPServer):
    """Answers as the administration of ``authz serve`` does; ``pages`` are replaced while it runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, list[tuple[int, str]]] = {}
        self.token = ""
        self.says(HEALTHY, "v1", "v1")

    def says(self, health: object, *versions: str, status: int = 200) -> None:
        """What it says from now on; called again, what it says after one question."""
        metrics = "".join(f'authz_policy_info{{worker="{i}",version="{v}"}} 1.0\n' for i, v in enumerate(versions))
        for path, page in (("/readyz", json.dumps(health)), ("/healthz", json.dumps(health)), ("/metrics", metrics)):
            self.pages.setdefault(path, []).append((status if path == "/readyz" else 200, page))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Admin

    def do_GET(self) -> None:  # the name is the library's
        pages = self.server.pages[self.path]
        status, page = pages.pop(0) if len(pages) > 1 else pages[0]
        if self.server.token and self.headers["authorization"] != f"Bearer {self.server.token}":
            status = 401
        self.send_response(status)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to standard error."""


@pytest.fixture
def admin() -> Iterator[Admin]:
    with Admin() as server:
        server.pages.clear()
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("health", "ready", "code", "said"),
    [
        (HEALTHY, 200, 0, "ready: 2 workers\n  policies: version v1\n"),
        (REFUSED, 200, 0, "ready: 2 workers\n  policies: version v1\n  note: policies: the last change was refused\n"),
        (STARTING, 503, 3, "not ready: 2 workers\n  policies: version v1\n  blocks: keys: uri:x is being fetched\n"),
    ],
)
def test_it_says_whether_the_server_is_ready_and_why_not(
    run: Run, admin: Admin, health: object, ready: int, code: int, said: str
) -> None:
    admin.says(health, "v1", "v1", status=ready)
    result = run("status", "--admin", admin.address)
    assert (result.exit_code, result.stdout) == (code, said)


def test_policies_are_in_force_when_every_worker_has_their_version(run: Run, admin: Admin, policies: Path) -> None:
    version = json.loads(run("validate", "-o", "json", str(policies)).stdout)["policy_version"]
    for versions, code in ((("v1", "v1"), 3), ((version, "v1"), 3), ((), 3), ((version, version), 0)):
        admin.pages.clear()
        admin.says(HEALTHY, *versions)
        result = run("status", "--admin", admin.address, "-p", str(policies))
        assert (versions, result.exit_code) == (versions, code)
    admin.pages.clear()
    admin.says(MISSING, version)
    assert run("status", "--admin", admin.address, "-p", str(policies)).exit_code == 3


def test_it_says_what_came_of_deciding_again_what_proxies_decided(run: Run, admin: Admin) -> None:
    counted = "".join(
        f'authz_native_verified_total{{result="{name}",worker="{worker}"}} {number}\n'
        for name, number in (("agreed", 1500.0), ("skipped", 2.0), ("disagreed", 0.0))
        for worker in range(2)
    )
    admin.says(HEALTHY, "v1")
    admin.pages["/metrics"] = [(200, admin.pages["/metrics"][-1][1] + counted)]
    said = run("status", "--admin", admin.address).stdout
    assert "native:   3,000 agreed, 4 skipped, by the engine beside Envoy" in said
    told = json.loads(run("status", "--admin", admin.address, "-o", "json").stdout)
    assert told["verified"] == {"agreed": 3000, "skipped": 4, "disagreed": 0}


def test_it_waits_for_a_yes(run: Run, admin: Admin) -> None:
    admin.says(STARTING, "v1", status=503)
    admin.says(HEALTHY, "v1")
    assert run("status", "--admin", admin.address, "--wait", "10").exit_code == 0


def test_json_has_the_documented_fields(run: Run, admin: Admin) -> None:
    admin.says(REFUSED, "v1")
    assert json.loads(run("status", "--admin", admin.address, "-o", "json").stdout) == {
        "ok": True,
        "ready": True,
        "causes": REFUSED["causes"],
        "policy_versions": ["v1"],
        "asked_version": None,
    }


def test_a_token_is_shown_where_one_is_asked_for(run: Run, admin: Admin, tmp_path: Path) -> None:
    admin.says(HEALTHY, "v1")
    admin.token = "secret"
    result = run("status", "--admin", admin.address)
    assert (result.exit_code, result.stderr) == (
        1, f"error: `{admin.address}` does not answer: it asks for a token: give it with --token-file\n"
    )  # fmt: skip
    (tmp_path / "token").write_text("secret\n")
    assert run("status", "--admin", admin.address, "--token-file", "token").exit_code == 0


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("unix:none.sock", 1, "error: `unix:none.sock` does not answer: there is no such socket"),
        ("127.0.0.1:x", 2, "`127.0.0.1:x` is neither host:port nor unix:/path"),
    ],
)
def test_no_answer_is_not_a_no(run: Run, address: str, code: int, said: str) -> None:
    result = run("status", "--admin", address)
    assert result.exit_code == code
    assert said in result.stderr
