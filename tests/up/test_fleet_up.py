"""``authz fleet up``: what it prints is typed, and one proxy has joined a fleet of three controls."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from authz.local.busy import busy_ports
from authz.local.children import LocalError
from authz.up import fleet_supervisor
from authz.up.fleet_plan import MOST_REPLICAS, PORTS_EACH, plan_fleet
from authz.up.fleet_supervisor import FleetSupervisor
from tests.up.own import environment, until

pytestmark = [pytest.mark.envoy, pytest.mark.slow]
MESH = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: mesh.test"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: api, labels: {app: api}, ports: {http: PORT}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: PORT, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:9"}]
"""
POLICY = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""


def free_ports(number: int) -> int:
    for first in range(31_000, 60_000, 100):
        if not busy_ports(range(first, first + number)):
            return first
    raise AssertionError("no free ports")


def printed(said: str) -> str:
    """The commands by which a machine joins, as they are printed."""
    block = re.search(r"^Machine  .*\n((?: {9}.*\n)+)", said, re.MULTILINE)
    assert block is not None, said
    return block[1].replace("envoy -c envoy.yaml", "exec envoy -c envoy.yaml --disable-hot-restart -l warning")


def test_a_machine_joins_by_the_commands_that_are_printed_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    first = free_ports(PORTS_EACH * (MOST_REPLICAS + 1))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "strict.yaml").write_text(POLICY)
    (tmp_path / "mesh.yaml").write_text(MESH.replace("PORT", str(first)))
    log = tmp_path / "up.log"
    command = f"authz fleet up --mesh mesh.yaml --policies policies --replicas 3 --first-port {first}".split()
    with log.open("wb") as out:
        fleet = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, env=environment())
    machine: subprocess.Popen[bytes] | None = None
    try:
        assert until(lambda: "Ctrl-C" in log.read_text() or fleet.poll() is not None, 90)
        assert fleet.poll() is None, log.read_text()
        with (tmp_path / "machine.log").open("wb") as out:
            script = ["bash", "-ec", printed(log.read_text())]
            machine = subprocess.Popen(
                script, cwd=tmp_path, stdout=out, stderr=out, env=environment(), start_new_session=True
            )
        plan = plan_fleet(tmp_path / "fleet", "fleet", tmp_path / "mesh.yaml", tmp_path / "policies", 3, first)

        def is_current_somewhere() -> bool:
            return any(taken(replica.admin) for replica in plan.replicas)

        assert until(is_current_somewhere, 60), (log.read_text(), (tmp_path / "machine.log").read_text())
        fleet.send_signal(2)
        assert fleet.wait(60) == 0, log.read_text()
        assert busy_ports(plan.ports()) == ()
    finally:
        if machine is not None:
            subprocess.run(["kill", "--", f"-{machine.pid}"], check=False)
            machine.wait(30)
        if fleet.poll() is None:
            fleet.kill()
            fleet.wait(30)


def test_a_server_of_the_truth_that_is_too_old_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "mesh.yaml").write_text(MESH.replace("PORT", "80"))
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o755)
    monkeypatch.setattr(fleet_supervisor, "find_nats_server", lambda: str(old))
    plan = plan_fleet(tmp_path / "fleet", "fleet", tmp_path / "mesh.yaml", tmp_path / "policies", 3, 31_000)
    with pytest.raises(LocalError, match=r"2\.9\.10 is too old"):
        asyncio.run(FleetSupervisor(plan, lambda _: None).start())
    assert not plan.folder.exists()


def taken(admin: int) -> bool:
    """Whether a control says that the proxy has taken all that there is for it."""
    try:
        with urlopen(f"http://127.0.0.1:{admin}/fleet", timeout=5) as answer:
            (proxy,) = json.load(answer)["proxies"]
    except OSError:
        return False
    return bool(proxy["is_current"])
