"""The candidate decides in shadow: what differs is told and counted, and no answer depends on it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from click.testing import CliRunner

from authz.admin.health import judge_health
from authz.cli import application
from authz.core import resources as r
from authz.core.decision import Effect
from authz.core.errors import SettingsError
from authz.core.providers import ProviderAnswer
from authz.service.candidate import Candidate
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.pending import Pending
from authz.service.same_rules import SameRules
from authz.settings.sections import PolicySettings, TokenSettings
from authz.telemetry.status import ReloadStatus, ServiceStatus, TrailStatus
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySets, KeySetState
from authz.tokens.signing import jwks_text, make_keys, make_token
from tests.service.loading.test_reload import policy as text_of
from tests.service.loading.test_reload import until
from tests.service.messages import check_request, response
from tests.service.recording import Recorder
from tests.service.running import check_call
from tests.service.test_app import worker, write_policies
from tests.service.test_check_function import ALLOW_OPEN, CUSTOM, MESH, NOW, policy, rule, snapshot

KEYS = make_keys({"main": {"kty": "RSA", "kid": "main"}})
FETCHED: KeySets = {"uri:https://k": KeySetState(read_key_set(jwks_text(KEYS.values())), NOW)}
CLAIMS = {"iss": "https://i", "sub": "alice", "aud": "shop", "exp": int(NOW) + 600}
BEARER = [("authorization", f"Bearer {make_token({'key': 'main', 'claims': CLAIMS}, KEYS, NOW)}")]
ALLOW_ALL = policy(r.Action.ALLOW, r.Rule())
DENY_OPEN = policy(r.Action.DENY, rule(paths=("/open",)), name="shut")
BY_USER = policy(r.Action.ALLOW, r.Rule((r.Source(request_principals=("*",)),)), name="users")


def settings(folder: Path, candidate: Path | None = None) -> PolicySettings:
    return PolicySettings(str(folder / "policies"), None, False, None, candidate or folder / "next")


def tokens(**facts: Any) -> r.RequestAuthentication:
    written = {"issuer": "https://i", "jwks_uri": "https://k"} | facts
    return r.RequestAuthentication(r.Metadata("jwt", "shop"), r.Target(), (r.JwtRule(**written),))


def beside(live: Snapshot, shadow: Snapshot) -> tuple[CheckFunction, Candidate, Recorder]:
    audit = Recorder()
    function = CheckFunction(audit, DecisionIds(NOW, b"abc"), lambda: FETCHED)
    function.replace(live)
    candidate = Candidate(Path("next"), settings(Path()), function, lambda: NOW, 100)
    candidate.replace(shadow)
    return function, candidate, audit


def results(candidate: Candidate) -> dict[str, int]:
    return {name: number for name, number in candidate.status.results.items() if number}


@pytest.mark.parametrize(
    ("path", "code", "result", "told"),
    [
        ("/open", 0, "newly_denied", (Effect.DENY, "ns[shop]-policy[shut]-rule[0]")),
        ("/shut", 7, "newly_allowed", (Effect.ALLOW, "ns[shop]-policy[p]-rule[0]")),
    ],
)
def test_the_live_answer_stands_and_the_difference_is_told(
    path: str, code: int, result: str, told: tuple[Effect, str]
) -> None:
    function, candidate, audit = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_ALL, DENY_OPEN))
    assert response(function.check(check_request(path=path), (), NOW)).status.code == code
    found = audit.entries[0].candidate
    assert found is not None
    assert found.rule is not None
    assert (found.effect, found.rule.name) == told
    assert results(candidate) == {result: 1}


REORDERED = policy(r.Action.ALLOW, rule(paths=("/other",)), rule(paths=("/open",)))


@pytest.mark.parametrize(
    ("live", "shadow", "path", "result", "status"),
    [
        ((ALLOW_OPEN,), (REORDERED,), "/open", "other_rule", 0),
        (
            (ALLOW_OPEN,),
            (ALLOW_OPEN, policy(r.Action.DENY, rule(paths=("/shut",)), name="d")),
            "/shut",
            "other_rule",
            403,
        ),
        ((), (ALLOW_ALL,), "/open", "other_rule", 0),  # by default, now by a rule
    ],
)
def test_the_same_answer_for_another_reason_is_counted_by_itself(
    live: tuple[r.AuthorizationPolicy, ...],
    shadow: tuple[r.AuthorizationPolicy, ...],
    path: str,
    result: str,
    status: int,
) -> None:
    function, candidate, audit = beside(snapshot(*live), snapshot(*shadow))
    function.check(check_request(path=path), (), NOW)
    assert results(candidate) == {result: 1}
    found = audit.entries[0].candidate
    assert found is not None
    assert (found.result.value, found.status) == (result, status)


def test_another_status_is_counted_by_itself() -> None:
    required = policy(r.Action.DENY, rule(paths=("/open",)))
    live = snapshot(required, request_authentications=(tokens(issuer="https://other"),))
    function, candidate, audit = beside(live, snapshot(required))
    function.check(check_request(path="/open", headers=BEARER), (), NOW)
    assert results(candidate) == {"other_status": 1}
    found = audit.entries[0].candidate
    assert found is not None
    assert (found.status, audit.entries[0].decision.status) == (403, 401)


def test_differences_are_told_by_workload_and_rules_with_the_newest_decisions() -> None:
    function, candidate, audit = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_ALL, DENY_OPEN))
    for at, path in enumerate(("/open", "/shut", "/open", "/open", "/open")):
        function.check(check_request(path=path), (), NOW + at)
    first, second = candidate.status.differences
    assert (first.result, first.count, first.namespace, first.workload) == ("newly_denied", 4, "shop", "api-v1")
    assert (first.first_at, first.last_at) == (NOW, NOW + 4)
    assert first.decision_ids == tuple(entry.decision_id for entry in reversed(audit.entries[2:]))
    assert first.candidate_rule is not None
    assert first.candidate_rule.name == "ns[shop]-policy[shut]-rule[0]"
    assert (second.result, second.rule, second.count) == ("newly_allowed", None, 1)


def test_another_version_of_the_candidate_begins_anew() -> None:
    function, candidate, _ = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_ALL, DENY_OPEN))
    for _ in range(20):
        function.check(check_request(path="/open"), (), NOW)
    status = candidate.status
    assert (status.since, status.timed, status.of_version["newly_denied"]) == (NOW, 1, 20)
    assert 0 < status.own_seconds < 1
    assert status.check_seconds > 0
    candidate.replace(snapshot(ALLOW_OPEN))
    status = candidate.status
    assert (status.differences, status.timed, status.own_seconds) == ((), 0, 0.0)
    assert not any(status.of_version.values())
    assert results(candidate) == {"newly_denied": 20}


def test_kinds_of_differences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.service.candidate_differences.MAX_KINDS", 1)
    function, candidate, _ = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_ALL, DENY_OPEN))
    for path in ("/open", "/shut", "/shut"):
        function.check(check_request(path=path), (), NOW)
    assert (len(candidate.status.differences), candidate.status.uncounted) == (1, 2)


def test_the_same_answer_leaves_no_trace_in_the_record() -> None:
    function, candidate, audit = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_OPEN))
    for path in ("/open", "/shut"):
        function.check(check_request(path=path), (), NOW)
    assert [entry.candidate for entry in audit.entries] == [None, None]
    assert results(candidate) == {"same": 2}


def test_answers_are_byte_for_byte_those_without_a_candidate() -> None:
    live = snapshot(ALLOW_OPEN, request_authentications=(tokens(forward_original_token=True),))
    function, _, _ = beside(live, snapshot(DENY_OPEN))
    alone = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"), lambda: FETCHED)
    alone.replace(live)
    for path in ("/open", "/shut"):
        message = check_request(path=path, headers=BEARER)
        assert function.check(message, (), NOW) == alone.check(message, (), NOW)


def test_a_failing_candidate_is_counted_and_nobody_notices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    function, candidate, audit = beside(snapshot(ALLOW_OPEN), snapshot(DENY_OPEN))

    def fail(*_: object) -> None:
        raise RuntimeError("x-secret")

    monkeypatch.setattr("authz.service.candidate.evaluate", fail)
    assert response(function.check(check_request(path="/open"), (), NOW)).status.code == 0
    assert (results(candidate), function.failures, audit.entries[0].candidate) == ({"failed": 1}, 0, None)
    assert "x-secret" not in caplog.text


def test_a_request_that_no_policy_judged_is_not_compared() -> None:
    function, candidate, audit = beside(snapshot(ALLOW_OPEN), snapshot(ALLOW_ALL))
    function.check(b"\xff", (), NOW)
    assert (results(candidate), audit.entries[0].candidate) == ({}, None)


@pytest.mark.parametrize(
    ("ours", "result"),
    [
        (tokens(), {"same": 1}),
        (tokens(audiences=("shop",)), {"same": 1}),
        (tokens(audiences=("bank",)), {"newly_denied": 1}),
        (tokens(jwks_uri="https://nobody-fetches"), {"undecided": 1}),
        (tokens(jwks_uri="", jwks=jwks_text(KEYS.values())), {"same": 1}),
        (tokens(introspection=None, issuer="https://other"), {"newly_denied": 1}),
    ],
)
def test_a_token_is_judged_by_the_candidates_rules_with_the_keys_that_were_fetched(
    ours: r.RequestAuthentication, result: dict[str, int]
) -> None:
    live = snapshot(BY_USER, request_authentications=(tokens(),))
    function, candidate, _ = beside(live, snapshot(BY_USER, request_authentications=(ours,)))
    assert response(function.check(check_request(headers=BEARER), (), NOW)).status.code == 0
    assert results(candidate) == result


def test_the_same_rules_verify_a_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = (tokens(),)
    function, candidate, _ = beside(
        snapshot(BY_USER, request_authentications=rules), snapshot(BY_USER, request_authentications=rules)
    )

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was judged already")

    monkeypatch.setattr("authz.service.candidate.authenticate", fail)
    function.check(check_request(headers=BEARER), (), NOW)
    assert results(candidate) == {"same": 1}


def test_rules_are_the_same_whatever_they_are_called() -> None:
    same = SameRules()
    (one,), (other,) = tokens(name="a").jwt_rules, tokens(name="b").jwt_rules
    assert same((one,), (other,))
    assert not same((one,), tokens(audiences=("x",)).jwt_rules)
    assert not same((one,), ())


@pytest.mark.parametrize(
    ("live", "shadow", "answer", "result"),
    [
        ((ALLOW_OPEN, CUSTOM), (ALLOW_OPEN, CUSTOM), ProviderAnswer(True), {"same": 1}),
        ((ALLOW_OPEN, CUSTOM), (ALLOW_OPEN, CUSTOM), ProviderAnswer(False), {"same": 1}),
        ((ALLOW_OPEN, CUSTOM), (ALLOW_OPEN,), ProviderAnswer(False), {"newly_allowed": 1}),
        ((ALLOW_OPEN, CUSTOM), (DENY_OPEN, CUSTOM), ProviderAnswer(True), {"newly_denied": 1}),
        ((ALLOW_OPEN,), (ALLOW_OPEN, CUSTOM), None, {"undecided": 1}),
    ],
)
def test_a_provider_is_asked_once_and_only_for_the_live_set(
    live: tuple[r.AuthorizationPolicy, ...],
    shadow: tuple[r.AuthorizationPolicy, ...],
    answer: ProviderAnswer | None,
    result: dict[str, int],
) -> None:
    function, candidate, _ = beside(snapshot(*live, mesh=MESH), snapshot(*shadow, mesh=MESH))
    found = function.check(check_request(path="/open"), (), NOW)
    if answer is not None:
        assert isinstance(found, Pending)
        found = found.resume(answer, NOW)
    assert isinstance(found, bytes)
    assert results(candidate) == result


@asynccontextmanager
async def followed(folder: Path) -> AsyncIterator[tuple[Candidate, CheckFunction]]:
    function = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"))
    function.replace(snapshot(ALLOW_OPEN))
    candidate = Candidate(folder / "next", settings(folder), function, lambda: NOW, 100)
    task = asyncio.create_task(candidate.run())
    try:
        yield candidate, function
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.slow
async def test_a_candidate_comes_is_broken_is_mended_and_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with followed(tmp_path) as (candidate, function):
        assert (candidate.status.reload, function.shadow) == (ReloadStatus(), None)
        (tmp_path / "next").mkdir()
        (tmp_path / "next" / "deny.yaml").write_text(text_of("deny", "DENY", "/open"))
        await until(lambda: function.shadow is candidate, 30)
        version = candidate.status.reload.policy_version
        assert response(function.check(check_request(path="/open"), (), NOW)).status.code == 0
        assert results(candidate) == {"newly_denied": 1}

        (tmp_path / "next" / "deny.yaml").write_text(text_of("deny", "DENI", "/open"))
        await until(lambda: not candidate.status.reload.is_ok, 30)
        assert (candidate.status.reload.policy_version, function.shadow) == (version, candidate)
        assert f"the candidate's policies were not loaded, version {version} stays the candidate" in caplog.text
        trail = TrailStatus(0, 1, 0, 0, 0, 0, (), "", is_running=True)
        status = ServiceStatus(ReloadStatus("v1"), candidate=candidate.status)
        (cause,) = judge_health(status, trail, NOW).causes
        assert (cause.part, cause.blocks) == ("candidate", False)
        assert "deny.yaml:6" in cause.message

        (tmp_path / "next" / "deny.yaml").write_text(text_of("deny", "DENY", "/open"))
        await until(lambda: candidate.status.reload.is_ok, 30)
        (tmp_path / "next").rename(tmp_path / "gone")
        await until(lambda: function.shadow is None, 30)
        assert candidate.status.reload == ReloadStatus()
        snapshot_in_force = function.snapshot
        assert snapshot_in_force is not None
        assert snapshot_in_force.version == "v1"


@pytest.mark.parametrize("candidate", ["policies", "policies/next", "."])
def test_a_candidate_that_would_be_read_with_the_live_set_is_refused(tmp_path: Path, candidate: str) -> None:
    function = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"))
    with pytest.raises(SettingsError, match="lie one within the other"):
        Candidate.of(settings(tmp_path, tmp_path / candidate), TokenSettings(1000, 10), function, lambda: NOW)


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    function = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"))
    none = PolicySettings(str(tmp_path), None, False, None, None)
    assert Candidate.of(none, TokenSettings(1000, 10), function, lambda: NOW) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two directories change places")
async def test_a_server_decides_in_shadow_until_the_candidate_is_promoted(tmp_path: Path) -> None:
    policies, log, address = write_policies(tmp_path), tmp_path / "audit.jsonl", f"unix:{tmp_path}/authz.sock"
    folder = tmp_path / "next"
    flags = ["--policies", str(policies), "--candidate", str(folder), "--listen", address, "--admin", "127.0.0.1:0"]
    async with worker(*flags, "--audit", f"file:{log}") as service:
        admin = await service.says(r"admin     (\S+)/healthz")
        await service.says("health is SERVING")
        async with grpc.aio.insecure_channel(address) as channel, httpx.AsyncClient(trust_env=False) as http:

            async def code() -> int:
                return response(await check_call(channel)(check_request(path="/open"))).status.code

            folder.mkdir()
            (folder / "allow.yaml").write_text(text_of("allow", "ALLOW", "/other"))
            version = await service.says(r"policy version (\w+) is the candidate")
            assert await code() == 0
            metrics = (await http.get(f"{admin}/metrics")).text
            assert 'authz_candidate_decisions_total{result="newly_denied"} 1.0' in metrics
            assert f'authz_candidate_info{{version="{version}"}} 1.0' in metrics
            command = ["candidate", "promote", "--candidate", str(folder), "--policies", str(policies)]
            done = await asyncio.to_thread(CliRunner().invoke, application, command)
            assert done.exit_code == 0, done.output
            for _ in range(2):  # in either order
                await service.says(f"policy version {version} is in force|is gone: nothing decides in shadow")
            assert await code() == 7
        service.process.send_signal(signal.SIGTERM)
        await service.says("stopped")
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["effect"], first["candidate_effect"], first["candidate_rule"]) == ("allow", "deny", None)
    assert first["candidate_result"] == "newly_denied"
    assert (second["effect"], "candidate_effect" in second) == ("deny", False)
