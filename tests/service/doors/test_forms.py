"""What each form of question must have, and what is answered."""

from pathlib import Path

import httpx
import pytest

from authz.core.attributes import UNKNOWN
from tests.service.doors.opened import WHOLE, asked

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - to: [{operation: {paths: ["/open*"], methods: [GET], hosts: [shop.example]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-bad, namespace: shop}
spec: {action: DENY, rules: [{when: [{key: "request.headers[x-bad]", values: ["*"]}]}]}
"""
ASKED = {
    "nginx": {
        "x-original-method": "GET", "x-original-uri": "/open?a=1", "x-original-host": "shop.example",
        "x-real-ip": "192.0.2.7",
    },
    "forward-auth": {
        "x-forwarded-method": "GET", "x-forwarded-uri": "/open?a=1", "x-forwarded-host": "shop.example",
        "x-forwarded-for": "192.0.2.7",
    },
    "envoy-http": {"host": "shop.example", "x-authz-remote-ip": "192.0.2.7"},
}  # fmt: skip
EACH = pytest.mark.parametrize("kind", list(ASKED))


def target(kind: str) -> str:
    return "/open?a=1" if kind == "envoy-http" else "/"


@EACH
async def test_a_question_in_its_form_is_judged_as_the_request_that_it_tells_of(kind: str, tmp_path: Path) -> None:
    async with asked(POLICIES, tmp_path, kind, **WHOLE) as door:
        answer = await door.client.get(target(kind), headers=ASKED[kind])
        seen = door.records.entries[0].attributes
    assert (answer.status_code, answer.content) == (200, b"")
    assert seen.http is not None
    assert (seen.http.method, seen.http.host, seen.http.path) == ("GET", "shop.example", "/open?a=1")
    assert seen.source.remote_ip == "192.0.2.7"
    assert (seen.sni, seen.destination.port, seen.destination.ip, seen.metadata) == (UNKNOWN,) * 4


@EACH
@pytest.mark.parametrize("change", [{"x-bad": "1"}, {"X-BAD": ""}])
async def test_a_refusal_says_what_istio_says(kind: str, change: dict[str, str], tmp_path: Path) -> None:
    async with asked(POLICIES, tmp_path, kind, **WHOLE) as door:
        answer = await door.client.get(target(kind), headers={**ASKED[kind], **change})
    assert (answer.status_code, answer.text) == (403, "RBAC: access denied")
    assert answer.headers["x-authz-decision-id"] == door.records.entries[0].decision_id


@pytest.mark.parametrize(
    ("kind", "header", "wrong"),
    [
        (kind, name, wrong)
        for kind, told in ASKED.items()
        for name in told
        for wrong in ("missing", "twice", "empty", "not ASCII")
        if name != "host" or wrong in ("empty", "not ASCII")  # HTTP itself refuses the others
    ],
)
async def test_a_header_of_the_form_that_is_not_there_once_refuses(
    kind: str, header: str, wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that forgets to write one would let its clients write it."""
    headers: list[tuple[str, str]] = [(name, value) for name, value in ASKED[kind].items() if name != header]
    value = ASKED[kind][header]
    headers += {
        "missing": [], "twice": [(header, value)] * 2, "empty": [(header, "")], "not ASCII": [(header, f"{value}é")],
    }[wrong]  # fmt: skip
    async with asked(POLICIES, tmp_path, kind, **WHOLE) as door:
        raw = [(name.encode(), text.encode()) for name, text in headers]
        answer = await door.client.get(target(kind), headers=raw)
        assert door.records.entries == []
    assert (answer.status_code, answer.text) == (403, "RBAC: access denied")
    assert f"`{header}`" in caplog.text


@pytest.mark.parametrize("kind", ["nginx", "forward-auth"])
@pytest.mark.parametrize(
    ("path", "mesh", "status"),
    [
        ("/open/../shut", "", 400), ("/shut/../open", "", 400), ("/open%41", "", 400), ("/open\\a", "", 400),
        ("/open#a", "", 400), ("/open;/..;/shut", "", 400), ("http://shop.example/open", "", 400), ("open", "", 400),
        ("//open", "", 403), ("/open//a", "", 200),
        ("/open//a", "pathNormalization: {normalization: MERGE_SLASHES}\n", 400),
        ("/open%2Fa", "pathNormalization: {normalization: MERGE_SLASHES}\n", 200),
        ("/open%2Fa", "pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\n", 400),
        ("/open%2Fa", "", 200),
        ("/open/../a", "pathNormalization: {normalization: NONE}\n", 200),
    ],
)  # fmt: skip
async def test_a_path_that_is_not_in_normal_form_is_refused_because_it_would_be_forwarded_as_it_is(
    kind: str, path: str, mesh: str, status: int, tmp_path: Path
) -> None:
    name = "x-original-uri" if kind == "nginx" else "x-forwarded-uri"
    async with asked(POLICIES, tmp_path, kind, mesh=mesh, **WHOLE) as door:
        answer = await door.client.get("/", headers={**ASKED[kind], name: path})
    expected = 403 if kind == "nginx" and status == 400 else status  # nginx would make an error of 400
    assert answer.status_code == expected
    assert (door.records.entries[0].decision.stage == "normalization") == (status == 400)


@pytest.mark.parametrize(
    ("target", "status"), [("/check/open", 200), ("/open", 403), ("/checked/open", 403), ("/check", 403), ("/", 403)]
)
async def test_the_prefix_of_an_envoy_is_cut_from_the_path_and_must_be_there(
    target: str, status: int, tmp_path: Path
) -> None:
    async with asked(POLICIES, tmp_path, "envoy-http", path_prefix="/check/", **WHOLE) as door:
        answer = await door.client.get(target, headers=ASKED["envoy-http"])
        assert len(door.records.entries) == (status == 200)
    assert answer.status_code == status


@pytest.mark.parametrize(("kind", "status"), [("nginx", 403), ("envoy-http", 403), ("forward-auth", 503)])
async def test_a_failure_of_ours_is_a_refusal_that_no_proxy_takes_for_leave_to_go_on(
    kind: str, status: int, tmp_path: Path
) -> None:
    """XA-95: an Envoy with ``failure_mode_allow`` lets go what a server's error answers."""
    async with asked(POLICIES, tmp_path, kind, **WHOLE) as door:
        door.records._accepts = False  # the queue is full, and the setting says deny
        answer = await door.client.get(target(kind), headers=ASKED[kind])
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("gateway", "proxies", "forwarded", "known"),
    [
        (True, 0, "192.0.2.7", True), (True, 0, "10.0.0.1, 192.0.2.7", True), (True, 1, "192.0.2.7", False),
        (False, 0, "192.0.2.7", False), (True, 0, "unknown", False),
    ],
)  # fmt: skip
async def test_traefik_and_caddy_tell_the_peer_who_is_the_client_only_where_no_proxy_is_trusted(
    gateway: bool, proxies: int, forwarded: str, known: bool, tmp_path: Path
) -> None:
    mesh = f"defaultConfig: {{gatewayTopology: {{numTrustedProxies: {proxies}}}}}\n"
    headers = {**ASKED["forward-auth"], "x-forwarded-for": forwarded}
    async with asked(POLICIES, tmp_path, "forward-auth", mesh=mesh, **{**WHOLE, "gateway": gateway}) as door:
        await door.client.get("/", headers=headers)
        source = door.records.entries[0].attributes.source
    assert source.remote_ip == ("192.0.2.7" if known else UNKNOWN)
    assert source.ip == (UNKNOWN if forwarded == "unknown" else "192.0.2.7")


async def test_occurrences_of_a_header_arrive_as_envoy_keeps_them(tmp_path: Path) -> None:
    headers = [*ASKED["nginx"].items(), ("Accept", "a"), ("Accept", "b"), ("X-Two", "1"), ("X-Two", "2")]
    async with asked(POLICIES, tmp_path, "nginx", **WHOLE) as door:
        await door.client.get("/", headers=httpx.Headers(headers))
        http = door.records.entries[0].attributes.http
    assert http is not None
    assert http.headers["x-two"] == ("1", "2")
    assert http.headers["accept"][-1].endswith("a,b")
    assert not {"x-original-uri", "x-real-ip", "host", "connection"} & set(http.headers)
