"""``authz policies push`` on a real cluster that loses its majority: before, during and after the swap."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import read_bundle
from authz.cli import application, policy_publishing
from authz.truth import truth_client
from authz.truth.policy_revisions import PolicyRevisions
from authz.truth.truth_bucket import TruthBucket
from authz.truth.truth_client import TruthAway, TruthRefused
from tests.nats_server import NatsServers, shared_servers

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [METHOD]}}]}]}
"""
OTHERS = (1, 2)
pytestmark = pytest.mark.slow  # three servers elect a leader, three times
BOUND_SECONDS = 30.0
"""For a push that fails; that it ends is the point, not how fast this machine is."""


servers = shared_servers(3)


class Pushing:
    def __init__(self, servers: NatsServers, monkeypatch: pytest.MonkeyPatch) -> None:
        self._servers, self._monkeypatch = servers, monkeypatch

    def __call__(self, method: str, code: int) -> Result:
        Path("policies/read.yaml").write_text(POLICY.replace("METHOD", method))
        told = ["policies", "push", "policies", "--key", "keys/bundle.key", "--to", str(self._servers.address)]
        began = time.monotonic()
        done = CliRunner().invoke(application, told)
        assert time.monotonic() - began < BOUND_SECONDS
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    def lose(self) -> None:
        for number in OTHERS:
            self._servers.kill(number)

    def regain(self) -> None:
        for number in OTHERS:
            self._servers.start(number)

    def before(self, kind: type, name: str, also: Callable[[], None]) -> None:
        """Do something just before the next call of a method."""
        method = getattr(kind, name)

        def called(*arguments: Any) -> Any:
            self._monkeypatch.setattr(kind, name, method)
            also()
            return method(*arguments)

        self._monkeypatch.setattr(kind, name, called)

    def in_force(self) -> tuple[int, str]:
        """Once there is a majority: the number, and the method that the whole and signed set of it has."""
        ends = time.monotonic() + BOUND_SECONDS
        while True:
            try:
                with self._servers.client() as client:
                    revisions = PolicyRevisions(client)
                    found = revisions.head()
                    assert found is not None
                    bundle = read_bundle(revisions.archive(found.head, MAX_PACKED_BYTES))
            except (TruthAway, TruthRefused):
                assert time.monotonic() < ends
                time.sleep(0.1)
            else:
                assert bundle.manifest.revision == found.head.number
                text = bundle.files["policies/read.yaml"].decode()
                return found.head.number, text.rpartition("[")[2].partition("]")[0]


@pytest.fixture
def push(servers: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pushing:
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    assert CliRunner().invoke(application, ["bundle", "keygen", "keys"]).exit_code == 0
    monkeypatch.setattr(truth_client, "CALL_SECONDS", 1.0)
    return Pushing(servers, monkeypatch)


def test_a_push_whose_majority_comes_back_is_in_force_once(push: Pushing) -> None:
    push("GET", 0)
    number, _ = push.in_force()
    timer = threading.Timer(1.0, push.regain)

    def lose() -> None:
        push.lose()
        timer.start()

    push.before(TruthBucket, "update", lose)
    done = push("POST", 0)
    timer.join(BOUND_SECONDS)
    assert "trying again" in done.stderr
    assert push.in_force() == (number + 1, "POST")


def test_a_push_without_a_majority_fails_and_says_what_is_in_force_afterwards(
    push: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    push("GET", 0)
    before = push.in_force()
    assert before[1] == "GET"
    with monkeypatch.context() as patched:
        patched.setattr(policy_publishing, "SETTLE_SECONDS", 0.5)
        push.before(PolicyRevisions, "publish", push.lose)
        assert "nothing was pushed" in push("PUT", 1).stderr, "it was lost before the archive was there"
        assert "nothing was pushed" in push("PUT", 1).stderr, "it was lost before the comparison"
    push.regain()
    assert push.in_force() == before
    push("HEAD", 0)  # every bucket has a leader again
    number = before[0] + 1
    with monkeypatch.context() as patched:
        patched.setattr(policy_publishing, "SETTLE_SECONDS", 3.0)
        push.before(TruthBucket, "update", push.lose)
        said = push("PUT", 1).stderr
    assert f"nobody knows whether revision {number + 1} is in force" in said
    assert "authz policies history" in said
    push.regain()
    assert push.in_force() in ((number, "HEAD"), (number + 1, "PUT"))
