"""The running demo seen from outside: one curl followed everywhere, and a real Prometheus with a real alert."""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.checks.afterwards import joined
from authz.demo.layout import Layout, ports_of
from authz.demo.prepare import plan
from authz.local.busy import busy_ports
from tests.browser import chromium, needs_chromium, open_context
from tests.prometheus import ask, needs_prometheus, scraping, wait_for

ROOT = Path(__file__).parent.parent.parent
POLICIES, MESH = ROOT / "policies", ROOT / "envoy-configs" / "mesh.yaml"

pytestmark = [pytest.mark.envoy, pytest.mark.slow]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Ports that nothing else uses, neither those of the demo's other tests."""
    first = 1050 + os.getpid() % 40 * 100
    for offset in range(first, first + 8000, 100):
        found = plan(tmp_path_factory.mktemp("demo"), POLICIES, MESH, offset=offset)
        if not busy_ports(ports_of(found.mesh, offset)):
            return found
    pytest.fail("no free ports")


@pytest.fixture(scope="module")
def demo(layout: Layout) -> Iterator[Layout]:
    """``authz demo``, as a user starts it."""
    arguments = ("--policies", str(POLICIES), "--mesh", str(MESH), "--state", str(layout.state))
    with subprocess.Popen(
        [sys.executable, "-m", "authz", "demo", *arguments, "--port-offset", str(layout.offset)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        said = ""
        for line in running.stdout:
            said += line
            if line.startswith("Decisions"):
                break
        else:
            pytest.fail(f"the demo did not start:\n{said}")
        try:
            yield layout
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=30)


def curl(layout: Layout, path: str, *options: str) -> str:
    """A real curl through the ingress gateway: the headers of the answer."""
    url = f"https://localhost:{layout.ingress_port}{path}"
    command = ["curl", "-s", "--noproxy", "*", "-D", "-", "-o", "/dev/null"]
    roots = ("--cacert", str(layout.state / "certs/web/ca.crt"))
    return subprocess.run([*command, *roots, *options, url], capture_output=True, text=True, check=True).stdout


def test_one_curl_is_found_in_spans_access_logs_and_records_of_every_hop(demo: Layout) -> None:
    """XA-169 to XA-173: the trace id finds Envoy's spans, ours below them, the access-log lines and the records."""
    trace_id = secrets.token_hex(16)
    answer = curl(
        demo,
        "/productpage?note=said-in-the-query",
        *("-H", f"authorization: Bearer {token_of(demo, 'alice')}", "-H", f"traceparent: 00-{trace_id}-{'1' * 16}-01"),
    )
    assert answer.startswith("HTTP/2 200")
    hops = {"ingressgateway", "productpage", "details", "reviews", "egressgateway"}
    wait_for(lambda: hops <= joined(demo.state / "logs", trace_id, [demo.audit_log], demo.spans))
    told = "".join(path.read_text() for path in [demo.spans, *(demo.state / "logs").glob("*.json*")])
    assert "said-in-the-query" not in told, "a query may hold a token"


def test_the_id_of_a_refusal_is_all_that_is_needed_to_find_the_rule_and_the_field(demo: Layout) -> None:
    found = re.search(r"x-authz-decision-id: (\S+)", curl(demo, "/productpage"))
    assert found is not None

    def told() -> str:
        command = [sys.executable, "-m", "authz", "audit", "show", found[1], "--log", str(demo.audit_log)]
        return subprocess.run(command, capture_output=True, text=True).stdout

    wait_for(told)
    assert "403 no ALLOW rule matched" in told()
    assert "nearest miss: istio-system/allow-readers/0" in told()
    assert "from[0].source.requestPrincipals" in told()


def token_of(layout: Layout, name: str) -> str:
    command = ["curl", "-s", "--noproxy", "*", f"{layout.issuer_url}/token/{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@needs_chromium
def test_a_person_signs_in_at_the_issuer_is_known_to_the_policies_and_signs_out(demo: Layout) -> None:
    gateway, complaints = f"https://localhost:{demo.ingress_port}", list[str]()
    with chromium() as browser:
        page = open_context(browser, (gateway, demo.issuer_url), complaints, ignore_https_errors=True)
        page.goto(f"{gateway}/")
        page.get_by_role("link", name="Sign in to read").click()
        page.get_by_role("button", name="Bob Moderator").click()
        page.wait_for_url(f"{gateway}/productpage")
        assert page.get_by_text("Signed in as Bob Moderator").is_visible()
        cookies = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("__Host-")]
        assert len(cookies) >= 5
        assert all(cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Lax" for cookie in cookies)
        page.get_by_role("link", name="Moderation").click()
        assert page.get_by_role("heading", name="Moderation").is_visible()
        assert page.goto(f"{gateway}/whoami").status == 200
        assert page.evaluate("fetch('/whoami').then(answer => answer.json())")["user"] == "Bob Moderator"
        # Another site's page posts: the cookies stay at home, so nobody moderates, and the gateway asks who it is.
        page.goto(f"{demo.issuer_url}/logout")
        page.evaluate(
            """target => { const form = document.createElement("form"); form.method = "post"; form.action = target;
            document.body.append(form); form.submit() }""",
            f"{gateway}/admin/reviews/Reviewer1?hidden=yes",
        )
        page.get_by_role("heading", name="Who are you?").wait_for()
        page.goto(f"{gateway}/productpage")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{gateway}/")
        assert page.get_by_role("link", name="Sign in", exact=True).is_visible()
        assert page.context.cookies() == []
        # Neither the issuer nor the gateway has an icon for pages that name none.
        assert [told for told in complaints if "Failed to load resource" not in told] == []
        page.goto(f"{gateway}/static/style.css")
        assert page.evaluate("fetch('/whoami').then(answer => answer.status)") == 401


SECONDS_TO_SHOW = 2_000
"""Milliseconds within which a denial must be on the page."""
EDGES = (
    "outside to ingressgateway: (partly denied|allowed)",
    "ingressgateway to productpage-v1: allowed",
    "productpage-v1 to details-v1: allowed",
    "details-v1 to egressgateway: allowed",
    *(f"productpage-v1 to reviews-v{version}: allowed" for version in (1, 2, 3)),
    "reviews to ratings-v1: allowed",
    "reviews to ratings-v2: allowed",
    "ratings-v2 to ratingsdb-v1: allowed",
)


@needs_chromium
def test_the_page_shows_the_running_demo(demo: Layout) -> None:
    """All services with rates and padlocks, a refusal at once, its rule in two clicks, and where a policy is broken."""
    bearer = ("-H", f"authorization: Bearer {token_of(demo, 'alice')}")
    complaints: list[str] = []
    base = f"http://127.0.0.1:{demo.admin_port}"
    for _ in range(12):
        curl(demo, "/productpage", *bearer)
    with chromium() as browser:
        page = open_context(browser, base, complaints)
        page.goto(f"{base}/#/graph")
        for edge in EDGES:
            inside = not edge.startswith("outside")
            words = rf"^{edge}, [\d.]+.(s|min).* mTLS {100 if inside else 0} %"
            page.get_by_role("button", name=re.compile(words)).wait_for(timeout=20_000)

        page.goto(f"{base}/#/decisions")
        page.get_by_text("live", exact=True).wait_for()
        found = re.search(r"x-authz-decision-id: (\S+)", curl(demo, "/productpage"))
        assert found is not None
        row = page.locator(f'a[href="#/decisions/{found[1]}"]')
        row.wait_for(timeout=SECONDS_TO_SHOW)
        assert "closest istio-system/allow-readers/0: requestPrincipals must be" in row.inner_text()

        curl(demo, "/productpage", *bearer)
        page.get_by_role("searchbox").click()
        page.keyboard.insert_text(found[1])
        page.locator("a.row").click()
        miss = page.locator("#nearest")
        miss.wait_for()
        assert re.search(r"10-ingress\.yaml:\d+", miss.inner_text())
        assert "from[0].source.requestPrincipals" in miss.inner_text()

        page.goto(f"{base}/#/policies")
        page.get_by_text("istio-system/allow-readers").first.wait_for()
        broken = demo.policies / "99-broken.yaml"
        broken.write_text("kind: AuthorizationPolicy\napiVersion: security.istio.io/v1\nmetadata: {nmae: x}\n")
        try:
            alert = page.get_by_role("alert")
            alert.wait_for(timeout=15_000)
            assert f"{broken}:3:" in alert.inner_text()
        finally:
            broken.unlink()
        alert.wait_for(state="detached", timeout=15_000)
    assert complaints == []


@needs_prometheus
def test_a_real_prometheus_scrapes_the_demo_and_raises_an_alert(demo: Layout, tmp_path: Path) -> None:
    """Policies that were refused raise it, and their repair ends it."""
    curl(demo, "/")
    refused = 'ALERTS{alertname="AuthzReloadRefused"}'
    with scraping(tmp_path, f"127.0.0.1:{demo.admin_port}") as prometheus:
        wait_for(
            lambda: ask(prometheus, 'authz_decisions_total{workload="ingressgateway", policy="allow-everybody"} > 0')
        )
        wait_for(lambda: ask(prometheus, 'authz_certificate_expiry_timestamp_seconds{kind="workload"} - time() > 900'))
        assert ask(prometheus, "pilot_jwks_resolver_network_fetch_success_total > 0")
        assert not ask(prometheus, 'ALERTS{alertstate="firing"}')
        assert not ask(prometheus, refused)
        broken = demo.policies / "99-broken.yaml"
        broken.write_text("kind: AuthorizationPolicy\n")
        wait_for(lambda: ask(prometheus, refused))
        broken.unlink()
        wait_for(lambda: not ask(prometheus, refused))
