from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz.admin.administration import create_app
from authz.admin.health import judge_health
from authz.core.errors import Location, Problem, Severity
from authz.telemetry.counters import Telemetry
from authz.telemetry.status import (
    CertificateStatus,
    KeySetStatus,
    PeerTrustStatus,
    PolicySourceStatus,
    RateLimitStatus,
    ReloadStatus,
    ServiceStatus,
    SinkStatus,
    TrailStatus,
)

NOW = 1_700_000_000.0
READY = ServiceStatus(ReloadStatus("v1", NOW - 10), (KeySetStatus("oidc:https://issuer", 2, NOW - 5),))
TRAIL = TrailStatus(0, 100, 5, 0, 0, 0, (SinkStatus("stdout", 5),), "", True)
REFUSED = Problem(Severity.ERROR, "VA-24", "`10.0.0.0/33` is not a CIDR block", Location("policies/a.yaml", 14, 11))


def broken() -> ServiceStatus:
    raise RuntimeError("our mistake")


async def get(path: str, status: Callable[[], ServiceStatus], trail: TrailStatus = TRAIL) -> httpx.Response:
    app = create_app(
        status, lambda: trail, Telemetry(), lambda: NOW, routes=[Route("/more", PlainTextResponse("more"))]
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("service", "trail", "ready", "messages"),
    [
        ({}, {}, True, []),
        ({"reload": ReloadStatus()}, {}, False, ["no policies are loaded yet"]),
        (
            {"reload": ReloadStatus("v1", NOW, False, problems=(REFUSED,))},
            {},
            True,
            [
                "the last change was refused, version v1 stays: "
                "policies/a.yaml:14:11: error: `10.0.0.0/33` is not a CIDR block [VA-24]"
            ],
        ),
        ({"key_sets": (KeySetStatus("uri:x"),)}, {}, False, ["uri:x is being fetched"]),
        (
            {"key_sets": (KeySetStatus("uri:x", 1, NOW, skipped=("keys[0] (kid `a`): `n` is missing",)),)},
            {},
            True,
            ["not all of uri:x is used: keys[0] (kid `a`): `n` is missing"],
        ),
        (
            {"key_sets": (KeySetStatus("uri:x", error="refused"),)},
            {},
            True,
            ["uri:x was never read, its tokens are denied: refused"],
        ),
        (
            {"key_sets": (KeySetStatus("uri:x", 1, NOW, "timeout"),)},
            {},
            True,
            ["uri:x cannot be refreshed, the last good keys stay: timeout"],
        ),
        ({"is_draining": True}, {}, False, ["draining: no new requests are wanted"]),
        ({}, {"is_running": False}, False, ["the audit writer is not running"]),
        ({}, {"sinks": (SinkStatus("otlp", 5, 1, 1, "gone"),)}, True, ["sink otlp fails: gone"]),
        ({}, {"sinks": (SinkStatus("otlp", 0, 1, 1, "gone"),)}, False, ["sink otlp fails: gone"]),
        ({}, {"sinks": (SinkStatus("file", 5, 0, 1, "full"),), "denies": True}, False, ["sink file fails: full"]),
        ({}, {"queued": 100, "dropped": 7}, True, ["the queue is full: 7 decisions have no record"]),
        ({}, {"queued": 100, "dropped": 7, "denies": True}, False, ["the queue is full: 7 decisions have no record"]),
        ({}, {"tracing": "no collector"}, True, ["no collector"]),
        (
            {"certificates": (CertificateStatus("workload", NOW - 1, "bookinfo", "reviews-v2"),)},
            {},
            True,
            ["the workload certificate of reviews-v2.bookinfo has expired"],
        ),
        ({"certificates": (CertificateStatus("root", NOW + 1),)}, {}, True, []),
        ({"peer_trust": PeerTrustStatus(NOW, "", 1)}, {}, True, []),
        ({"rate_limits": RateLimitStatus({})}, {}, True, []),
        (
            {"rate_limits": RateLimitStatus({}, problem="refused")},
            {},
            True,
            ["requests are not counted, the store does not answer: refused"],
        ),
        ({"policy_source": PolicySourceStatus("https://h/b", "7")}, {}, True, []),
        (
            {"policy_source": PolicySourceStatus("https://h/b", "7", error="it expired", is_kept=True)},
            {},
            True,
            ["https://h/b: revision 7 stays, as it was kept on disk: it expired"],
        ),
        ({"tls_problem": "no PEM"}, {}, True, ["the last good certificate of the port stays: no PEM"]),
        (
            {"peer_trust": PeerTrustStatus(NOW, "revoked.txt:1:1: no serial number", 1, 1)},
            {},
            True,
            [
                "a change of trust bundles or revocations was refused, the last good ones stay: "
                "revoked.txt:1:1: no serial number"
            ],
        ),
    ],
)
def test_health_names_its_causes_and_what_blocks(
    service: dict[str, Any], trail: dict[str, Any], ready: bool, messages: list[str]
) -> None:
    health = judge_health(replace(READY, **service), replace(TRAIL, **trail), NOW)
    assert health.is_ready is ready
    assert [cause.message for cause in health.causes] == messages


@pytest.mark.parametrize(
    ("path", "status", "code", "word", "causes"),
    [
        ("/livez", READY, 200, "alive", None),
        ("/livez", ServiceStatus(), 200, "alive", None),
        ("/readyz", READY, 200, "ready", []),
        ("/readyz", ServiceStatus(), 503, "not ready", ["policies"]),
        ("/readyz", replace(READY, key_sets=(KeySetStatus("x", 1, NOW, "late"),)), 200, "ready", []),
        ("/healthz", READY, 200, "healthy", []),
        ("/healthz", replace(READY, key_sets=(KeySetStatus("x", 1, NOW, "late"),)), 200, "attention", ["keys"]),
        ("/healthz", ServiceStatus(is_draining=True), 503, "not ready", ["service", "policies"]),
    ],
)
async def test_the_endpoints_answer_with_a_list_of_causes(
    path: str, status: ServiceStatus, code: int, word: str, causes: list[str] | None
) -> None:
    answer = await get(path, lambda: status)
    body = answer.json()
    assert (answer.status_code, body["status"]) == (code, word)
    assert answer.headers["cache-control"] == "no-store"
    if causes is not None:
        assert [cause["part"] for cause in body["causes"]] == causes


async def test_metrics_are_served_in_the_form_that_was_asked_for() -> None:
    answer = await get("/metrics", lambda: READY)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'authz_policy_info{version="v1"} 1.0' in answer.text
    assert "authz_ready 1.0" in answer.text


@pytest.mark.parametrize(("path", "code"), [("/readyz", 500), ("/healthz", 500), ("/livez", 200), ("/metrics", 200)])
async def test_a_status_that_cannot_be_read_is_an_answer_too(path: str, code: int) -> None:
    answer = await get(path, broken)
    assert answer.status_code == code
    assert "our mistake" not in answer.text


async def test_routes_can_be_added_and_unknown_ones_are_unknown() -> None:
    assert (await get("/more", lambda: READY)).text == "more"
    for path in ("/nothing", "/health", "/ready", "/healthz/", "/metrics/"):
        answer = await get(path, lambda: READY)
        assert answer.status_code == 404
        assert {"/livez", "/readyz", "/healthz", "/metrics"} <= set(answer.json()["paths"])
