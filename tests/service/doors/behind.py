"""A real proxy before a door, an application that says what it was sent, and the questions that all must pass."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt

from tests.envoy.simple import until_it_listens
from tests.service.doors.opened import Open

KEY = b"secret-secret-secret-secret-secret"
POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who-may, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - to: [{operation: {paths: ["/open*"], hosts: ["127.0.0.1:*"], methods: [GET, POST]}}]
    from: [{source: {remoteIpBlocks: [127.0.0.0/8]}}]
  - to: [{operation: {paths: ["/mine"]}}]
    from: [{source: {requestPrincipals: ["https://issuer.test/alice"]}}]
  - to: [{operation: {paths: ["/identity"]}}]
    from: [{source: {notPrincipals: ["cluster.local/ns/bad/sa/bad"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-bad, namespace: shop}
spec: {action: DENY, rules: [{when: [{key: "request.headers[x-bad]", values: ["*"]}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
  - issuer: https://issuer.test
    jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}'
    outputClaimToHeaders: [{header: x-subject, claim: sub}]
    forwardOriginalToken: true
"""
DOOR: dict[str, Any] = {
    "namespace": "shop", "labels": {"app": "web"}, "gateway": True, "all_headers": True,
    "upstream_headers": ["x-subject"],
}  # fmt: skip


def bearer(subject: str) -> dict[str, str]:
    token = jwt.encode({"iss": "https://issuer.test", "sub": subject}, KEY, "HS256")
    return {"authorization": f"Bearer {token}"}


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    sent = {"line": head[0], "headers": [line.lower() for line in head[1:] if line]}
    body = json.dumps(sent).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def application() -> AsyncIterator[int]:
    """Its port; it answers what it was sent."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def proxy(command: Sequence[str], port: int, **environment: str) -> AsyncIterator[httpx.AsyncClient]:
    """A proxy as a process, once it listens."""
    process = subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, **environment}, start_new_session=True)  # noqa: ASYNC220  # does not wait
    try:
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            await until_it_listens(client, port)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


async def raw(port: int, line: str, *headers: str) -> int:
    """The status of a request whose line is written as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"{line} HTTP/1.1", f"host: 127.0.0.1:{port}", "connection: close", *headers]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


async def judged_alike(client: httpx.AsyncClient, port: int, door: Open) -> None:
    """What every proxy before a door must give its clients."""
    # policies hold, for methods and paths as the client wrote them
    assert (await client.get("/open?a=1&b=%2F")).status_code == 200
    http = door.records.entries[-1].attributes.http
    assert http is not None
    assert (http.method, http.path, http.host) == ("GET", "/open?a=1&b=%2F", f"127.0.0.1:{port}")
    assert (await client.post("/open", content=b"x" * 5000)).status_code == 200
    assert (await client.put("/open")).status_code == 403
    assert (await client.get("/shut")).status_code == 403
    # headers of the client are seen
    assert (await client.get("/open", headers={"x-bad": "1"})).status_code == 403
    # nobody vouches for an identity, so even its absence is not known
    assert (await client.get("/identity")).status_code == 403
    # tokens
    assert (await client.get("/mine")).status_code == 403
    assert (await client.get("/mine", headers=bearer("bob"))).status_code == 403
    bad = await client.get("/mine", headers={"authorization": "Bearer a.b.c"})
    assert bad.status_code == 401
    assert bad.headers["www-authenticate"].startswith("Bearer realm=")
    # verified claims reach the application, and the client's own word for them does not
    mine = (await client.get("/mine", headers={**bearer("alice"), "x-subject": "mallory"})).json()
    assert [line for line in mine["headers"] if line.startswith("x-subject")] == ["x-subject: alice"]
    forged = (await client.get("/open", headers={"x-subject": "mallory"})).json()
    assert not any("mallory" in line for line in forged["headers"])


FORGED = (
    "x-original-uri: /open", "x-original-method: GET", "x-original-host: 127.0.0.1:1", "x-real-ip: 127.0.0.1",
    "x-forwarded-uri: /open", "x-forwarded-method: GET", "x-forwarded-host: 127.0.0.1:1", "x-forwarded-for: 127.0.0.1",
    "x-authz-remote-ip: 127.0.0.1",
)  # fmt: skip


async def forges_nothing(port: int) -> None:
    """Headers of the forms, sent by a client, change nothing."""
    assert await raw(port, "GET /shut", *FORGED) == 403
    assert await raw(port, "PUT /open", *FORGED) == 403
    assert await raw(port, "GET /open") == 200
    for header in FORGED:
        name = header.partition(":")[0]
        assert await raw(port, "GET /shut", header, f"connection: close, {name}") in (400, 403)
