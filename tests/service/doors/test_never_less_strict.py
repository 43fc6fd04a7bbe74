"""A door lets nothing pass that the same request, told by an Envoy with every fact, would not (CS-7, CS-8)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.doors.opened import WHOLE, WORKLOAD, asked, checking
from tests.service.doors.test_forms import ASKED, target
from tests.service.messages import check_request, peer, response

DESTINATION = peer("", "10.1.0.5", 8080, {"app": "api", "authz/namespace": "shop", "authz/proxy": "gateway"})
PEERS = {
    "plaintext": peer("", "192.0.2.7"),
    "a mesh identity": peer("spiffe://cluster.local/ns/web/sa/front", "192.0.2.7"),
    "another identity": peer("spiffe://other.example/ns/a/sa/b", "192.0.2.7"),
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "principals": {"from": [{"source": {"principals": ["cluster.local/ns/web/sa/front"]}}]},
    "notPrincipals": {"from": [{"source": {"notPrincipals": ["cluster.local/ns/web/sa/front"]}}]},
    "namespaces": {"from": [{"source": {"namespaces": ["web"]}}]},
    "notNamespaces": {"from": [{"source": {"notNamespaces": ["web"]}}]},
    "serviceAccounts": {"from": [{"source": {"serviceAccounts": ["web/front"]}}]},
    "notServiceAccounts": {"from": [{"source": {"notServiceAccounts": ["web/front"]}}]},
    "ipBlocks": {"from": [{"source": {"ipBlocks": ["192.0.2.0/24"]}}]},
    "notIpBlocks": {"from": [{"source": {"notIpBlocks": ["192.0.2.0/24"]}}]},
    "remoteIpBlocks": {"from": [{"source": {"remoteIpBlocks": ["192.0.2.0/24"]}}]},
    "notRemoteIpBlocks": {"from": [{"source": {"notRemoteIpBlocks": ["192.0.2.0/24"]}}]},
    "ports": {"to": [{"operation": {"ports": ["8080"]}}]},
    "notPorts": {"to": [{"operation": {"notPorts": ["8080"]}}]},
    "sni": {"when": [{"key": "connection.sni", "values": ["shop.example"]}]},
    "not sni": {"when": [{"key": "connection.sni", "notValues": ["shop.example"]}]},
    "destination.ip": {"when": [{"key": "destination.ip", "values": ["10.1.0.0/16"]}]},
    "not destination.ip": {"when": [{"key": "destination.ip", "notValues": ["10.1.0.0/16"]}]},
    "metadata": {"when": [{"key": "experimental.envoy.filters.http.x[k]", "values": ["v"]}]},
    "not metadata": {"when": [{"key": "experimental.envoy.filters.http.x[k]", "notValues": ["v"]}]},
    "a header that it passes on": {"when": [{"key": "request.headers[x-kind]", "values": ["a"]}]},
    "no such header": {"when": [{"key": "request.headers[x-kind]", "notValues": ["*"]}]},
    "a header of the form": {"when": [{"key": "request.headers[x-real-ip]", "values": ["*"]}]},
    "no header of the form": {"when": [{"key": "request.headers[x-forwarded-for]", "notValues": ["*"]}]},
    "a header of the connection": {"when": [{"key": "request.headers[te]", "values": ["trailers"]}]},
    "host": {"to": [{"operation": {"hosts": ["shop.example"]}}]},
    "paths": {"to": [{"operation": {"paths": ["/open*"]}}]},
    "notMethods": {"to": [{"operation": {"notMethods": ["GET"]}}]},
}
VOUCHED = {"a header that it passes on", "no such header", "host", "paths", "notMethods"}


def policy(action: str, condition: dict[str, Any]) -> str:
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
    return f"{head}spec: {json.dumps({'action': action, 'rules': [condition]})}\n"


def over_grpc(text: str, folder: Path) -> dict[str, bool]:
    """Whether an Envoy that tells everything is answered with leave to go on, by who connected to it."""
    function, _ = checking(text, folder)
    facts: dict[str, Any] = {
        "path": "/open?a=1",
        "host": "shop.example",
        "destination": DESTINATION,
        "headers": [("x-kind", "a")],
    }
    metadata = (("x-authz-remote-ip", "192.0.2.7"),)
    answers = {name: function.check(check_request(source=one, **facts), metadata, 0.0) for name, one in PEERS.items()}
    return {name: response(answer).status.code == 0 for name, answer in answers.items()}


@pytest.mark.parametrize("condition", list(CONDITIONS))
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
async def test_what_a_door_lets_pass_an_envoy_lets_pass_whoever_connected(
    condition: str, action: str, tmp_path: Path
) -> None:
    text = policy(action, CONDITIONS[condition])
    grpc = over_grpc(text, tmp_path)
    for kind in ASKED:
        passes = {}
        for whole in (True, False):
            async with asked(text, tmp_path, kind, **{**WHOLE, "all_headers": whole}) as door:
                answer = await door.client.get(target(kind), headers={**ASKED[kind], "x-kind": "a"})
            passes[whole] = answer.status_code == 200
        assert not passes[True] or all(grpc.values()), kind
        assert passes[True] or not passes[False], kind
        if condition in VOUCHED:  # what it does vouch for is decided as by gRPC, not refused from caution
            assert {passes[True]} == set(grpc.values()), kind


@pytest.mark.parametrize("kind", list(ASKED))
@pytest.mark.parametrize(
    ("mode", "gateway", "status"), [("STRICT", False, 403), ("PERMISSIVE", False, 200), ("STRICT", True, 200)]
)
async def test_a_port_that_is_strict_takes_no_request_from_a_door_unless_it_is_a_gateway(
    kind: str, mode: str, gateway: bool, status: int, tmp_path: Path
) -> None:
    """PA-9, PA-14: whether there was mTLS is unknown."""
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\n"
    async with asked(f"{text}spec: {{mtls: {{mode: {mode}}}}}\n", tmp_path, kind, **{**WHOLE, "gateway": gateway}) as d:
        answer = await d.client.get(target(kind), headers=ASKED[kind])
    assert answer.status_code == status


CUSTOM_MESH = """
extensionProviders:
- name: judge
  envoyExtAuthzHttp: {service: judge.example, port: 80, failOpen: true}
"""
CUSTOM = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: CUSTOM, provider: {name: judge}, rules: [{}]}
"""


@pytest.mark.parametrize("kind", list(ASKED))
async def test_an_external_authorizer_is_not_asked_about_half_a_request(kind: str, tmp_path: Path) -> None:
    async with asked(CUSTOM, tmp_path, kind, mesh=CUSTOM_MESH, **WHOLE) as door:
        answer = await door.client.get(target(kind), headers=ASKED[kind])
        assert "not all known" in door.why
    assert answer.status_code == 403


TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
  - issuer: https://issuer.test
    jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}'
"""


@pytest.mark.parametrize(
    ("kind", "whole", "status"),
    [
        ("nginx", True, 200), ("nginx", False, 403), ("forward-auth", True, 200), ("forward-auth", False, 403),
        ("envoy-http", True, 200), ("envoy-http", False, 200),
    ],
)  # fmt: skip
async def test_a_request_without_a_token_is_one_only_where_the_proxy_would_have_told(
    kind: str, whole: bool, status: int, tmp_path: Path
) -> None:
    """An Envoy always passes on ``authorization``; of another, only the door's configuration knows."""
    async with asked(TOKENS, tmp_path, kind, **{**WHOLE, "all_headers": whole}) as door:
        answer = await door.client.get(target(kind), headers=ASKED[kind])
        bad = await door.client.get(target(kind), headers={**ASKED[kind], "authorization": "Bearer a.b.c"})
    assert (answer.status_code, bad.status_code) == (status, 401)
    assert bad.headers["www-authenticate"].startswith("Bearer realm=")


@pytest.mark.parametrize(
    ("location", "status"),
    [("fromHeaders: [{name: x-real-ip}]", 403), ("fromHeaders: [{name: x-token}]", 200)],
)
async def test_a_token_in_a_header_that_the_proxy_writes_itself_is_not_believed_to_be_absent(
    location: str, status: int, tmp_path: Path
) -> None:
    async with asked(TOKENS + f"    {location}\n", tmp_path, "nginx", **WHOLE) as door:
        answer = await door.client.get("/", headers=ASKED["nginx"])
    assert answer.status_code == status


@pytest.mark.parametrize("kind", list(ASKED))
async def test_policies_of_the_selected_workload_hold(kind: str, tmp_path: Path) -> None:
    text = policy("DENY", {}).replace('"action"', '"selector": {"matchLabels": {"app": "api"}}, "action"')
    async with asked(text, tmp_path, kind, **WORKLOAD) as door:
        answer = await door.client.get(target(kind), headers=ASKED[kind])
    assert answer.status_code == 403
