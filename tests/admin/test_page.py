"""The page's JSON without a browser: what is kept, what is hidden, what is explained, and who may read it."""

import base64
import json
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from authz.admin.access import Guard, judge_access
from authz.admin.administration import create_app
from authz.admin.api import LocalSource, PageFacts
from authz.admin.explained import Sources
from authz.admin.page import Page
from authz.admin.watch import ALLOWED_EACH_SECOND, DENIED_KEPT, MAX_EDGES, Watch, without_credentials
from authz.cli import application
from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Token,
    Workload,
)
from authz.core.compiler import compile_engine
from authz.core.decided import NO_TRACE, Offer, Timing, TraceIds
from authz.core.decision import Decision, Effect, Stage
from authz.core.engine import Engine
from authz.core.errors import Location, Problem, SettingsError, Severity
from authz.core.explain import HIDDEN
from authz.core.pipeline import decide
from authz.core.resources import MeshConfig
from authz.policy.reader import read_policies
from authz.telemetry.counters import Telemetry
from authz.telemetry.status import KeySetStatus, ReloadStatus, ServiceStatus, TrailStatus
from tests.build import keep_token, refuse_everything, request

NOW = 1_700_000_000.0
POLICIES = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/web/sa/front"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/cart*"]}}]
  - from: [{source: {requestPrincipals: ["https://idp/*"]}}]
    to: [{operation: {methods: ["PUT"]}}]
    when: [{key: "request.headers[x-team]", values: ["red"]}, {key: "request.auth.claims[role]", values: ["admin"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"]}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: "https://idp", jwks: '{"keys": []}'}]}
"""
API = Workload("shop", frozenset({("app", "api")}), "api", "api-v1")
CLAIMS: dict[str, Any] = {"iss": "https://idp", "sub": "ann", "role": "guest", "email": "ann@example.com", "exp": 1}


def compiled(text: str = POLICIES) -> Engine:
    return compile_engine(read_policies([("policies/shop.yaml", text.encode())]).resources, MeshConfig())


class Service:
    """What the page asks of a service, with decisions made by the engine itself."""

    def __init__(self) -> None:
        self.watch = Watch(NOW - 60)
        self.engine: Engine | None = compiled()
        self.telemetry = Telemetry()
        self.reload = ReloadStatus("v1", NOW - 10)
        self.now = NOW
        self.facts = PageFacts(
            self.watch,
            lambda: self.engine,
            lambda: ServiceStatus(self.reload, (KeySetStatus("oidc:https://idp", 2, NOW - 5),)),
            lambda: TrailStatus(0, 100, 5, 0, 0, 0, (), "", True),
            self.telemetry,
            lambda: self.now,
            Sources("policies"),
        )
        self.page = Page(LocalSource(self.facts))

    def decide(self, attributes: AttributeContext, decision_id: str = "d-1", at: float = NOW) -> Decision:
        assert self.engine is not None
        seen, decision = decide(self.engine.for_workload(API), attributes, keep_token, refuse_everything)
        self.observe(seen, decision, decision_id, at)
        return decision

    def observe(
        self, attributes: AttributeContext, decision: Decision, decision_id: str = "d-1", at: float = NOW
    ) -> None:
        offer = Offer(attributes, decision, decision_id, at, 50e-6)
        self.telemetry.observe(offer)
        self.watch.observe(offer, TraceIds("a" * 32, "b" * 16))

    async def get(self, path: str, **headers: str) -> httpx.Response:
        facts = self.facts
        app = create_app(facts.status, facts.trail, self.telemetry, facts.clock, routes=self.page.routes)
        transport = httpx.ASGITransport(Guard(app, judge_access("127.0.0.1:1")))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=headers)

    async def json(self, path: str) -> Any:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def service() -> Service:
    return Service()


def asking(**changed: Any) -> AttributeContext:
    return request(**{"workload": API, "path": "/cart/1?token=abc", **changed})


# --- decisions -------------------------------------------------------------------------------------------------------


async def test_a_denial_is_told_with_the_field_that_failed_and_its_place(service: Service) -> None:
    service.decide(asking(method="POST"))
    row = (await service.json("/api/decisions"))["decisions"][0]
    assert (row["effect"], row["nearest"]["rule"], row["nearest"]["file"]) == (
        "deny",
        "shop/reads/0",
        "policies/shop.yaml",
    )
    found = await service.json("/api/decisions/d-1")
    nearest = found["nearest_rule"]
    assert (nearest["rule"]["policy"], nearest["rule"]["line"]) == ("reads", 7)
    failed = [p for p in nearest["predicates"] if not p["holds"]]
    assert [(p["path"], p["expected"], p["actual"], p["vouched_by"]) for p in failed] == [
        ("to[0].operation.methods", ["GET"], ["POST"], "only the client")
    ]
    stages = {stage["stage"]: stage for stage in found["explained"]["stages"]}
    assert list(stages) == [
        "PeerAuthentication", "RequestAuthentication", "AUDIT", "DENY (dry run)", "DENY", "ALLOW (dry run)", "ALLOW",
    ]  # fmt: skip
    assert [note["rule"]["index"] for note in stages["ALLOW"]["rules"]] == [0, 1]
    assert found["explained"]["agrees"] is True
    assert found["trace_id"] == "a" * 32


@pytest.mark.parametrize(
    "attributes",
    [
        asking(),
        asking(method="POST"),
        asking(path="/admin/x';rm"),
        asking(caller=None),
        asking(method="PUT", claims=CLAIMS, headers={"x-team": ("red $(id)",)}),
        asking(method="PUT", claims={**CLAIMS, "role": "admin"}, headers={"x-team": ("red",)}),
        asking(remote_ip="203.0.113.7"),
        asking(tcp=True),
        asking(host='shop.example"; echo', path="/cart/%2e"),
    ],
)
async def test_the_command_decides_the_same_again(
    service: Service, attributes: AttributeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = service.decide(attributes)
    command = (await service.json("/api/decisions/d-1"))["command"]
    words = shlex.split(command.replace("\\\n", ""))  # as a shell joins lines; shlex does not
    assert words[:2] == ["authz", "check"]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shop.yaml").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(application, [*words[1:], "-o", "json"], prog_name="authz")
    assert answer.exit_code in (0, 3), answer.output + answer.stderr
    again = json.loads(answer.stdout)
    rule = decision.rule
    assert (again["effect"], again["stage"]) == (decision.effect.value, decision.stage.value)
    assert (again["rule"] or {}).get("name") == (rule.name if rule else None)


async def test_the_command_tells_only_claims_that_rules_ask_about(service: Service) -> None:
    service.decide(asking(method="PUT", claims=CLAIMS))
    command = (await service.json("/api/decisions/d-1"))["command"]
    assert "role" in command
    assert "email" not in command
    assert '"exp"' not in command


async def test_another_version_in_force_is_said(service: Service) -> None:
    decision = service.decide(asking(method="POST"))
    service.engine = compiled(POLICIES.replace('"GET"', '"POST"'))
    found = await service.json("/api/decisions/d-1")
    assert found["policy_version"] == decision.policy_version
    assert found["policy_version_in_force"] == service.engine.version != decision.policy_version
    assert (found["explained"]["agrees"], found["explained"]["effect"]) == (False, "allow")


@pytest.mark.parametrize("stage", [Stage.IDENTITY, Stage.INTERNAL])
async def test_what_was_never_evaluated_is_not_explained(service: Service, stage: Stage) -> None:
    service.observe(asking(), Decision(Effect.DENY, stage, "no", status=403))
    found = await service.json("/api/decisions/d-1")
    assert (found["explained"], found["command"]) == (None, None)


async def test_a_rejected_token_is_explained_without_it(service: Service) -> None:
    rejected = Authentication(
        AuthenticationOutcome.REJECTED, status=401, body="Jwt is expired", reason="Jwt is expired"
    )
    service.decide(replace(asking(), authentication=rejected))
    found = await service.json("/api/decisions/d-1")
    assert (found["stage"], found["status"], found["authentication"]["reason"]) == ("jwt", 401, "Jwt is expired")
    assert [s["reached"] for s in found["explained"]["stages"] if s["stage"] == "ALLOW"] == [False]


async def test_a_provider_that_refused_is_replayed_without_asking_it(service: Service) -> None:
    text = POLICIES + (
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask, namespace: shop}\n"
        "spec: {action: CUSTOM, provider: {name: ext}, rules: [{}]}\n"
    )
    mesh = MeshConfig(extension_providers=(_provider(),))
    service.engine = compile_engine(read_policies([("shop.yaml", text.encode())], mesh).resources, mesh)
    seen, decision = decide(service.engine.for_workload(API), asking(), keep_token, refuse_everything)
    offer = Offer(seen, decision, "d-1", NOW, 1e-3, None, (Timing("provider.ask", NOW, 1e-3, "ext"),))
    service.watch.observe(offer, NO_TRACE)
    found = await service.json("/api/decisions/d-1")
    assert (found["stage"], found["explained"]["agrees"]) == ("custom", True)
    assert "--provider ext=deny" in found["command"]


def _provider() -> Any:
    from authz.core.resources import ExtensionProvider

    return ExtensionProvider("ext", "http", "ext.example", 80)


async def test_an_id_that_is_not_kept_is_not_found(service: Service) -> None:
    answer = await service.get("/api/decisions/none")
    assert (answer.status_code, answer.json()) == (404, {"error": "not kept any more"})


@pytest.mark.parametrize(
    "path",
    [
        "/api/decisions?effect=maybe",
        "/api/decisions?limit=x",
        "/api/decisions?after=-1",
        "/api/decisions/stream?after=%0a",
        "/api/namespaces/graph?graphType=x",
        "/api/namespaces/graph?duration=1y",
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(service: Service, path: str) -> None:
    assert (await service.get(path)).status_code == 400


# --- what is kept ----------------------------------------------------------------------------------------------------

SECRET = "s3cret-value"


@pytest.mark.parametrize(
    ("header", "value", "hidden"),
    [
        ("authorization", f"Bearer {SECRET}", True),
        ("cookie", f"session={SECRET}", True),
        ("x-api-key", SECRET, True),
        ("x-jwt", f"eyJ{SECRET}", True),
        ("x-upstream-auth", f"Basic {SECRET}", True),
        ("x-team", "red", False),
    ],
)
async def test_credentials_are_not_kept(service: Service, header: str, value: str, hidden: bool) -> None:
    attributes = asking(method="POST", headers={header: (value,)})
    kept, _ = without_credentials(attributes)
    assert kept.header(header) == ((HIDDEN,) if hidden else (value,))
    service.decide(attributes)
    for path in ("/api/decisions", "/api/decisions/d-1"):
        assert SECRET not in (await service.get(path)).text


async def test_query_values_are_not_told(service: Service) -> None:
    service.decide(asking(method="POST"))
    assert "abc" not in (await service.get("/api/decisions/d-1")).text


def test_many_allowed_requests_do_not_push_out_a_denial(service: Service) -> None:
    service.decide(asking(method="POST"), "denied")
    for number in range(3_000):
        service.decide(asking(), f"a-{number}", NOW + number // 40)
    assert service.watch.find("denied") is not None
    assert service.watch.find("a-2999") is not None
    assert service.watch.find("a-0") is None


def test_what_is_kept_is_bounded_in_number_rate_and_size() -> None:
    watch = Watch(NOW)
    allowed, denied = Decision(Effect.ALLOW, Stage.ALLOW, ""), Decision(Effect.DENY, Stage.ALLOW, "", status=403)
    for number in range(200):
        watch.observe(Offer(asking(), allowed, f"a-{number}", NOW, 0.0), NO_TRACE)
    assert len(watch.newest(limit=10_000)) == ALLOWED_EACH_SECOND
    for number in range(DENIED_KEPT + 50):
        watch.observe(Offer(asking(), denied, f"d-{number}", NOW + number, 0.0), NO_TRACE)
    assert len(watch.newest(limit=10_000, effect=Effect.DENY)) == DENIED_KEPT
    large = asking(headers={"x-large": ("x" * 60_000,)})
    for number in range(400):
        watch.observe(Offer(large, denied, f"l-{number}", NOW + 2_000 + number, 0.0), NO_TRACE)
    kept = watch.newest(limit=10_000, effect=Effect.DENY)
    assert sum(one.size for one in kept) <= 16 << 20
    assert kept[0].offer.decision_id == "l-399"


def test_edges_are_bounded_and_old_ones_make_room() -> None:
    watch = Watch(NOW)
    decision = Decision(Effect.DENY, Stage.ALLOW, "", status=403)

    def call(number: int, at: float) -> None:
        caller = f"spiffe://cluster.local/ns/n/sa/{number}"
        watch.observe(Offer(asking(caller=caller), decision, f"{number}", at, 0.0), NO_TRACE)

    for number in range(MAX_EDGES + 10):
        call(number, NOW)
    assert len(watch.traffic(NOW, 60)) == MAX_EDGES
    assert watch.uncounted == 10
    call(99_999, NOW + 3_600)
    assert len(watch.traffic(NOW + 3_600, 60)) == 1


async def test_the_window_of_the_graph_forgets(service: Service) -> None:
    service.decide(asking(), at=NOW - 200)
    service.decide(asking(method="POST"), "d-2", at=NOW - 20)

    async def state(duration: str) -> tuple[str, int, int]:
        edges = (await service.json(f"/api/namespaces/graph?duration={duration}"))["elements"]["edges"]
        policy = next(e["data"]["policy"] for e in edges if e["data"]["policy"]["principals"][0]["principal"])
        return policy["state"], policy["allowed"], policy["denied"]

    assert await state("10m") == ("mixed", 1, 1)
    assert await state("1m") == ("denied", 0, 1)
    service.now = NOW + 300
    assert await state("1m") == ("idle", 0, 0)


# --- policies and identity -------------------------------------------------------------------------------------------


async def test_policies_tell_hits_and_places(service: Service) -> None:
    service.decide(asking())
    service.decide(asking(), "d-2")
    found = await service.json("/api/policies")
    rules = {(p["name"], rule["index"]): rule for p in found["authorization"] for rule in p["rules"]}
    assert {key: rule["hits"] for key, rule in rules.items()} == {("reads", 0): 2, ("reads", 1): 0, ("no-admin", 0): 0}
    assert rules[("reads", 0)]["to"] == [{"methods": ["GET"], "paths": ["/cart*"]}]
    assert (rules[("reads", 1)]["file"], rules[("reads", 1)]["line"]) == ("policies/shop.yaml", 9)
    assert rules[("reads", 1)]["when"][0] == {"key": "request.headers[x-team]", "values": ["red"], "notValues": []}


async def test_a_refused_change_is_told_with_its_place(service: Service) -> None:
    problem = Problem(
        Severity.ERROR, "VA-24", "`10.0.0.0/33` is not a CIDR block", Location("a.yaml", 14, 11), help="0 to 32"
    )
    service.reload = ReloadStatus("v1", NOW - 10, False, problems=(problem,))
    found = await service.json("/api/policies")
    assert found["reload_ok"] is False
    assert [(p["file"], p["line"], p["column"], p["message"], p["help"]) for p in found["problems"]] == [
        ("a.yaml", 14, 11, "`10.0.0.0/33` is not a CIDR block", "0 to 32")
    ]
    assert (await service.json("/api/overview"))["problems"] == 1


async def test_identity_tells_key_sets_and_callers(service: Service) -> None:
    service.decide(asking())
    found = await service.json("/api/identity")
    assert found["key_sets"] == [
        {"name": "oidc:https://idp", "keys": 2, "fetched_at": NOW - 5, "error": "", "skipped": []}
    ]
    assert [peer["principal"] for peer in found["peers"]] == ["cluster.local/ns/web/sa/front"]


@pytest.mark.parametrize(
    "path", ["/api/overview", "/api/namespaces/graph", "/api/decisions", "/api/policies", "/api/identity"]
)
async def test_everything_is_answered_before_policies_are_loaded(service: Service, path: str) -> None:
    service.engine = None
    assert (await service.get(path)).status_code == 200


# --- the stream ------------------------------------------------------------------------------------------------------


class _Connected:
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed

    async def is_disconnected(self) -> bool:
        return False


async def test_the_stream_tells_each_decision_once_and_ends_when_the_page_closes(service: Service) -> None:
    service.decide(asking(), "before")
    after = str(service.watch.sequence)
    events: AsyncIterator[str] = service.page._events(_Connected(), after)  # type: ignore[arg-type]  # all it asks
    assert await anext(events) == "retry: 1000\n\n"
    service.decide(asking(method="POST", path="/x\n\ndata: forged"), "one")
    service.decide(asking(), "two")
    told = [await anext(events), await anext(events)]
    assert [json.loads(event.split("data: ", 1)[1])["decision_id"] for event in told] == ["one", "two"]
    assert [event.count("\n") for event in told] == [2, 3]  # the last one has the cursor; nothing is forged
    service.page.close()
    assert [event async for event in events] == []


async def test_decisions_stand_by_their_time_whatever_the_writer_took_up_first(service: Service) -> None:
    for decision_id, seconds in (("second", -2.0), ("first", -3.0), ("third", -1.0)):
        service.decide(asking(), decision_id, NOW + seconds)
    found = (await service.json("/api/decisions"))["decisions"]
    assert [row["decision_id"] for row in found] == ["third", "second", "first"]


# --- who may read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "token", "certificate", "error"),
    [
        ("127.0.0.1:9000", "", False, None),
        ("[::1]:9000", "", False, None),
        ("localhost:9000", "", False, None),
        ("unix:/run/admin.sock", "", False, None),
        ("0.0.0.0:9000", "", False, "can be reached from other machines"),
        ("10.0.0.5:9000", "", False, "admin_token_file"),
        ("[::]:9000", "", False, "admin_tls_client_ca"),
        ("authz.example:9000", "", False, "can be reached"),
        ("0.0.0.0:9000", "0123456789abcdef", False, None),
        ("0.0.0.0:9000", "short", False, "at least 16"),
        ("0.0.0.0:9000", "", True, None),
    ],
)
def test_an_address_that_others_can_reach_needs_a_token_or_certificates(
    listen: str, token: str, certificate: bool, error: str | None
) -> None:
    if error is None:
        assert judge_access(listen, token, asks_certificate=certificate).token == token
    else:
        with pytest.raises(SettingsError, match=error):
            judge_access(listen, token, asks_certificate=certificate)


TOKEN = "0123456789abcdef"
BASIC = base64.b64encode(f"me:{TOKEN}".encode()).decode()


async def _guarded(listen: str, token: str, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    service = Service()
    facts = service.facts
    app = create_app(facts.status, facts.trail, service.telemetry, facts.clock, routes=service.page.routes)
    transport = httpx.ASGITransport(Guard(app, judge_access(listen, token)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("listen", "token", "method", "path", "headers", "status"),
    [
        ("0.0.0.0:1", TOKEN, "GET", "/api/overview", {}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/api/reach", {}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/api/reach/cell", {}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/api/candidate", {}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/", {"authorization": "Bearer wrong"}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/metrics", {}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/api/overview", {"authorization": "Basic %%%"}, 401),
        ("0.0.0.0:1", TOKEN, "GET", "/api/overview", {"authorization": f"Bearer {TOKEN}"}, 200),
        ("0.0.0.0:1", TOKEN, "GET", "/api/overview", {"authorization": f"Basic {BASIC}"}, 200),
        ("0.0.0.0:1", TOKEN, "GET", "/livez", {}, 200),
        ("127.0.0.1:1", TOKEN, "GET", "/api/overview", {}, 401),
        ("127.0.0.1:1", "", "GET", "/api/overview", {}, 200),
        ("127.0.0.1:1", "", "GET", "/api/overview", {"host": "evil.example"}, 421),
        ("127.0.0.1:1", "", "GET", "/api/overview", {"host": "127.0.0.1.evil.example:80"}, 421),
        ("127.0.0.1:1", "", "GET", "/", {"host": "[::1]:9000"}, 200),
        ("127.0.0.1:1", "", "GET", "/metrics", {"host": "scraper-sees-me-as-this"}, 200),
        ("unix:/run/x.sock", "", "GET", "/api/overview", {"host": "worker"}, 200),
        ("127.0.0.1:1", "", "POST", "/api/overview", {}, 405),
        ("127.0.0.1:1", "", "DELETE", "/api/decisions/x", {}, 405),
        ("127.0.0.1:1", "", "GET", "/static/../app.py", {}, 404),
        ("127.0.0.1:1", "", "GET", "/static/%2e%2e/app.py", {}, 404),
    ],
)
async def test_who_may_read_what(
    listen: str, token: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await _guarded(listen, token, method, path, headers)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("name", ["index.html", "fleet.html"])
def test_the_page_has_no_inline_script_or_style_and_loads_nothing_from_elsewhere(name: str) -> None:
    static = Path(str(Page.__module__ and __import__("authz.admin", fromlist=["x"]).__path__[0])) / "static"
    html = (static / name).read_text()
    assert "<style" not in html
    assert "style=" not in html
    assert "onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src="/static/')
    for path in [*static.glob("*.*"), *static.glob("js/*.js")]:
        text = path.read_text()
        assert "innerHTML" not in text, path
        assert "https://" not in text, path


def test_decided_tokens_are_facts_only() -> None:
    token = Token(CLAIMS, "https://idp", "ann", "key-1", "deadbeef", NOW + 60, "shop/jwt/0")
    attributes = replace(asking(), authentication=Authentication(AuthenticationOutcome.ACCEPTED, token))
    service = Service()
    service.decide(attributes)
    found = service.facts.decision("d-1")
    assert found is not None
    assert found["token"] == {
        "issuer": "https://idp", "subject": "ann", "key_id": "key-1", "digest": "deadbeef",
        "expires_at": "2023-11-14T22:14:20.000000Z", "rule": "shop/jwt/0", "cached": None,
    }  # fmt: skip
    assert "email" not in json.dumps(found)
