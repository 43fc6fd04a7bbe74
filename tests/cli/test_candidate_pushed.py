"""``authz policies push --candidate`` and ``authz candidate … --to`` on a real server."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from authz.cli import application, candidate_pushed
from authz.cli.policy_push import prepare
from authz.service.workers.published import published_policies
from authz.service.workers.taken_report import server_name
from authz.settings.settings import Settings
from tests.nats_server import NatsServers, shared_servers

pytestmark = pytest.mark.slow  # real servers of the truth

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [METHOD]}}]}]}
"""
MESH = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: mesh.test"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: api, labels: {app: api}, ports: {http: 18080}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: 18080, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:18090"}]
"""


servers = shared_servers()


class Runner:
    def __init__(self, servers: NatsServers) -> None:
        self.servers, self.url = servers, str(servers.address)

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        done = CliRunner().invoke(application, [*map(str, arguments), "--to", self.url])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    def push(self, *arguments: object, code: int = 0) -> Result:
        return self(
            "policies", "push", "policies", "--key", "keys/bundle.key", "--author", "ann", *arguments, code=code
        )

    def candidate(self, *arguments: object, code: int = 0) -> Result:
        return self("candidate", *arguments, code=code)

    def promote(self, *arguments: object, code: int = 0) -> Result:
        return self.candidate("promote", "--key", "keys/bundle.key", "--author", "bob", *arguments, code=code)

    def status(self, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.candidate("status", "-o", "json", code=code).stdout)
        return found

    def fleet(self, *arguments: object, code: int | None = 0) -> Result:
        """None: any code."""
        done = CliRunner().invoke(application, ["fleet", "status", "--truth", self.url, *map(str, arguments)])
        assert code in (None, done.exit_code), done.output
        return done

    def until_fleet(self, text: str) -> str:
        """What it shows once this is in it."""
        until = time.monotonic() + 30
        while text not in (shown := self.fleet(code=None).stdout):
            assert time.monotonic() < until, shown
        return shown

    def in_force(self) -> str:
        out = Path(f"shown-{len(list(Path().glob('shown-*')))}")
        self("policies", "show", "--out", out)
        return (out / "policies/read.yaml").read_text().partition("methods: [")[2].partition("]")[0]

    def write(self, method: str) -> None:
        Path("policies/read.yaml").write_text(POLICY.replace("METHOD", method))


@pytest.fixture
def run(servers: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A new revision with a mesh description is in force, and no candidate."""
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("mesh.yaml").write_text(MESH)
    runner = Runner(servers)
    runner.write("GET")
    assert CliRunner().invoke(application, ["bundle", "keygen", "keys"]).exit_code == 0
    runner.push("--mesh", "mesh.yaml", "-m", "base")
    return runner


def test_a_candidate_has_a_number_of_its_own_and_becomes_a_revision_after_all_others(run: Runner) -> None:
    base = run.status()["revision"]
    run.write("PUT")
    said = run.push(
        "--candidate", "--canary", "5%", "--canary-workload", "api-v1", "--abort-above", "10%", "-m", "puts"
    )
    assert "changed  policies/read.yaml" in said.stdout
    assert (
        f"candidate {base + 1} is beside revision {base}, for 5% and api-v1, taken back above 10% in 60 s"
        in said.stdout
    )
    found = run.status()
    assert (found["revision"], found["candidate"], found["aborted"]) == (base, base + 1, None)
    assert found["terms"] == {
        "base": base, "share": "5%", "workloads": ["api-v1"], "abort_above": "10%", "abort_window": 60,
    }  # fmt: skip
    assert run.in_force() == "GET"
    assert "nothing is pushed" in run.promote("--dry-run").stdout
    assert f"revision {base + 2} is in force" in run.promote("-m", "no complaints").stdout
    assert run.in_force() == "PUT"
    assert run.status()["candidate"] is None
    shown = json.loads(run("policies", "show", "-o", "json").stdout)
    assert (shown["revision"], shown["promoted_from"]) == (base + 2, base + 1)
    assert "mesh.yaml" in shown["names"]
    lines = run("policies", "history").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [str(base + 2), str(base + 1), str(base)]
    assert f"promoted as {base + 2}" in lines[2]
    assert f"candidate {base + 1} of shop" in run("policies", "show", base + 1).stdout
    refused = run("policies", "rollback", base + 1, "--key", "keys/bundle.key", code=1)
    assert "it is a candidate" in refused.output


def test_what_is_taken_back_is_not_promoted_and_its_number_is_not_given_again(run: Runner) -> None:
    base = run.status()["revision"]
    run.write("PUT")
    assert "in shadow alone" in run.push("--candidate").stdout
    assert f"candidate {base + 1} is taken back" in run.candidate("abort", "-m", "locks ops out").stdout
    assert run.status(code=3)["aborted"]["reason"] == "locks ops out"
    assert "was taken back before" in run.candidate("abort", code=3).output
    assert "locks ops out" in run.promote(code=3).output
    assert "taken back" in run("policies", "history").stdout
    assert f"revision {base + 2} is in force" in run.push("--mesh", "mesh.yaml").stdout
    assert run.status()["candidate"] is None
    assert "there is no candidate" in run.candidate("abort", code=3).output


def test_a_push_ends_a_candidate_which_is_promoted_only_by_who_says_so(run: Runner) -> None:
    base = run.status()["revision"]
    run.write("PUT")
    run.push("--candidate", "--canary", "1%")
    run.write("POST")
    assert f"candidate {base + 1} is over" in run.push("--mesh", "mesh.yaml", "-m", "quick").stdout
    assert f"candidate {base + 1} is over; to promote it all the same" in run.promote(code=3).output
    assert "compared with revision" not in run.promote(base + 1, code=3).output
    assert f"revision {base + 2} is in force" in run.promote(base + 1, "--if-revision", base, code=3).output
    run.promote(base + 1, "--if-revision", base + 2)
    assert run.in_force() == "PUT"


def test_whoever_pushes_meanwhile_is_found_out_about(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    base = run.status()["revision"]
    run.write("PUT")
    run.push("--candidate")

    def late(*arguments: Any) -> Any:
        """Somebody takes it back between the comparison and the promotion."""
        run.candidate("abort", "-m", "quick")
        return prepare(*arguments)

    monkeypatch.setattr(candidate_pushed, "prepare", late)
    said = run.promote(code=3).output
    assert f"revision {base} is in force" in said
    assert "taken back by" in said
    assert run.status(code=3)["revision"] == base


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--candidate", "--canary-workload", "api-v9"), "the mesh has no workload `api-v9`"),
        (("--candidate", "--mesh", "other.yaml"), "a candidate changes policies alone"),
        (("--candidate", "--over-damaged"), "does not go with --over-damaged"),
        (("--canary", "5%"), "need --candidate"),
        (("--candidate", "--abort-above", "5%"), "for those that --canary"),
        (("--candidate", "--canary", "0%"), "a share is written as"),
    ],
)
def test_what_cannot_be_a_candidate_is_refused(run: Runner, arguments: tuple[str, ...], said: str) -> None:
    Path("other.yaml").write_text(MESH.replace("18080", "18081"))
    before = run.status()
    done = CliRunner().invoke(
        application, ["policies", "push", "policies", "--key", "keys/bundle.key", "--to", run.url, *arguments]
    )
    assert done.exit_code in (1, 2)
    assert said in " ".join(done.output.split())
    assert run.status() == before


def test_a_candidate_that_somebody_else_signed_is_not_promoted(run: Runner) -> None:
    run.write("PUT")
    run.push("--candidate")
    assert CliRunner().invoke(application, ["bundle", "keygen", "others"]).exit_code == 0
    refused = run.candidate("promote", "--key", "others/bundle.key", code=1)
    assert "none of the keys given here signed it" in refused.output
    run.candidate("promote", "--key", "others/bundle.key", "--public-key", "keys/bundle.pub")
    assert run.in_force() == "PUT"


@contextmanager
def served(run: Runner, **changes: Any) -> Iterator[str]:
    """A server that takes what is pushed; its name."""
    settings = Settings(policies=run.url, policies_public_keys=(Path("keys/bundle.pub"),), **changes)
    assert settings.policies_cache is not None
    with published_policies(settings, lambda _: None):
        yield server_name(socket.gethostname(), settings.policies_cache)


def test_who_has_a_candidate_is_waited_for_and_said_and_who_refuses_it_with_its_words(run: Runner) -> None:
    run.write("PUT")
    with served(run, policies_cache=Path("cache")) as name:
        said = run.push("--candidate", "--wait", 30)
        number = run.status()["candidate"]
        assert f"candidate {number}: 1 replica and 0 proxies have it" in said.stdout
        assert f"  {name}: in shadow\n" in run.candidate("status").stdout
        assert run.status()["replicas"] == [{"name": name, "kind": "serve", "state": "in shadow", "reason": None}]
        assert f"{number} in shadow" in run.fleet().stdout
        assert CliRunner().invoke(application, ["bundle", "keygen", "others"]).exit_code == 0
        _is_refused_with_its_words(run, name, "none of the keys given here signed it")
        run.candidate("abort", "-m", "by hand")
        shown = run.until_fleet(": by hand")
        assert f"{name}: candidate {number + 1} taken back: " in shown
        with served(run, policies_cache=Path("other"), candidate=Path("next")) as own:
            run.until_fleet("2 replicas")
            told = json.loads(run.push("--candidate", "--wait", 0.2, "-o", "json", code=3).stdout)
            assert not told["acknowledged"]
            assert own in told["without"]
            assert f"{own}: has said nothing of it" in run.candidate("status").stdout
            over = run.push("--mesh", "mesh.yaml", "--wait", 30)
            assert "2 replicas and 0 proxies have acknowledged it" in over.stdout
        run.until_fleet("CERTIFICATE UNTIL\n")  # the last column: there is none of candidates any more


def _is_refused_with_its_words(run: Runner, name: str, words: str) -> None:
    begun = time.monotonic()
    refused = run.push("--candidate", "--key", "others/bundle.key", "--wait", 60, code=3)
    assert time.monotonic() - begun < 30, "a refusal ends the wait"
    assert f"replica {name}: refused: candidate " in refused.stderr
    assert words in refused.stderr
    assert f"  {name}: refused: candidate " in run.candidate("status", code=3).stdout
    (replica,) = run.status(code=3)["replicas"]
    assert (replica["state"], words in replica["reason"]) == ("refused", True)
    shown = run.fleet(code=3).stdout
    assert words in shown.splitlines()[-1]
    told = json.loads(run.fleet("-o", "json", code=3).stdout)
    assert told["lagging"] == [name]
    assert told["replicas"][0]["candidate"]["state"] == "refused"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote",), "say which candidate"),
        (("abort", "--candidate", "x", "--to", "nats://127.0.0.1/shop"), "say which candidate"),
        (("promote", "--to", "nats://127.0.0.1/shop"), "--to needs --key"),
        (("promote", "--to", "nats://127.0.0.1/shop", "--policies", "x"), "`--policies` goes with --candidate"),
        (("promote", "3", "--candidate", "x", "--policies", "x"), "a number goes with --to"),
        (("promote", "--candidate", "x", "--policies", "x", "-m", "why"), "`--message` goes with --to"),
        (("promote", "--candidate", "x"), "--candidate needs --policies"),
        (("abort", "--candidate", "x", "--truth-name", "x"), "`--truth-name` goes with --to"),
        (("status", "--to", "nats://127.0.0.1/shop", "--admin", "127.0.0.1:1"), "`--admin` goes with a control plane"),
    ],
)
def test_options_of_the_other_candidate_are_not_ignored(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(application, ["candidate", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
