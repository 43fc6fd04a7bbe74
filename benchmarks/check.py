"""
Cost of the check function: CheckRequest bytes to CheckResponse bytes, as Envoy sends and expects them.

    python benchmarks/check.py [-n CHECKS] [-o table|json]

The request is a real sidecar's: mTLS identity, 19 headers, an RS256 token of 780 bytes that was verified before; path,
ids and trace differ from request to request. CPU is that of the whole process, the audit writer's thread included; the
records are written to a file as JSON lines. As in the service, checks come from an event loop, a few at a time.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from authz._proto import ext_authz_pb2 as pb
from authz.audit.entry import Sink
from authz.audit.sinks import StreamSink
from authz.audit.trail import AuditTrail
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.garbage import settle
from authz.service.loading.snapshot import load_snapshot
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from authz.tokens.signing import jwks_text, make_keys, make_token

POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: bookinfo}}
spec:
  jwtRules:
  - issuer: https://idp.example
    jwks: '{jwks}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: reviews, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  rules:
  - from: [{{source: {{principals: ["cluster.local/ns/bookinfo/sa/productpage"]}}}}]
    to: [{{operation: {{methods: ["GET"], paths: ["/reviews/*"]}}}}]
    when: [{{key: "request.auth.claims[roles]", values: ["reader"]}}]
"""


class Nothing:
    """No audit at all."""

    def record(self, *_: object) -> bool:
        return True


MESSAGES = 512
AT_ONCE = 16
"""Checks between two turns of the event loop: as many as callers wait at saturation."""


def message(token: str, number: int = 0, *, path: str = "", merged: bool = False) -> bytes:
    """
    A CheckRequest of about 2 kB; ``number`` makes it differ from others as requests do.

    ``merged`` writes headers as most servers want them, a map of text, instead of raw ones.
    """
    request = pb.CheckRequest()
    attributes = request.attributes
    source = pb.Peer(principal="spiffe://cluster.local/ns/bookinfo/sa/productpage")
    source.address.socket_address.address = "10.0.0.7"
    source.address.socket_address.port_value = 41234
    attributes.source = source.SerializeToString()
    destination = pb.Peer(principal="spiffe://cluster.local/ns/bookinfo/sa/reviews")
    destination.address.socket_address.address = "10.0.0.9"
    destination.address.socket_address.port_value = 9080
    for name, value in (
        ("app", "reviews"), ("version", "v2"), ("authz/namespace", "bookinfo"),
        ("authz/service-account", "reviews"), ("authz/workload", "reviews-v2"),
    ):  # fmt: skip
        destination.labels[name] = value
    attributes.destination = destination.SerializeToString()
    attributes.tls_session.sni = "reviews.bookinfo.svc"
    http = attributes.request.http
    path = path or f"/reviews/{number}?lang=en"
    http.id, http.method, http.host, http.path = f"{11280866400 + number}", "GET", "reviews:9080", path
    http.scheme, http.protocol = "http", "HTTP/1.1"
    for name, value in (
        (":authority", "reviews:9080"), (":path", path), (":method", "GET"), (":scheme", "http"),
        ("user-agent", "python-httpx/0.28.1"), ("accept", "*/*"), ("accept-encoding", "gzip, deflate"),
        ("x-request-id", f"3e507953-bac7-49fb-a1ed-{number:012x}"), ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "10.0.0.7"), ("authorization", f"Bearer {token}"), ("cookie", "session=abcdef; theme=dark"),
        ("traceparent", f"00-0af7651916cd43dd8448eb21{number:08x}-b7ad6b7169203331-00"), ("x-b3-sampled", "0"),
        ("x-envoy-attempt-count", "1"), ("cache-control", "no-cache"), ("accept-language", "en-GB,en;q=0.9"),
        ("x-tenant", "blue"), ("x-forwarded-client-cert", "By=spiffe://cluster.local/ns/bookinfo/sa/reviews;Hash=ab"),
    ):  # fmt: skip
        if merged:
            http.headers[name] = value
        else:
            http.header_map.headers.add(key=name, raw_value=value.encode())
    return request.SerializeToString()


@dataclass(frozen=True)
class Prepared:
    """Everything that a run takes."""

    function: CheckFunction
    trail: AuditTrail
    messages: list[bytes]
    now: float


def prepare(directory: Path, capacity: int, *, audited: bool) -> Prepared:
    """Policies and token in force; the first check is done, so that the token is known."""
    keys = make_keys({"main": {"kty": "RSA", "kid": "main"}})
    now = time.time()
    filler = {"groups": [f"group-{number}" for number in range(18)], "roles": ["reader"]}
    claims = {"iss": "https://idp.example", "sub": "alice", "exp": int(now) + 36_000, **filler}
    token = make_token({"key": "main", "claims": claims}, keys, now)
    text = jwks_text(keys.values())
    policies = directory / "policies.yaml"
    policies.write_text(POLICIES.format(jwks=text))
    descriptor = os.open(directory / "audit.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sinks: tuple[Sink, ...] = (StreamSink(descriptor, "file"),)
    trail = AuditTrail(sinks, capacity=capacity)
    key_sets = {"inline:bookinfo/jwt/0": KeySetState(read_key_set(text), now)}
    function = CheckFunction(trail if audited else Nothing(), DecisionIds(now, b"abc"), lambda: key_sets)
    function.replace(load_snapshot(policies, None, now))
    settle()
    messages = [message(token, number) for number in range(MESSAGES)]
    answer = function.check(messages[0], METADATA, now)
    assert isinstance(answer, bytes)
    assert pb.CheckResponse.FromString(answer).status.code == 0, answer
    return Prepared(function, trail, messages, now)


METADATA = (("x-authz-remote-ip", "10.0.0.7"), ("x-authz-direct-ip", "10.0.0.7"))


async def measure(checks: int, *, audited: bool, directory: Path) -> dict[str, float]:
    """Microseconds per check: CPU of the whole process, and wall time of the event loop."""
    prepared = prepare(directory, 2 * checks, audited=audited)
    check, messages, now = prepared.function.check, prepared.messages, prepared.now
    if audited:
        prepared.trail.start(asyncio.get_running_loop().call_soon)
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(0, checks, AT_ONCE):
        for other in range(number, number + AT_ONCE):
            check(messages[other % MESSAGES], METADATA, now)
        await asyncio.sleep(0)
    walked = time.perf_counter() - wall
    if audited:
        assert prepared.trail.flush(120)
    used = time.process_time() - cpu
    if audited:
        prepared.trail.close()
        assert prepared.trail.status().dropped == 0
    size = sum(map(len, messages)) / MESSAGES
    return {"cpu_us": used / checks * 1e6, "wall_us": walked / checks * 1e6, "request_bytes": size}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20_000, help="checks a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    results = {}
    for name, audited in (("no audit", False), ("audit on", True)):
        runs = []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as directory:
                runs.append(asyncio.run(measure(options.n, audited=audited, directory=Path(directory))))
        results[name] = {key: median(run[key] for run in runs) for key in runs[0]}
    if options.output == "json":
        print(json.dumps(results))
        return 0
    print(
        f"check function, cached RS256 token, request of {results['no audit']['request_bytes']:.0f} bytes, "
        f"median of {options.runs}"
    )
    for name, row in results.items():
        print(f"{name:10}  {row['cpu_us']:6.1f} µs CPU a check   {row['wall_us']:6.1f} µs wall in the event loop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
