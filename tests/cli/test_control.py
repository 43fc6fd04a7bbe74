"""``authz control`` as users run it: a machine joins with a token and one file, and the status says what it has."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from authz.cli import application
from tests.control.fleet.fleet_rig import WEB, Rig, answers, free_ports, until


def run(*arguments: str) -> Result:
    return CliRunner().invoke(application, arguments)


@contextmanager
def control(rig: Rig, enrol: int, admin: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "authz", "control", "--policies", "policies", "--mesh", "mesh.yaml", "--ca", "ca"]
    command += ["--listen", f"127.0.0.1:{rig.control}", "--enrol", f"127.0.0.1:{enrol}", "--admin", f"unix:{admin}"]
    command += ["--validate", "off"]
    process = subprocess.Popen(command, cwd=rig.folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("serving discovery" in line for line in process.stderr), "it has ended"
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.envoy
async def test_a_machine_needs_a_token_once_and_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    monkeypatch.chdir(rig.state)
    (enrol,) = free_ports(1)
    admin = Path(f"/tmp/authz-control-{os.getpid()}.sock")  # a socket's path has at most 107 bytes
    with control(rig, enrol, admin) as process:
        missing = run("control", "status", "--admin", f"unix:{admin}")
        assert missing.exit_code == 3
        assert missing.stdout.count("missing") == 2
        made = run("mesh", "bootstrap", "--mesh", "../mesh.yaml", "--to", "web-v1",
                   "--control", f"127.0.0.1:{rig.control}")  # fmt: skip
        (rig.state / "envoy.yaml").write_text(made.stdout)
        token = run("ca", "token", "create", WEB, "--ca", "../ca")
        (rig.state / "token").write_text(token.stdout)
        joined = run("ca", "join", "--server", f"localhost:{enrol}", "--bundle", "../ca/bundle.pem",
                     "--token-file", "token", "--out", "certs/web-v1")  # fmt: skip
        assert joined.exit_code == 0, joined.output
        with rig.started(rig.state / "envoy.yaml"):
            await answers(rig.out, "/one", "503")  # it listens, and nobody is behind it

            async def is_current() -> bool:
                shown = await asyncio.to_thread(run, "control", "status", "--admin", f"unix:{admin}", "-o", "json")
                found = {one["name"]: one for one in json.loads(shown.stdout)["proxies"]}
                return bool(found["web-v1"]["is_current"])

            await until(is_current)
        assert process.poll() is None


MESH = Path(__file__).parents[2] / "envoy-configs" / "mesh.yaml"


def bootstrap(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(application, ["mesh", "bootstrap", "--mesh", str(MESH), *arguments])
    return done.exit_code, done.output


def test_the_bootstrap_names_the_control_plane_and_nothing_else() -> None:
    code, text = bootstrap("--to", "reviews-v1", "--control", "control.example:7443")
    made = yaml.safe_load(text)
    assert code == 0
    assert made["node"]["id"] == "reviews-v1"
    assert [cluster["name"] for cluster in made["static_resources"]["clusters"]] == ["authz-control"]
    assert set(made["dynamic_resources"]) == {"ads_config", "cds_config", "lds_config"}


def test_the_bootstrap_leads_to_every_replica_of_the_control_plane() -> None:
    code, text = bootstrap("--to", "reviews-v1", "--control", "a.example:7443", "--control", "b.example:7444")
    (cluster,) = yaml.safe_load(text)["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for one in group["lb_endpoints"]]
    assert code == 0
    assert [(one["address"], one["port_value"]) for one in addresses] == [("a.example", 7443), ("b.example", 7444)]
    assert cluster["outlier_detection"]["consecutive_5xx"] == 1


@pytest.mark.parametrize(("more", "ping"), [((), "60s"), (("--report", "10"), "10s")], ids=["quiet", "reporting"])
def test_a_proxy_finds_a_control_plane_that_is_gone_and_costs_it_little(more: tuple[str, ...], ping: str) -> None:
    """Machines are found by the kernel, which asks nothing while something that was sent has no answer."""
    _, text = bootstrap("--to", "reviews-v1", "--control", "a.example:7443", *more)
    (cluster,) = yaml.safe_load(text)["static_resources"]["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    pings = options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    machine = cluster["upstream_connection_options"]["tcp_keepalive"]
    assert pings["interval"] == ping
    assert machine == {"keepalive_probes": 3, "keepalive_time": 10, "keepalive_interval": 2}
    assert options["common_http_protocol_options"]["max_connection_duration"] == "300s"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--to", "nobody", "--control", "a:1"), 1, "there is no workload `nobody`"),
        (("--to", "reviews-v1", "--control", "a"), 2, "`a` is not host:port"),
        (("--to", "reviews-v1", "--control", "a:0"), 2, "`a:0` is not host:port"),
        (("--to", "reviews-v1", "--control", "a:1", "--control", "b"), 2, "`b` is not host:port"),
    ],
)
def test_a_bootstrap_that_cannot_be_made_is_refused(arguments: tuple[str, ...], code: int, told: str) -> None:
    found, text = bootstrap(*arguments)
    assert found == code
    assert told in " ".join(text.split())


def test_control_without_what_it_needs_is_wrong_usage() -> None:
    done = CliRunner().invoke(application, ["control", "--listen", "127.0.0.1:0"])
    assert done.exit_code == 2
    assert "--policies, --mesh and --listen are needed" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--canary", "5%"), 2, "need --candidate"),
        (("--candidate", "next"), 2, "needs --canary or --canary-workload"),
        (("--candidate", "next", "--audit", "somewhere"), 2, "--policies, --mesh and --listen are needed"),  # in shadow
        (("--candidate", "next", "--canary", "5"), 1, "a share is written as `5%`"),
    ],
)
def test_a_candidate_for_nobody_and_nobody_for_a_candidate_are_wrong_usage(
    arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = CliRunner().invoke(application, ["control", "--listen", "127.0.0.1:0", *arguments])
    assert done.exit_code == code
    assert told in done.output


def test_a_status_without_a_control_plane_is_no_answer(tmp_path: Path) -> None:
    done = CliRunner().invoke(application, ["control", "status", "--admin", f"unix:{tmp_path}/none"])
    assert done.exit_code == 1
    assert "does not answer" in done.output
