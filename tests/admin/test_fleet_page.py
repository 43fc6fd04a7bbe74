"""The page of a fleet in a real Chromium, served as a control plane does, from reports as replicas make them."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from authz.admin.access import Access, Guard
from authz.admin.fleet_page import fleet_file
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.control.authority.figures import make_app
from authz.truth.fleet_merge import merge_reports, view_json
from authz.truth.fleet_report import CONTROL, ProxyReport, RefusedResource, ReplicaReport, Reported
from tests.browser import chromium, needs_chromium, open_context

NOW = 1_780_000_000.0
WORDS = "cannot bind <img src=x onerror=alert(1)>"
CANDIDATE = CandidateStanding(8, "", CandidateState.REFUSED, f"it was signed by <b>{'n' * 300}")
PROXIES = (
    ProxyReport("web-v1", True, True, "", NOW - 90, NOW - 90, 0.0, NOW + 3600, candidate=8),
    ProxyReport(
        "api-v1", True, False, "6", NOW - 75, refused_at=NOW - 75, refusals=(RefusedResource("lds", "3", WORDS),)
    ),
    ProxyReport("pay-v1"),
)


class Fleet:
    """What a control plane adds to the authority's pages."""

    def figures(self) -> tuple[()]:
        return ()

    def causes(self) -> tuple[()]:
        return ()

    def page(self, path: str) -> object | None:
        if path != "/fleet/view":
            return fleet_file(path)
        report = ReplicaReport("control-1", CONTROL, NOW, "7", NOW - 600, "", NOW + 7200)
        late = ReplicaReport("control-2", CONTROL, NOW + 300, "7", NOW - 300, "", NOW + 7200, candidate=CANDIDATE)
        return view_json(merge_reports([Reported(NOW, report, PROXIES), Reported(NOW, late)], NOW))


@pytest.fixture
def base() -> Iterator[str]:
    app = Guard(make_app(lambda: pytest.fail("nobody asks the authority"), Fleet()), Access())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until = time.monotonic() + 10
            while not server.started:
                assert time.monotonic() < until
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.mark.parametrize(
    ("path", "status", "content_type"),
    [
        ("/", 200, "text/html; charset=utf-8"),
        ("/static/js/fleet.js", 200, "text/javascript; charset=utf-8"),
        ("/fleet/view", 200, "application/json"),
        ("/static/js/../../access.py", 404, "text/plain; version=0.0.4; charset=utf-8"),
        ("/static/index.html", 404, "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_files_of_the_page_and_no_others_are_served(base: str, path: str, status: int, content_type: str) -> None:
    answer = httpx.get(f"{base}{path}", timeout=10)
    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    assert "script-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_who_runs_what_and_finds_those_that_are_not_current(base: str) -> None:
    complaints: list[str] = []
    with chromium() as browser:
        page: Any = open_context(browser, base, complaints)
        page.goto(base)
        page.wait_for_selector("td")
        text = page.inner_text("#fleet")
        assert "clock 5 min ahead" in text
        assert WORDS in text, "what a proxy says is text, not markup"
        assert CANDIDATE.reason in text
        assert "candidate 8 refused" in text
        assert page.inner_text("#state") == "2 not current, 1 refusing the candidate"
        rows = page.locator("table").nth(1).locator("tbody tr")
        assert [rows.nth(at).locator("td").nth(1).inner_text() for at in range(3)] == ["refusing", "missing", "current"]
        assert rows.nth(2).locator("td").nth(2).inner_text() == "7\ncandidate 8"
        page.check("#lagging")
        assert rows.count() == 2
        page.fill("#search", "API")
        assert rows.locator("td").first.inner_text() == "api-v1"
    assert complaints == []
