"""What must hold when things go wrong or somebody tries to make them go wrong (section 0 of the facts about Envoy)."""

import json
from pathlib import Path
from time import time

import pytest

from authz.core.decision import Stage
from authz.tokens.signing import jwks_text, make_keys, sign_text
from tests.envoy.corpus import KEYS
from tests.envoy.live import running
from tests.envoy.simple import OPEN
from tests.service.recording import Recorder

pytestmark = [pytest.mark.envoy, pytest.mark.slow]


# --- the service fails -------------------------------------------------------------------------------------------


async def test_without_the_service_every_request_is_refused_with_503(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN) as live:
        assert (await live.ask("/open")).status == 200
        await live.bench.server.stop()
        refused = await live.ask("/open")
        assert (refused.status, refused.body, refused.forwarded) == (503, b"", None)


class Broken(Recorder):
    """An audit with a defect: the service's own failure, on every request."""

    def record(self, *_: object, **__: object) -> bool:
        raise RuntimeError("a defect")


async def test_own_failure_is_a_denial_that_failure_mode_allow_cannot_open(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN, audit=Broken(), failure_mode_allow=True) as live:
        refused = await live.ask("/open")
        assert (refused.status, refused.forwarded) == (503, None)
        assert live.bench.function.failures == 1
        await live.bench.server.stop()
        # The control: this Envoy does let everything pass when there is no answer at all.
        assert (await live.ask("/open")).status == 200


async def test_full_audit_queue_is_a_denial_that_failure_mode_allow_cannot_open(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN, audit=Recorder(accepts=False), failure_mode_allow=True) as live:
        refused = await live.ask("/open")
        assert (refused.status, refused.forwarded) == (503, None)


async def test_service_without_policies_refuses_even_with_failure_mode_allow(tmp_path: Path) -> None:
    async with running(tmp_path, None, failure_mode_allow=True) as live:
        refused = await live.ask("/open")
        assert (refused.status, refused.forwarded) == (503, None)


# --- the client lies ---------------------------------------------------------------------------------------------

BY_ADDRESS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: by-address, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: ["/remote"]}}]
    from: [{source: {remoteIpBlocks: ["192.0.2.0/24"]}}]
  - to: [{operation: {paths: ["/direct"]}}]
    from: [{source: {ipBlocks: ["192.0.2.0/24", "127.9.8.0/24"]}}]
"""
FORGED = (
    ("x-authz-remote-ip", "192.0.2.1"),
    ("x-authz-direct-ip", "192.0.2.1"),
    ("x-authz-decision-id", "f" * 24),
    ("x-envoy-external-address", "192.0.2.1"),
)


async def test_headers_of_the_names_that_envoy_tells_the_service_are_only_headers(tmp_path: Path) -> None:
    async with running(tmp_path, BY_ADDRESS) as live:
        for path in ("/remote", "/direct"):
            refused = await live.ask(path, *FORGED)
            assert refused.status == 403
            assert refused.header("x-authz-decision-id") == live.bench.audit.entries[-1].decision_id
            assert (live.last.source.ip, live.last.source.remote_ip) == ("10.9.9.9", "10.9.9.9")


async def test_addresses_without_proxy_protocol_are_those_of_the_connection(tmp_path: Path) -> None:
    request = "GET {} HTTP/1.1\r\nhost: api\r\nx-forwarded-for: {}\r\n\r\n"
    async with running(tmp_path, BY_ADDRESS, behind_proxy_protocol=False) as live:
        for path, forwarded, source, status in (
            ("/direct", "10.0.0.1", "127.9.8.7", 200),
            ("/direct", "192.0.2.1", "127.9.9.7", 403),
            ("/remote", "198.51.100.1, 192.0.2.1", "127.9.8.7", 200),
            ("/remote", "192.0.2.1, 198.51.100.1", "127.9.8.7", 403),  # never the leftmost (CS-10)
            ("/remote", "not an address", "127.9.8.7", 403),
        ):
            answer = await live.ask_bytes(request.format(path, forwarded).encode(), source, None)
            assert (path, forwarded, answer.status) == (path, forwarded, status)
            assert live.last.source.ip == source


TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: shop}}
spec:
  jwtRules:
  - issuer: https://idp.example
    jwks: '{jwks}'
    outputPayloadToHeader: x-payload
    outputClaimToHeaders:
    - {{header: x-sub, claim: sub}}
"""


@pytest.mark.parametrize(
    ("subject", "status", "seen"),
    [
        ("alice", 200, "alice"),
        ("a" * 3000, 200, "a" * 3000),
        ("a\r\nx-injected: 1", 200, None),
        ("a\nb", 200, None),
        ("a\0b", 200, None),
        ("žluťoučký", 200, "žluťoučký"),
        ("\ud800", 401, None),
    ],
)
async def test_claim_becomes_one_header_or_none_and_never_leaves_the_clients_own(
    subject: str, status: int, seen: str | None, tmp_path: Path
) -> None:
    key = make_keys({"main": {"kty": "RSA", "kid": "main"}}, KEYS)["main"]
    claims = {"iss": "https://idp.example", "sub": subject, "exp": int(time()) + 600}
    token = sign_text(b'{"alg":"RS256","kid":"main"}', json.dumps(claims).encode(), key, "RS256")
    async with running(tmp_path, TOKENS.format(jwks=jwks_text([key]))) as live:
        answer = await live.ask("/", ("authorization", f"Bearer {token}"), ("x-sub", "forged"), ("x-payload", "forged"))
        assert answer.status == status
        forwarded = answer.forwarded or {}
        assert "x-injected" not in forwarded
        assert forwarded.get("x-sub") == (None if seen is None else (seen,))
        assert forwarded.get("x-payload") == ((token.split(".")[1],) if status == 200 else None)


# --- unusual requests --------------------------------------------------------------------------------------------


async def test_grpc_denial_is_a_grpc_status(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN) as live:
        refused = await live.ask("/pkg.Service/Method", ("content-type", "application/grpc"), method="POST")
        assert refused.status == 200
        assert refused.header("grpc-status") == "7"
        assert refused.header("grpc-message") == "RBAC: access denied"
        assert refused.header("x-authz-decision-id") == live.bench.audit.entries[-1].decision_id
        assert refused.forwarded is None


async def test_head_is_decided_like_any_other_method(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN) as live:
        assert (await live.ask("/open", method="HEAD")).status == 200
        refused = await live.ask("/closed", method="HEAD")
        assert (refused.status, refused.body, refused.header("content-length")) == (403, b"", "19")


BY_HEADER = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: by-header, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {ports: ["8080"]}}]
    when: [{key: "request.headers[x-long]", values: ["*evil"]}]
  - to: [{operation: {ports: ["8080"]}}]
    when: [{key: "request.headers[x-name]", values: ["žluťoučký", "日本*"]}]
"""


async def test_long_headers_are_seen_whole_and_too_long_ones_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path, BY_HEADER) as live:
        for length, end, status in ((1, "good", 200), (60_000, "good", 200), (60_000, "evil", 403)):
            answer = await live.ask("/", ("x-long", "a" * length + end))
            assert (length, end, answer.status) == (length, end, status)
        assert (await live.ask("/", ("x-long", "a" * 62_000 + "good"))).status == 431
        assert len(live.bench.audit.entries) == 3


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("žluťoučký".encode(), 403),
        ("日本語".encode(), 403),
        ("žluťoučky".encode(), 200),
        ("žluťoučký".encode("iso-8859-2"), 200),
        (b"\xff\xfe\x80", 200),
    ],
)
async def test_bytes_of_headers_are_compared_as_they_are(value: bytes, status: int, tmp_path: Path) -> None:
    async with running(tmp_path, BY_HEADER) as live:
        answer = await live.ask_bytes(b"GET /%C3%A9 HTTP/1.1\r\nhost: api\r\nx-name: " + value + b"\r\n\r\n")
        assert answer.status == status
        assert live.bench.function.failures == 0


async def test_denial_of_unprintable_things_is_an_ordinary_denial(tmp_path: Path) -> None:
    async with running(tmp_path, OPEN) as live:
        data = b"GET /x%0d%0ax-injected:%201 HTTP/1.1\r\nhost: api\r\nx-a: \xff\x80\r\nx-a: \xc5\xbe\r\n\r\n"
        answer = await live.ask_bytes(data)
        assert (answer.status, answer.forwarded, answer.header("x-injected")) == (403, None, None)
        assert live.bench.audit.entries[-1].decision.stage is Stage.ALLOW
