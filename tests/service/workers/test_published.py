"""``authz serve`` with policies that are published elsewhere: real processes, a real bundle, real loading."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.cli import application
from authz.core.errors import SettingsError
from authz.settings.precedence import read_settings
from tests.sources.published.published import KEY, Replica

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{to: [{operation: {paths: ["%s"]}}]}]}
"""
PEERS = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n"
MESH = "trustDomain: shop.example\n"
PATIENCE_SECONDS = 120.0
"""A busy machine is no finding."""


def publish(folder: Path, revision: int, policy: str, mesh: str = "") -> None:
    files = {"policies/read.yaml": policy.encode()} | ({"mesh.yaml": mesh.encode()} if mesh else {})
    new = folder / "new.tar.gz"
    new.write_bytes(sign_bundle(build_bundle(files, fleet="shop", revision=revision, created=int(time.time())), KEY))
    new.rename(folder / "shop.tar.gz")


class Server:
    """A running server and what it says about itself."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._log = folder / f"log-{workers}"
        self._admin = f"unix:{folder}/admin.sock"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
        arguments = [
            *("serve", "--server", "grpcio", "--listen", f"unix:{folder}/authz.sock", "--admin", self._admin),
            *("--policies", f"file://{folder}/shop.tar.gz", "--policies-cache", f"{folder}/cache"),
            *("--policies-fleet", "shop", "--policies-public-keys", f"{folder}/bundle.pub"),
            *("--audit", "none", "--drain-delay-seconds", "0", "--workers", str(workers)),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "authz", *arguments],
                env=environment | {"AUTHZ_POLICIES_POLL_SECONDS": "1"},
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def comes_to(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What ``authz status`` says when it holds."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log
            said = CliRunner().invoke(application, ["status", "--admin", self._admin, "-o", "json"]).stdout
            found: dict[str, Any] = json.loads(said) if said else {}
            if found.get("ready") and holds(found):
                return found
            time.sleep(0.1)
        raise AssertionError(self.log)


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[Server]:
    server = Server(folder, workers)
    try:
        yield server
        server.process.terminate()
        assert server.process.wait(PATIENCE_SECONDS) == 0
    finally:
        server.process.kill()
        server.process.wait(30)


def test_workers_follow_a_bundle_keep_the_last_good_one_and_start_from_it_without_its_source(tmp_path: Path) -> None:
    with Replica(tmp_path, f"file://{tmp_path}/none").running(begin=False):
        """Its directory has the public key."""
    publish(tmp_path, 1, POLICY % "/one")
    source = f"file://{tmp_path}/shop.tar.gz"
    with serving(tmp_path, 2) as server:
        first = server.comes_to(lambda found: len(found["policy_versions"]) == 2)
        assert first["published"] == [{"source": source, "revision": "1"}]
        publish(tmp_path, 2, POLICY % "/two", mesh=MESH)
        second = server.comes_to(lambda found: not set(found["policy_versions"]) & set(first["policy_versions"]))
        assert second["published"] == [{"source": source, "revision": "2"}]
        assert len(set(second["policy_versions"])) == 1
        publish(tmp_path, 3, POLICY.replace("paths", "pathz") % "/three")
        third = server.comes_to(lambda found: bool(found["causes"]))
        assert third["policy_versions"] == second["policy_versions"]
        publish(tmp_path, 4, PEERS, MESH)
        lost = server.comes_to(lambda found: "is gone, and without one" in str(found["causes"]))
        assert lost["policy_versions"] == second["policy_versions"]
        assert re.search(
            "revision 2 stays: its policies are refused, .*read.yaml:4:.*pathz", third["causes"][0]["message"]
        )
    (tmp_path / "shop.tar.gz").unlink()
    with serving(tmp_path, 1) as server:
        again = server.comes_to(lambda found: True)
        assert set(again["policy_versions"]) == set(second["policy_versions"])
        assert "revision 2 stays, as it was kept on disk: " in again["causes"][0]["message"]
        assert "revision 2, kept on disk, the source does not deliver" in server.log


def test_a_server_without_source_and_cache_does_not_start(tmp_path: Path) -> None:
    with Replica(tmp_path, f"file://{tmp_path}/none").running(begin=False):
        """Its directory has the public key."""
    server = Server(tmp_path, 1)
    assert server.process.wait(PATIENCE_SECONDS) == 1
    assert "nothing is kept in" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"policies_fleet": "shop"}, "`policies_fleet` is for policies that are published, and `policies` is a path"),
        ({"policies": "https://h/b", "policies_poll_seconds": 0}, "setting `policies_poll_seconds`"),
    ],
)
def test_settings_of_published_policies_are_for_those(told: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings(told, environment={})
