"""``authz up`` with real Envoys that decide by themselves: it follows what is edited and says what cannot be used."""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from authz.starter.mesh_plan import StarterService, WantedMesh, make_plan
from authz.starter.written import written_files
from tests.up.own import Up, environment, free_first_port, until

pytestmark = [pytest.mark.slow, pytest.mark.envoy]
SERVE = "python3 -m http.server $PORT --bind 127.0.0.1"


def write(folder: Path, first: int, *names: str) -> None:
    """A mesh of these services, each of which calls the next."""
    services = tuple(StarterService(name, first + 30 + number) for number, name in enumerate(names))
    calls = tuple(pairwise(names))
    for name, text in written_files(make_plan(WantedMesh(services, calls, first_port=first))).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def first() -> int:
    return free_first_port()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def up(folder: Path, first: int) -> Iterator[Up]:
    write(folder, first, "web", "api")
    running = Up(folder, ("--enforce", "native", "--run", f"api={SERVE}"), ("sh", "run.sh"))
    yield running
    running.kill()


def status(port: int) -> int:
    """0 for no answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def test_the_script_checks_the_policies_first(up: Up) -> None:
    said = up.said()
    for told in ("3 policies in 2 files: ok", "6 of 6 requests passed", "2 AuthorizationPolicies: no findings"):
        assert told in said[: said.index("certificate authority")]


def test_a_service_that_nobody_started_is_named(up: Up, first: int) -> None:
    assert f"nobody listens on {first + 30} yet: start web" in up.said()
    assert until(lambda: status(first + 11) == 200)


def test_an_edge_that_is_taken_away_is_refused_by_the_proxy_itself(up: Up, folder: Path, first: int) -> None:
    edges = folder / "policies/edges.yaml"
    written = edges.read_text()
    edges.write_text(written.replace("sa/web", "sa/nobody"))
    assert until(lambda: status(first + 11) == 403)
    edges.write_text(written)
    assert until(lambda: status(first + 11) == 200)
    assert until(lambda: "DENY   web → api" in up.said()), up.said()


def test_a_policy_with_a_mistake_is_told_and_the_last_good_ones_stay(up: Up, folder: Path, first: int) -> None:
    (folder / "policies/broken.yaml").write_text("kind: AuthorizationPolicy\n")
    assert until(lambda: "broken.yaml:1:1" in up.said()), up.said()
    assert status(first + 11) == 200
    (folder / "policies/broken.yaml").unlink()
    assert until(lambda: up.said().count("is in force") >= 2), up.said()


def test_a_second_one_in_the_same_folder_is_refused(up: Up, folder: Path) -> None:
    ran = subprocess.run(
        ["authz", "up", "."], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "this mesh is already running" in ran.stderr
    assert up.process.poll() is None


def test_a_new_service_gets_its_proxy_and_a_former_one_loses_it(up: Up, folder: Path, first: int) -> None:
    write(folder, first, "web", "api", "db")
    assert until(lambda: reason(first + 13) == "nobody is there"), reason(first + 13) + up.said()
    write(folder, first, "web", "api")
    assert until(lambda: status(first + 13) == 0)
    assert until(lambda: status(first + 11) == 200)
    assert not re.search(r"ended (by|with)", up.said()), "stopped on purpose, which is no news"


def reason(port: int) -> str:
    """The new service has no application: its proxy lets the request through, and says that nobody is there."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    except httpx.HTTPError as error:
        return str(error)
    return "nobody is there" if answer.status_code == 503 else answer.text


def test_it_ends_at_once_and_says_yes(up: Up) -> None:
    assert up.interrupt() == 0
