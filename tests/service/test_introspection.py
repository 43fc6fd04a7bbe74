"""An opaque token on its way through the whole check: real gRPC, a real endpoint, the record."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from authz._proto import ext_authz_pb2 as pb
from authz.audit.writer import build_record
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import load_snapshot
from authz.service.questions import Questions
from authz.sources.introspection.introspector import Introspector
from authz.tokens.json_text import read_object
from tests.service.doors.opened import WHOLE
from tests.service.messages import check_request, response, told
from tests.service.recording import Recorder
from tests.service.running import NOW, Ask, check_call, serving
from tests.service.test_app import worker
from tests.sources.introspection.endpoint import CLIENT, SECRET, Endpoint, endpoint

POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: "https://issuer.test", outputClaimToHeaders: [{header: x-sub, claim: sub}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who-may, namespace: shop}
spec:
  rules:
  - from: [{source: {requestPrincipals: ["https://issuer.test/alice"]}}]
    when:
    - {key: "request.auth.claims[scope]", values: [read]}
    - {key: request.auth.presenter, values: [app]}
"""
ALICE = {"active": True, "sub": "alice", "scope": "read write", "client_id": "app"}


def mesh_text(served: Endpoint, folder: Path) -> str:
    entry = {
        "issuer": "https://issuer.test",
        "endpoint": served.url,
        "clientId": CLIENT,
        "clientSecretFile": str(folder / "secret"),
        "timeout": "20s",
    }
    return json.dumps({"tokenIntrospection": [entry]})


class Bench:
    """A check function that asks a real endpoint, and calls to it."""

    def __init__(self, served: Endpoint, records: Recorder, call: Ask) -> None:
        self.served, self.records, self.call = served, records, call

    async def __call__(self, token: str = "") -> pb.CheckResponse:
        headers = [("authorization", f"Bearer {token}")] if token else []
        return response(await self.call(check_request(path="/", headers=headers)))


def written(served: Endpoint, folder: Path) -> tuple[Path, Path]:
    (folder / "secret").write_text(SECRET)
    (folder / "policies.yaml").write_text(POLICIES)
    (folder / "mesh.yaml").write_text(mesh_text(served, folder))
    return folder / "policies.yaml", folder / "mesh.yaml"


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with endpoint() as served:
        served.answers["opaque-alice"] = ALICE
        snapshot = load_snapshot(*written(served, folder), 0.0)
        introspector = Introspector(read_object, clock=lambda: NOW)
        introspector.update(snapshot.mesh.introspections)
        questions = Questions(introspector)
        records = Recorder()
        function = CheckFunction(records, DecisionIds(NOW, b"abc"), remembered=introspector.remembered)
        function.replace(snapshot)
        async with serving(function, ask=questions.ask) as (_, channel):
            yield Bench(served, records, check_call(channel))
        await questions.close()


async def test_claims_of_an_opaque_token_decide_and_reach_the_application(tmp_path: Path) -> None:
    async with bench(tmp_path) as check:
        answer = await check("opaque-alice")
        assert answer.status.code == 0
        set_ = {option.header.key: option.header.value for option in answer.ok_response.headers}
        assert set_ == {"x-sub": "alice"}
        assert list(answer.ok_response.headers_to_remove) == ["authorization"]


async def test_the_second_request_waits_for_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as check:
        for _ in range(3):
            assert (await check("opaque-alice")).status.code == 0
        assert check.served.asked == ["opaque-alice"]
        assert [entry.cache_hit for entry in check.records.entries] == [False, True, True]
        assert check.records.entries[0].timings[0].name == "introspection.ask"


async def test_requests_that_come_together_ask_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as check:
        check.served.gate = asyncio.Event()
        together = [asyncio.create_task(check("opaque-alice")) for _ in range(10)]
        await check.served.until_asked(1)
        check.served.gate.set()
        answers = await asyncio.gather(*together)
        assert {answer.status.code for answer in answers} == {0}
        assert len(check.served.asked) == 1


@pytest.mark.parametrize(
    ("token", "answer", "status", "reason"),
    [
        ("", ALICE, 403, "no ALLOW rule matched"),
        ("unknown", ALICE, 401, "https://issuer.test says so of token"),
        ("opaque", {**ALICE, "sub": "bob"}, 403, "no ALLOW rule matched"),
        ("opaque", {**ALICE, "scope": "write"}, 403, "no ALLOW rule matched"),
        ("opaque", {**ALICE, "exp": NOW - 100}, 401, "Jwt is expired"),
        ("opaque", {**ALICE, "iss": "https://evil.test"}, 401, "Jwt issuer is not configured"),
        ("opaque", b"<html>", 503, "does not say: the answer is not a JSON object"),
    ],
)
async def test_everything_else_is_refused(token: str, answer: object, status: int, reason: str, tmp_path: Path) -> None:
    async with bench(tmp_path) as check:
        check.served.answers["opaque"] = answer
        refused = await check(token)
        assert refused.denied_response.status.code == status
        assert reason in told(refused)["reason"]
        assert "opaque" not in told(refused)["reason"]


async def test_the_record_says_that_the_issuer_was_asked_and_holds_no_token(tmp_path: Path) -> None:
    async with bench(tmp_path) as check:
        await check("opaque-alice")
        await check("opaque-mallory")
        records = [build_record(entry) for entry in check.records.entries]
    token = records[0]["token"]
    assert isinstance(token, dict)
    assert (token["issuer"], token["subject"], token["introspected"], token["cached"]) == (
        "https://issuer.test", "alice", True, False,
    )  # fmt: skip
    assert "opaque-" not in json.dumps(records)
    assert SECRET not in json.dumps(records)


@pytest.mark.slow
async def test_a_server_asks_at_every_door_and_tells_how_issuers_are_doing(tmp_path: Path) -> None:
    async with endpoint() as served:
        served.answers["opaque-alice"] = ALICE
        policies, mesh = written(served, tmp_path)
        door = {"listen": f"unix:{tmp_path}/door.sock", "kind": "envoy-http", "upstream_headers": ["x-sub"], **WHOLE}
        flags = ["--policies", str(policies), "--mesh", str(mesh), "--listen", f"unix:{tmp_path}/a.sock"]
        flags += ["--admin", "127.0.0.1:0", "--drain-delay-seconds", "0"]
        async with worker(*flags, http_doors=json.dumps([door])) as service:
            admin = await service.says(r"admin     (\S+)/healthz")
            await service.says("health is SERVING")  # it waits for no key set of an issuer that is asked
            transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/door.sock")
            async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as asking:
                for token, status in (("opaque-alice", 200), ("opaque-alice", 200), ("opaque-eve", 401)):
                    headers = {"authorization": f"Bearer {token}", "x-authz-remote-ip": "192.0.2.7"}
                    assert (await asking.get("/", headers=headers)).status_code == status
                served.status = 500
                headers["authorization"] = "Bearer opaque-mallory"
                assert (await asking.get("/", headers=headers)).status_code == 403  # 5xx would be leave to go on
            async with httpx.AsyncClient(trust_env=False) as reading:
                page = (await reading.get(f"{admin}/metrics")).text
                health = (await reading.get(f"{admin}/healthz")).json()
    counts = {
        line.partition('result="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("authz_token_introspections_total{")
    }
    assert counts == {"hit": 1, "miss": 3, "refused": 1, "failed": 1}
    (cause,) = health["causes"]
    assert (cause["part"], cause["blocks"]) == ("introspection", False)
    assert "status 500" in cause["message"]
