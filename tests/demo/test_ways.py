"""Who answers the checks: the plan of processes, what they decide by, what Envoy is told, which scenarios there are."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from authz.cli import application
from authz.cli.demo import SERVERS
from authz.demo.checks.runner import all_scenarios
from authz.demo.commands import AUTHZ, COUNTING, EMBEDDED_ADMIN_SOCKET, LIMITS, all_commands
from authz.demo.layout import AUDIT_LOG, Layout
from authz.demo.prepare import options, plan
from authz.envoy.options import Authz, Secrets, embedded_socket
from authz.envoy.render import render_all
from authz.local.children import Command
from authz.settings.precedence import read_settings
from authz.settings.settings import Settings
from tests.mesh.meshes import logins

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return plan(tmp_path_factory.mktemp("state"), ROOT / "policies", ROOT / "envoy-configs" / "mesh.yaml")


@pytest.fixture(scope="module")
def embedded(layout: Layout) -> Layout:
    return replace(layout, authz=Authz.EMBEDDED)


def commands(layout: Layout) -> dict[str, Command]:
    return {command.name: command for wave in all_commands(layout) for command in wave}


def flags(command: Command) -> dict[str, list[str]]:
    """Of ``authz serve``, by the name of the setting."""
    told = command.arguments[command.arguments.index("serve") + 1 :]
    found: dict[str, list[str]] = {}
    for flag, value in zip(told[::2], told[1::2], strict=True):
        found.setdefault(flag.removeprefix("--").replace("-", "_"), []).append(value)
    return found


def settings(command: Command) -> Settings:
    return read_settings({}, environment=command.environment)


def test_an_embedded_demo_has_the_same_processes_but_the_server(layout: Layout, embedded: Layout) -> None:
    assert commands(layout).keys() - commands(embedded).keys() == {AUTHZ}
    assert commands(embedded).keys() <= commands(layout).keys()


def test_beside_embedding_proxies_one_server_counts_for_all_and_does_nothing_else(
    layout: Layout, embedded: Layout
) -> None:
    ruled = replace(layout, traffic=ROOT / "traffic")
    server, beside = commands(ruled), commands(replace(embedded, traffic=ruled.traffic))
    assert beside.keys() - commands(embedded).keys() == {COUNTING, LIMITS}
    told, counted = flags(beside[COUNTING]), flags(server[AUTHZ])
    assert told["listen"] == ["none"]
    assert {name: told[name] for name in ("rate_limits", "rate_limit_store", "mesh", "audit")} == {
        name: counted[name] for name in ("rate_limits", "rate_limit_store", "mesh", "audit")
    }


@pytest.mark.parametrize("secrets", list(Secrets))
def test_every_proxy_decides_by_what_the_server_would(layout: Layout, secrets: Secrets) -> None:
    layout = replace(layout, secrets=secrets)
    server = flags(commands(layout)[AUTHZ])
    inside = commands(replace(layout, authz=Authz.EMBEDDED))
    for workload in layout.mesh.workloads:
        found = settings(inside[workload.name])
        for name, values in server.items():
            if name in ("server", "listen", "workers", "admin", "drain_delay_seconds"):
                continue
            told = getattr(found, name)
            shown = [str(part) for part in told] if isinstance(told, tuple) else [told]
            expected = [json.loads(value) if isinstance(told, dict) else value for value in values]
            assert [str(part) if isinstance(part, Path) else part for part in shown] == expected, name
        assert found.admin == f"unix:{EMBEDDED_ADMIN_SOCKET.format(name=workload.name)}"
        assert found.audit == (f"file:{AUDIT_LOG}",), "one file, whose lines are whole whoever writes them"


def test_a_proxy_that_decides_itself_is_ready_when_its_server_is(layout: Layout, embedded: Layout) -> None:
    for workload in layout.mesh.workloads:
        plain, command = commands(layout)[workload.name], commands(embedded)[workload.name]
        assert command.ready.split() == [plain.ready, f"authz:{EMBEDDED_ADMIN_SOCKET.format(name=workload.name)}"]
        assert command.arguments[-len(plain.arguments) :] == plain.arguments
        assert "environment" in command.arguments
        assert not plain.environment


def test_an_embedding_proxy_asks_itself(embedded: Layout) -> None:
    files = render_all(embedded.mesh, options=options(replace(embedded, logins=logins(embedded.mesh))))
    assert "eds/authz.yaml" not in files
    for workload in embedded.mesh.workloads:
        bootstrap = yaml.safe_load(files[f"envoy/{workload.name}.yaml"])["static_resources"]
        (listener,) = bootstrap["listeners"]
        (cluster,) = (cluster for cluster in bootstrap["clusters"] if cluster["name"] == "authz")
        assert listener["address"]["pipe"]["path"] == embedded_socket(workload.name)
        assert embedded_socket(workload.name) in json.dumps(cluster["load_assignment"])


@pytest.mark.parametrize("server", SERVERS)
def test_the_server_of_its_own_may_be_hosted(layout: Layout, server: str) -> None:
    command = commands(replace(layout, server=server))[AUTHZ]
    assert flags(command)["server"] == [server]
    assert command.ready == commands(layout)[AUTHZ].ready


def test_only_scenarios_about_the_process_of_the_server_differ() -> None:
    server = {(one.group, one.name) for one in all_scenarios()}
    inside = {(one.group, one.name) for one in all_scenarios(authz=Authz.EMBEDDED)}
    fails = "Things that fail"
    assert server - inside == {(fails, "the authorization server is killed"), (fails, "and is back")} - inside
    assert inside - server == {
        (fails, "every proxy reports for itself: health, metrics, one version"),
        (fails, "a proxy that decides itself is killed: the others go on"),
        (fails, "with unusable policies it does not start"),
    }


def test_a_machine_that_cannot_host_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "nowhere" / "pyvoy").mkdir(parents=True)  # found first, and empty
    (tmp_path / "nowhere" / "pyvoy" / "__init__.py").touch()
    found = (str(tmp_path / "nowhere"), *sys.path)
    where = ("--policies", str(ROOT / "policies"), "--mesh", str(ROOT / "envoy-configs" / "mesh.yaml"))
    options = ("--authz", "embedded", "--state", str(tmp_path / "state"), "--port-offset", "12725")
    done = subprocess.run(
        [sys.executable, "-m", "authz", "demo", *options, *where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pyvoy has no module for this machine" in done.stdout + done.stderr
    assert not list((tmp_path / "state" / "logs").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--authz", "embedded", "--server", "envoy"), "--server is for a separate server"),
        (("--check", "--compose", "--authz", "embedded"), "--compose takes neither --authz nor --server"),
        (("--check", "--compose", "--server", "envoy"), "--compose takes neither --authz nor --server"),
    ],
)
def test_ways_that_exclude_each_other_are_told(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(application, ["demo", *arguments], prog_name="authz")
    assert result.exit_code == 2
    assert message in result.output
