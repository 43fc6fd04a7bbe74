"""The page in a real Chromium, on a real ``authz serve`` that is asked over gRPC as Envoy would."""

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.service.ports.grpc_health import AUTHORIZATION
from tests.browser import chromium, needs_chromium, open_context
from tests.service.messages import CALLER, check_request, peer, response, told

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), needs_chromium]
POLICIES = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/web/sa/front"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/cart*"]}}]
  - from: [{source: {principals: ["cluster.local/ns/web/sa/nobody"]}}]
    to: [{operation: {methods: ["PUT"]}}]
"""
NEAREST = "shop.yaml:7"
MESH = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: cluster.local"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: api, labels: {app: api}, ports: {http: 8080}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api-v1, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9080"}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: front-v1, namespace: web}
spec: {address: 127.0.0.1, serviceAccount: front, labels: {app: front}, ports: {http: 8081}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: front-v1, namespace: web}
spec:
  workloadSelector: {labels: {app: front}}
  ingress: [{port: {number: 8081, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9081"}]
"""
SECONDS_TO_SHOW = 2_000
"""Milliseconds within which a denial must be on the page."""
PATIENCE_MS = 60_000
"""Time for what other processes do, some of which give way to all others: a busy machine is no finding."""
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\'"&'


class Serving:
    """A running ``authz serve``; its workers are asked in turn, as Envoys would do by themselves."""

    def __init__(self, folder: Path, workers: int = 1, **settings: object) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir()
        (self.policies / "shop.yaml").write_text(POLICIES)
        self._log = folder / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
        environment |= {f"AUTHZ_{name.upper()}": str(value) for name, value in settings.items()}
        arguments = [
            "serve",
            "--server",
            "grpcio",
            "--policies",
            str(self.policies),
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]
        arguments += ["--audit", "none", "--drain-delay-seconds", "0", "--workers", str(workers)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "authz", *arguments], env=environment, stderr=log)
        self.admin = self._says(r"authz: admin     (\S+)/healthz", 1)[0]
        self._channels = [grpc.insecure_channel(a) for a in self._says(r"listening (127\S+)", workers)]
        self._calls = itertools.cycle(
            channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)
            for channel in self._channels
        )
        self._says("health is SERVING", workers)

    def _says(self, pattern: str, number: int) -> list[str]:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            found = re.findall(pattern, self._log.read_text())
            if len(found) >= number:
                return found
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.02)
        raise AssertionError(self._log.read_text())

    def ask(self, **changed: Any) -> dict[str, Any]:
        """One Check call; answers the dynamic metadata, with ``decision`` and ``decision_id``."""
        return told(response(next(self._calls)(check_request(**changed), timeout=30)))

    def stop(self) -> int:
        for channel in self._channels:
            channel.close()
        self.process.terminate()
        return self.process.wait(15)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    found = Serving(tmp_path_factory.mktemp("serving"), workers=2)
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One with a mesh description."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "mesh.yaml").write_text(MESH)
    found = Serving(folder, workers=2, mesh=folder / "mesh.yaml")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


Open = Callable[..., Any]


@pytest.fixture
def complaints() -> list[str]:
    """What browsers complained of: errors, warnings, dialogues, and requests to somewhere else."""
    return []


@pytest.fixture
def open_page(browser: Any, serving: Serving, complaints: list[str]) -> Iterator[Open]:
    """Open a view; whatever the browser complains of fails the test."""
    contexts: list[Any] = []

    def open_view(view: str, width: int = 1280, height: int = 800, scheme: str = "light", **options: Any) -> Any:
        base = options.pop("base", serving.admin)
        page = open_context(browser, base, complaints, width=width, height=height, color_scheme=scheme, **options)
        contexts.append(page.context)
        page.goto(f"{base}/#/{view}")
        return page

    yield open_view
    for context in contexts:
        context.close()
    assert complaints == []


def allow(serving: Serving, number: int = 3) -> None:
    for _ in range(number):
        assert serving.ask(path="/cart/1")["decision"] == "ALLOW"


def test_the_graph_appears_after_traffic_and_an_edge_tells_its_rules(serving: Serving, open_page: Open) -> None:
    allow(serving, 4)
    serving.ask(path="/cart/1", method="POST")
    page = open_page("graph")
    edge = page.get_by_role("button", name=re.compile("^front to api-v1: partly denied"))
    edge.wait_for(timeout=5_000)
    unused = page.get_by_role("button", name=re.compile("nobody to api-v1: permitted, unused"))
    assert unused.count() == 1
    edge.click()
    panel = page.get_by_role("complementary", name="Details")
    for words in ("cluster.local/ns/web/sa/front", "shop/reads/0", NEAREST, "100 %", "partly denied"):
        assert panel.get_by_text(words).first.is_visible(), words
    panel.get_by_role("link").first.click()
    assert re.search(r"#/decisions/[0-9a-f]{24}$", page.url)


def test_the_graph_is_live(serving: Serving, open_page: Open) -> None:
    page = open_page("graph")
    page.get_by_role("button", name=re.compile("api-v1")).first.wait_for()
    serving.ask(source=peer("spiffe://cluster.local/ns/web/sa/newcomer"), path="/cart/1")
    page.get_by_role("button", name=re.compile("newcomer to api-v1: denied")).wait_for(timeout=6_000)


def test_a_denial_shows_within_two_seconds_with_its_nearest_miss(serving: Serving, open_page: Open) -> None:
    page = open_page("decisions")
    page.get_by_text("live", exact=True).wait_for()
    decision_id = serving.ask(path="/cart/9", method="DELETE")["decision_id"]
    row = page.locator(f'a[href="#/decisions/{decision_id}"]')
    row.wait_for(timeout=SECONDS_TO_SHOW)
    assert "closest shop/reads/0: methods must be GET; got DELETE" in row.inner_text()
    row.click()
    miss = page.locator("#nearest")
    miss.wait_for()
    assert NEAREST in miss.inner_text()
    cells = [cell.inner_text() for cell in miss.get_by_role("cell").all()]
    assert (cells[0].split("\n")[0], cells[1], cells[2]) == ("to[0].operation.methods", "GET", "DELETE")
    assert "authz check" in page.get_by_role("region", name="authz check command").inner_text()
    assert page.get_by_role("region", name="audit command").inner_text() == f"authz audit show {decision_id}"
    assert [stage.inner_text() for stage in page.locator(".stage.refused b").all()][:1] == ["ALLOW"]


def test_a_decision_id_leads_to_its_rule_in_two_clicks(serving: Serving, open_page: Open) -> None:
    """The id of ``x-authz-decision-id``: click the search, paste, click the row. Or open its address at once."""
    decision_id = serving.ask(path="/cart/7", method="PATCH")["decision_id"]
    allow(serving, 10)
    page = open_page("decisions")
    page.get_by_role("searchbox").click()
    page.keyboard.type(decision_id)
    rows = page.locator("a.row")
    sync_api.expect(rows).to_have_count(1)
    rows.click()
    page.locator("#nearest").wait_for()
    direct = open_page(f"decisions/{decision_id}")
    direct.locator("#nearest").wait_for()


def test_decisions_can_be_filtered_and_paused(serving: Serving, open_page: Open) -> None:
    allow(serving)
    serving.ask(path="/cart/1", method="PUT")
    page = open_page("decisions")
    page.get_by_text("live", exact=True).wait_for()
    page.get_by_label("Show which decisions").select_option("deny")
    assert {chip.inner_text() for chip in page.locator(".row .effect").all()} == {"Denied"}
    page.get_by_role("button", name="Pause").click()
    decision_id = serving.ask(path="/cart/1", method="PUT")["decision_id"]
    resume = page.get_by_role("button", name="Resume (1)")
    resume.wait_for(timeout=SECONDS_TO_SHOW)
    row = page.locator(f'a[href="#/decisions/{decision_id}"]')
    assert row.count() == 0
    resume.click()
    row.wait_for()


def test_a_broken_policy_shows_its_place(serving: Serving, open_page: Open) -> None:
    page = open_page("policies")
    page.get_by_text("shop/reads", exact=False).first.wait_for()
    file = serving.policies / "shop.yaml"
    file.write_text(POLICIES.replace('methods: ["GET"]', 'method: ["GET"]'))
    try:
        alert = page.get_by_role("alert")
        alert.wait_for(timeout=PATIENCE_MS)
        assert f"{file}:8:" in alert.inner_text()
        assert "did you mean `methods`?" in alert.inner_text()
        page.get_by_text("change refused").wait_for(timeout=5_000)
    finally:
        file.write_text(POLICIES)
    alert.wait_for(state="detached", timeout=10_000)


def test_rules_that_were_never_hit_are_found(serving: Serving, open_page: Open) -> None:
    allow(serving)
    page = open_page("policies")
    page.get_by_text("never hit", exact=True).wait_for()
    page.get_by_label("Never hit only").check()
    assert page.locator(".policy li").count() == 1
    assert "nobody" in page.locator(".policy li").inner_text()


def test_identity_shows_who_called(serving: Serving, open_page: Open) -> None:
    allow(serving)
    page = open_page("identity")
    page.get_by_text(CALLER.removeprefix("spiffe://")).wait_for()


def test_what_a_client_sends_stays_text(serving: Serving, open_page: Open) -> None:
    decision_id = serving.ask(
        path=f"/{MARKUP}",
        host=MARKUP,
        headers=[("user-agent", MARKUP), ("x-request-id", MARKUP)],
        source=peer(f"spiffe://{MARKUP}"),
    )["decision_id"]
    for view in ("decisions", f"decisions/{decision_id}", "graph", "identity", "policies"):
        page = open_page(view)
        page.locator("h1").first.wait_for(state="attached")
        if view.startswith("decisions"):
            page.get_by_text("onerror").first.wait_for()
        else:
            page.wait_for_load_state("networkidle")
        assert page.evaluate("window.pwned") is None
        assert page.locator("main img, main script, main iframe").count() == 0


def test_an_unknown_decision_says_where_to_look(open_page: Open, complaints: list[str]) -> None:
    page = open_page("decisions/0123456789abcdef01234567")
    page.get_by_text("authz audit show 0123456789abcdef01234567").wait_for()
    assert len(complaints) == 1
    assert "404" in complaints.pop()  # the browser logs every answer that is no success


# --- what is permitted, proved ---------------------------------------------------------------------------------------


def test_an_edge_opens_with_its_conditions_in_words(described: Serving, open_page: Open) -> None:
    allow(described)
    page = open_page("graph", base=described.admin)
    edge = page.get_by_role("button", name=re.compile("^front-v1 to api-v1: allowed"))
    edge.click(timeout=10_000)
    panel = page.get_by_role("complementary", name="Details")
    panel.locator(".grant").wait_for(timeout=PATIENCE_MS)
    assert panel.get_by_text("with conditions").first.is_visible()
    words = panel.locator(".grant").inner_text()
    for said in ("principal cluster.local/ns/web/sa/front", "method GET, path /cart*", "HTTP over mutual TLS", NEAREST):
        assert said in words.replace("\n", ""), said
    panel.get_by_text("Command that decides the example").click()
    assert "authz check" in panel.get_by_role("region", name="authz check command").inner_text()
    page.get_by_text("Edges as a table").click()
    row = page.get_by_role("row", name=re.compile("front-v1 api-v1"))
    assert row.get_by_text("with conditions").is_visible()


def test_the_matrix_tells_what_is_permitted_beside_what_was_observed(described: Serving, open_page: Open) -> None:
    allow(described)
    page = open_page("matrix", base=described.admin)
    cell = page.get_by_role("button", name=re.compile("^front-v1 to api-v1: with conditions; observed: .* allowed"))
    cell.wait_for(timeout=PATIENCE_MS)
    assert page.get_by_role("button", name="anonymous to api-v1: nothing may pass").inner_text() == "no"
    assert page.get_by_role("button", name=re.compile("^api-v1 to front-v1: everything may pass")).inner_text() == "yes"
    cell.click()
    panel = page.get_by_role("complementary", name="Details")
    panel.locator(".grant").wait_for()
    assert "method GET, path /cart*" in panel.inner_text()
    assert re.search(r"requests allowed in the last 10 minutes", panel.inner_text())
    page.get_by_label("Only what may pass").check()
    assert page.get_by_role("rowheader", name="anonymous").count() == 1  # front-v1 is open to everybody
    page.get_by_label("Search called workloads").fill("shop/api")
    sync_api.expect(page.get_by_role("columnheader")).to_have_text(["api-v1"])
    sync_api.expect(page.get_by_role("rowheader")).to_have_text(["front-v1"])


def test_the_matrix_is_used_by_keyboard(described: Serving, open_page: Open) -> None:
    page = open_page("matrix", base=described.admin)
    page.locator(".cell.accent").first.wait_for(timeout=PATIENCE_MS)
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused(page).startswith("api-v1 to api-v1"):
            break
    assert focused(page).startswith("api-v1 to api-v1")
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("front-v1 to api-v1")
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="Details")
    panel.locator(".grant").wait_for()
    assert focused(page).startswith("front-v1 to api-v1")
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    page.keyboard.press("ArrowRight")
    assert focused(page).startswith("front-v1 to front-v1")


def test_a_change_of_policies_is_proved_anew(described: Serving, open_page: Open) -> None:
    page = open_page("matrix", base=described.admin)
    page.get_by_role("button", name=re.compile("^front-v1 to api-v1: with conditions")).wait_for(timeout=PATIENCE_MS)
    file = described.policies / "shop.yaml"
    file.write_text(POLICIES.replace("sa/front", "sa/nobody"))
    try:
        page.get_by_role("button", name=re.compile("^front-v1 to api-v1: nothing may pass")).wait_for(
            timeout=PATIENCE_MS
        )
    finally:
        file.write_text(POLICIES)
    page.get_by_role("button", name=re.compile("^front-v1 to api-v1: with conditions")).wait_for(timeout=PATIENCE_MS)


def test_without_a_description_the_matrix_says_why_it_is_empty(serving: Serving, open_page: Open) -> None:
    page = open_page("matrix")
    page.get_by_text("no mesh description (--mesh) says which workloads there are").wait_for()
    page = open_page("graph")
    page.get_by_text("permitted: by identity alone").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_matrix_fits_and_axe_finds_nothing_wrong(
    described: Serving, open_page: Open, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    allow(described)
    page = open_page("matrix", width, 844, scheme, base=described.admin)
    for name in ("front-v1 to api-v1", "anonymous to api-v1"):
        page.get_by_role("button", name=re.compile(f"^{name}")).dispatch_event("click", timeout=10_000)
        page.locator(".grants").get_by_text(re.compile("method GET|Nothing may pass")).first.wait_for()
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in found] == []
        page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert len(page.screenshot(path=tmp_path / "shot.png")) > 5_000


def test_a_refused_request_of_a_rate_limit_leads_to_the_decision_that_allowed_it(
    serving: Serving, open_page: Open
) -> None:
    """Whoever counts is told no token: the page must not say that there was none."""
    told = serving.ask(path="/cart/1")["decision_id"]
    page = open_page(f"decisions/{told}")
    page.get_by_role("heading", name="Token").wait_for()
    limited = {"stage": "rate-limit", "effect": "deny", "reason": "the limit is used up", "status": 429}
    limited |= {"explained": None, "command": None, "x_request_id": "r-1", "token": None}

    def answer(route: Any) -> None:
        real = route.fetch()
        record = real.json()
        record["source"]["principal"] = ""
        route.fulfill(response=real, json=record | limited)

    page.route("**/api/decisions/*", answer)
    page.reload()
    page.get_by_text("somebody → api-v1: the limit is used up").wait_for()
    assert page.get_by_role("heading", name="Token").count() == 0
    page.get_by_role("link", name="decisions of this request").click()
    assert page.get_by_role("searchbox").input_value() == "r-1"


# --- the candidate -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One whose candidate lets nobody read, and lets ``front`` write."""
    folder = tmp_path_factory.mktemp("shadowed")
    (folder / "next.yaml").write_text(POLICIES.replace('["GET"]', '["POST"]'))
    found = Serving(folder, workers=2, candidate=folder / "next.yaml")
    yield found
    assert found.stop() == 0


def test_the_candidate_tells_what_it_would_change_with_examples(shadowed: Serving, open_page: Open) -> None:
    page = open_page("policies", base=shadowed.admin)
    card = page.get_by_role("region", name="Candidate", exact=True)
    card.wait_for(timeout=PATIENCE_MS)
    allow(shadowed, 40)
    denied = shadowed.ask(path="/cart/1", method="POST")["decision_id"]
    row = card.get_by_role("row", name=re.compile("newly denied"))
    row.get_by_text("40", exact=True).wait_for(timeout=PATIENCE_MS)
    assert "shop/reads/0" in row.inner_text()
    assert "no rule" in row.inner_text()
    opened = card.get_by_role("row", name=re.compile("newly allowed"))
    opened.get_by_role("link", name=f"Decision {denied}").wait_for(timeout=PATIENCE_MS)
    assert re.search(r"41 requests compared", card.inner_text())
    assert re.search(r"% of the check's own time", card.inner_text())
    card.get_by_text("Commands").click()
    command = card.get_by_role("region", name="promote command").inner_text()
    assert command.startswith("authz candidate promote --candidate /")
    assert f"--policies {shadowed.policies}" in command
    opened.get_by_role("link", name=f"Decision {denied}").click()
    page.get_by_text("Would answer").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_candidate_fits_and_axe_finds_nothing_wrong(
    shadowed: Serving, open_page: Open, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    allow(shadowed)
    page = open_page("policies", width, 844, scheme, base=shadowed.admin)
    page.get_by_text("newly denied").nth(1).wait_for(timeout=PATIENCE_MS)
    page.get_by_text("Commands:").click()
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert len(page.screenshot(path=tmp_path / f"candidate-{width}-{scheme}.png")) > 5_000


# --- keyboard, screen readers, sizes ---------------------------------------------------------------------------------


def focused(page: Any) -> str:
    script = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
    return str(page.evaluate(script))


def test_everything_is_reached_by_keyboard(serving: Serving, open_page: Open) -> None:
    allow(serving)
    page = open_page("graph")
    edge = page.get_by_role("button", name=re.compile("^front to api-v1"))
    edge.wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        if seen[-1].startswith("front to api-v1"):
            break
    assert seen[-1].startswith("front to api-v1"), seen
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="Details")
    panel.wait_for()
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    assert focused(page).startswith("front to api-v1")


@pytest.mark.parametrize("view", ["graph", "matrix", "decisions", "policies", "identity"])
def test_landmarks_headings_and_names_are_there(serving: Serving, open_page: Open, view: str) -> None:
    allow(serving)
    page = open_page(view)
    page.locator("h1").wait_for(state="attached")
    assert page.get_by_role("main").count() == page.get_by_role("navigation").count() == 1
    assert page.get_by_role("banner").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("nav a[aria-current=page]").count() == 1
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, a, input, select")]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML)""")
    assert nameless == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(serving: Serving, open_page: Open, width: int, scheme: str) -> None:
    """All rules of axe-core, on every view; the page's own policy stays in force."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    allow(serving)
    decision_id = serving.ask(path="/cart/1", method="POST")["decision_id"]
    page = open_page("graph", width, 844, scheme)
    page.get_by_role("button", name=re.compile("^front to api")).dispatch_event("click")
    page.get_by_text("Edges as a table").dispatch_event("click")
    wanted = {"graph": ".side ul", "decisions": "a.row", f"decisions/{decision_id}": "#nearest"}
    for view, part in {**wanted, "policies": ".policy", "identity": "table"}.items():
        if view != "graph":
            page.evaluate("view => location.hash = `#/${view}`", view)
        page.locator(part).first.wait_for()
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in found] == [], view


def test_the_graph_has_a_table_and_news_are_spoken(serving: Serving, open_page: Open) -> None:
    allow(serving)
    page = open_page("graph")
    page.get_by_text("Edges as a table").click()
    page.get_by_role("row", name=re.compile("front api-v1")).wait_for()
    page = open_page("decisions")
    page.get_by_text("live", exact=True).wait_for()
    serving.ask(path="/cart/1", method="PUT")
    sync_api.expect(page.locator("#live")).to_contain_text("1 denied", timeout=4_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("view", ["graph", "decisions", "decision", "policies", "identity"])
def test_it_fits_every_width_and_theme(
    serving: Serving, open_page: Open, tmp_path: Path, view: str, width: int, scheme: str
) -> None:
    allow(serving)
    decision_id = serving.ask(path="/cart/1", method="POST")["decision_id"]
    page = open_page(f"decisions/{decision_id}" if view == "decision" else view, width, 844, scheme)
    wanted = {
        "graph": ".edge-label",
        "decisions": "a.row",
        "decision": "#nearest",
        "policies": ".policy",
        "identity": "table",
    }[view]
    page.locator(wanted).first.wait_for()
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 384) is (scheme == "light")
    assert len(page.screenshot(path=tmp_path / "shot.png")) > 5_000


def test_the_theme_can_be_chosen_and_is_remembered(open_page: Open) -> None:
    page = open_page("policies", scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    bright = page.evaluate(background)
    button = page.get_by_role("button", name=re.compile("^Theme: auto"))
    button.click()
    page.get_by_role("button", name=re.compile("^Theme: light")).click()
    page.get_by_role("button", name=re.compile("^Theme: dark")).wait_for()
    assert page.evaluate(background) != bright
    page.reload()
    page.get_by_role("button", name=re.compile("^Theme: dark")).wait_for()


CONTRAST = """(scheme) => {
  document.documentElement.dataset.theme = scheme;
  const probe = document.body.appendChild(document.createElement("i"));
  const rgb = (name) => {
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((n) => n / 255)
      .map((n) => (n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [["text", "bg"], ["text", "surface"], ["muted", "bg"], ["muted", "surface"], ["muted", "raised"],
    ["accent", "surface"], ["accent", "accent-soft"], ["allow", "allow-soft"], ["deny", "deny-soft"],
    ["warn", "warn-soft"], ["deny", "surface"], ["allow", "surface"]];
  return Object.fromEntries(pairs.map(([a, b]) => {
    const [x, y] = [rgb(a), rgb(b)].sort((m, n) => n - m);
    return [`${a} on ${b}`, (x + 0.05) / (y + 0.05)];
  }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(open_page: Open, scheme: str) -> None:
    found = open_page("policies").evaluate(CONTRAST, scheme)
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 4.5} == {}


# --- who may read ----------------------------------------------------------------------------------------------------


def test_a_token_opens_the_page_in_the_browsers_own_dialogue(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse-battery\n")
    guarded = Serving(tmp_path, admin_token_file=tmp_path / "token")
    try:
        credentials = {"username": "me", "password": "correct-horse-battery"}
        page = open_page("decisions", base=guarded.admin, http_credentials=credentials)
        page.get_by_text("live", exact=True).wait_for()
        decision_id = guarded.ask(path="/cart/1", method="POST")["decision_id"]
        page.locator(f'a[href="#/decisions/{decision_id}"]').wait_for(timeout=SECONDS_TO_SHOW)
        answer = page.context.browser.new_context().request.get(f"{guarded.admin}/api/overview")
        assert answer.status == 401
    finally:
        assert guarded.stop() == 0


def test_it_stops_at_once_although_browsers_watch(open_page: Open, complaints: list[str], tmp_path: Path) -> None:
    watched = Serving(tmp_path)
    page = open_page("decisions", base=watched.admin)
    page.get_by_text("live", exact=True).wait_for()
    began = time.monotonic()
    assert watched.stop() == 0
    assert time.monotonic() - began < 4
    page.get_by_text("not connected").wait_for()
    page.close()
    assert all("ERR_" in complaint for complaint in complaints)
    complaints.clear()
