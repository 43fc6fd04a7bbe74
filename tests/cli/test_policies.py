"""``authz policies`` and ``authz truth`` on a real server: pushed, refused, raced, rolled back, without an answer."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from authz.bundles.whole_bundle import build_bundle
from authz.cli import application, policy_publishing, policy_push
from authz.core.spiffe import SpiffeId
from authz.identity.ca import CertificateAuthority
from authz.truth import server_version
from authz.truth.policy_head import PolicyHead
from authz.truth.policy_revisions import HEAD, PolicyRevisions
from authz.truth.server_configuration import SERVER_PATH
from authz.truth.server_reporter import ServerReporter, TakenState
from authz.truth.truth_bucket import POLICIES, TruthBucket
from authz.truth.truth_client import TruthAway, TruthChanged
from tests.nats_server import NatsServers, shared_servers, truth_servers

pytestmark = pytest.mark.slow  # real servers of the truth

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [METHOD]}}]}]}
"""


servers = shared_servers()


@pytest.fixture
def run(servers: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Runner":
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    runner = Runner(servers)
    runner.write("GET")
    assert CliRunner().invoke(application, ["bundle", "keygen", "keys"]).exit_code == 0
    return runner


class Runner:
    def __init__(self, servers: NatsServers) -> None:
        self.url = str(servers.address)

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        done = CliRunner().invoke(application, [*map(str, arguments), "--to", self.url])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    def push(self, *arguments: object, code: int = 0) -> Result:
        return self("policies", "push", "policies", "--key", "keys/bundle.key", *arguments, code=code)

    def number(self) -> int:
        told: dict[str, Any] = json.loads(self("policies", "history", "-o", "json").stdout)
        return int(told["revisions"][0]["revision"]) if told["revisions"] else 0

    def write(self, method: str) -> None:
        Path("policies/read.yaml").write_text(POLICY.replace("METHOD", method))


def test_a_set_is_pushed_changed_and_rolled_back(run: Runner) -> None:
    assert "nothing was pushed yet" in run("policies", "history").stdout
    assert "nothing is pushed" in run.push("--dry-run").stdout
    assert run.number() == 0
    said = run.push("--author", "ann", "-m", "first ones", "--if-revision", 0).stdout
    assert "added    policies/read.yaml" in said
    assert "revision 1 is in force" in said
    run.write("POST")
    told = json.loads(run.push("--author", "bob", "-m", "write\nmore", "-o", "json", "--expires", "30d").stdout)
    assert (told["revision"], told["pushed"], told["author"], told["changed"]) == (2, True, "bob", 1)
    assert told["changes"] == {"added": [], "changed": ["policies/read.yaml"], "removed": []}
    assert not told["diff"]["equal"]
    assert (
        "rollback to revision 1: no"
        in run(
            "policies", "rollback", 1, "--key", "keys/bundle.key", "-m", "no", "--author", "eve", "-o", "json"
        ).stdout
    )
    shown = json.loads(run("policies", "show", "-o", "json").stdout)
    assert (shown["revision"], shown["rollback_of"], shown["fleet"]) == (3, 1, "shop")
    run("policies", "show", 3, "--out", "three")
    assert Path("three/policies/read.yaml").read_text() == POLICY.replace("METHOD", "GET")
    lines = run("policies", "history").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert "write" in run("policies", "show", 2).stdout


def test_a_head_that_cannot_be_read_is_replaced_by_whoever_says_so(run: Runner, servers: NatsServers) -> None:
    run.push("-m", "good")
    number = run.number()
    with servers.client() as client:
        TruthBucket(client, POLICIES).put(HEAD, b'{"number": 1, "number": 2}')
    run.write("PUT")
    assert "--over-damaged" in run.push("-m", "no", code=1).output
    assert "changed  policies/read.yaml" in run.push("-m", "mended", "--over-damaged").stdout
    assert run.number() == number + 1


def test_who_comes_second_is_told_who_came_first(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    run.push("--author", "ann", "-m", "mine")
    number = run.number()
    refused = run.push("--if-revision", number - 1, code=3)
    assert f"revision {number} is in force, pushed by ann" in refused.stderr
    prepare = policy_push.prepare

    def late(*arguments: Any) -> Any:
        """Somebody pushes between the comparison and the push."""
        monkeypatch.setattr(policy_push, "prepare", prepare)
        run.push("--author", "bob", "-m", "quick")
        return prepare(*arguments)

    monkeypatch.setattr(policy_push, "prepare", late)
    refused = run.push("--author", "ann", code=3)
    assert f"revision {number + 1} is in force, pushed by bob" in refused.stderr
    assert "quick" in refused.stderr
    assert run.number() == number + 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_push_without_an_answer_is_found_out_about(
    run: Runner, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    before = run.number()
    publish = PolicyRevisions.publish

    def lost(revisions: PolicyRevisions, *arguments: Any) -> None:
        """The first answer is lost, whether or not the push was."""
        monkeypatch.setattr(PolicyRevisions, "publish", publish)
        if is_kept:
            publish(revisions, *arguments)
        raise TruthAway("no answer")

    monkeypatch.setattr(PolicyRevisions, "publish", lost)
    said = run.push()
    assert "no answer; trying again" in said.stderr
    assert f"revision {before + 1} is in force" in said.stdout
    assert run.number() == before + 1


def test_a_swap_refused_by_servers_that_do_not_agree_yet_is_tried_again(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.number()
    publish = PolicyRevisions.publish

    def early(revisions: PolicyRevisions, *_: object) -> None:
        """As after an election: refused, and what was in force still is."""
        monkeypatch.setattr(PolicyRevisions, "publish", publish)
        raise TruthChanged("somebody else changed it meanwhile")

    monkeypatch.setattr(PolicyRevisions, "publish", early)
    assert "do not agree yet; trying again" in run.push().stderr
    assert run.number() == before + 1


def test_when_nobody_ever_answers_nobody_knows(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise TruthAway("no answer")

    monkeypatch.setattr(policy_publishing, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(PolicyRevisions, "publish", lost)
    assert "nobody knows whether revision" in run.push(code=1).output


def test_what_is_wrong_is_refused_before_anything_is_pushed(run: Runner, servers: NatsServers) -> None:
    run.push()
    before = run.number()
    Path("broken.yaml").write_text(POLICY.replace("rules", "rulez"))
    Path("mesh.yaml").write_text("rootNamespace: istio-system\n")
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (("policies", "push", "broken.yaml", "--key", "keys/bundle.key"), 1, "broken.yaml:4:"),
        (("policies", "push", "policies"), 2, "--key is needed, or --dry-run"),
        (("policies", "push", "policies", "--key", "keys/bundle.pub"), 1, "a private key that others may read"),
        (("policies", "push", "policies", "--dry-run", "--traffic", "policies"), 2, "--traffic is read together"),
        (("policies", "show", 999), 1, "there is no revision 999: revisions 1 to"),
        (("policies", "rollback", 1), 2, "--key is needed"),
    ]
    for arguments, code, said in cases:
        assert said in run(*arguments, code=code).output
    assert run.number() == before
    run.push("--mesh", "mesh.yaml")
    assert "without --mesh it would be lost" in run.push(code=1).output
    forged = build_bundle({"policies/a.yaml": b"kind: X\n"}, fleet="shop", revision=before + 2, created=1)
    with servers.client() as client:
        import hashlib

        revisions = PolicyRevisions(client)
        head = PolicyHead(before + 2, hashlib.sha256(forged).hexdigest(), 1, "eve", "", 1)
        revisions.publish(head, forged, revisions.head())
    refused = run("policies", "rollback", before + 2, "--key", "keys/bundle.key", code=1)
    assert "nobody signed it" in refused.output


def test_a_truth_is_configured_made_and_looked_at(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke = CliRunner().invoke
    told = ["truth", "config", "--fleet", "shop", "--name", "one", "--store", "store"]
    plain = invoke(application, [*told, "--local"])
    assert 'listen: "127.0.0.1:4222"' in plain.stdout
    assert "tls {" not in plain.stdout
    assert "or --local" in invoke(application, told).output
    files = ["--ca", "a", "--cert", "b", "--key", "c", "--trust-domain", "mesh.test"]
    whole = invoke(application, [*told, *files, "--cluster", "0.0.0.0:6222", "--route", "two.example:6222"])
    assert "exactly one --route" in whole.stderr, "the certificate is not there"
    ca = CertificateAuthority.create("mesh.test", time.time())
    own = SpiffeId(ca.trust_domain, SERVER_PATH)
    (tmp_path / "own.crt").write_bytes(ca.issue_svid(own, time.time(), dns=("truth", "two.example")).chain_pem)
    files[3] = str(tmp_path / "own.crt")
    routes = ["--route", "one.example:6222", "--route", "two.example:6222"]
    whole = invoke(application, [*told, *files, "--cluster", "0.0.0.0:6222", *routes])
    assert 'advertise: "two.example:6222"' in whole.stdout
    assert not whole.stderr
    for said in ('user: "spiffe://mesh.test/authz/reader"', "verify_and_map: true", '"nats://two.example:6222"'):
        assert said in whole.stdout
    assert "made the stream of records" in run("truth", "init").stdout
    assert "everything is there" in run("truth", "init").stdout
    assert "1, 3 or 5" in run("truth", "init", "--replicas", 2, code=2).output
    well = json.loads(run("truth", "status", "-o", "json").stdout)
    assert well["ok"]
    assert {"policies", "security", "archives"} <= {one["bucket"] for one in well["buckets"]}
    assert plain.stdout.startswith("# for nats-server 2.10.21 or newer\n")
    with monkeypatch.context() as later:
        later.setattr(server_version, "LEAST_SERVER", (99, 0, 0))
        assert "is too old: 99.0.0 or newer is needed" in run("truth", "init", code=1).output
        assert "is too old" in run("truth", "status", code=3).stdout
    run.url = run.url.replace("/shop", "/other")
    assert "authz truth init" in run("truth", "status", code=3).stdout
    assert "make it with `authz truth init`" in run("policies", "history", code=1).output


def test_a_push_waits_until_all_that_live_have_it_or_says_who_has_not(run: Runner, tmp_path: Path) -> None:
    with truth_servers(tmp_path / "truth") as servers, servers.client() as client:
        run = Runner(servers)
        nobody = run.push("--wait", 0.1, code=3)
        assert "revision 1 is in force" in nobody.stdout
        assert "no replica has reported what it runs" in nobody.stderr
        reporter = ServerReporter(client, "vm-3", lambda: TakenState("2", time.time()))
        reporter.begin()
        run.write("PATCH")
        told = run.push("--wait", 30)
        assert "revision 2: 1 replica and 0 proxies have acknowledged it" in told.stdout
        run.write("PUT")
        late = run.push("--wait", 0.1, "-o", "json", code=3)
        assert [json.loads(late.stdout)[name] for name in ("acknowledged", "without")] == [False, ["vm-3"]]
        run.write("GET")
        assert "replica vm-3: has revision 2" in run.push("--wait", 0.1, code=3).stderr
        reporter.stop()
