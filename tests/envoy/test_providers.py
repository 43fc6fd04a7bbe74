"""CUSTOM through a real Envoy: what the provider is shown, and what becomes of what it says (AP-77, AP-83)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authz.core.resources import ExtensionProvider, MeshConfig
from tests.envoy.applications import Request, answer, read_request
from tests.envoy.client import Answer
from tests.envoy.live import Live, running

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  action: CUSTOM
  provider: {name: idp}
  rules: [{to: [{operation: {paths: ["/guarded*"]}}]}]
"""
MESH = MeshConfig(
    extension_providers=(
        ExtensionProvider(
            "idp",
            "http",
            "idp.auth.svc.cluster.local",
            8000,
            path_prefix="/check",
            include_request_headers_in_check=("x-tenant",),
            include_additional_headers_in_check={"x-asked-by": "mesh"},
            headers_to_upstream_on_allow=("x-user",),
            headers_to_downstream_on_deny=("x-reason",),
            max_request_bytes=8,
        ),
    )
)


@dataclass
class Provider:
    """An HTTP authorizer that says ``told`` and remembers what it was asked."""

    told: bytes = b""
    asked: list[Request] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(reader)) is not None:
                self.asked.append(request)
                writer.write(self.told)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def asking(state: Path) -> AsyncIterator[tuple[Live, Provider]]:
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    async with server, running(state, POLICY, mesh=MESH) as live:
        live.bench.stubs = {"idp": "allow"}
        live.bench.around.providers["http", "allow"] = server.sockets[0].getsockname()[1]
        yield live, provider


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: api", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def seen(request: Request, *names: str) -> Iterator[str | None]:
    headers = dict(request.headers)
    return (headers.get(name) for name in names)


async def test_provider_is_shown_the_request_and_its_word_reaches_the_upstream(tmp_path: Path) -> None:
    async with asking(tmp_path) as (live, provider):
        provider.told = answer("200 OK", b"", "x-user: alice", "x-other: 1")
        passed = await live.ask_bytes(
            post("/guarded?a=1", b"12345678", "x-tenant: t", "x-user: forged", "x-asked-by: forged", "x-secret: s")
        )
        asked = provider.asked[0]
        assert (asked.method, asked.target, asked.body) == ("POST", "/check/guarded?a=1", b"12345678")
        assert tuple(seen(asked, "host", "x-tenant", "x-asked-by", "x-secret", "x-user")) == (
            *("api", "t", "mesh"),
            *(None, None),
        )
        assert passed.forwarded is not None
        assert passed.forwarded["x-user"] == ("alice",)
        assert passed.forwarded["x-secret"] == ("s",)
        assert "x-other" not in passed.forwarded
        assert live.bench.around.bodies == [b"12345678"]


async def test_body_beyond_the_limit_is_413_and_the_provider_is_not_asked(tmp_path: Path) -> None:
    async with asking(tmp_path) as (live, provider):
        provider.told = answer("200 OK", b"")
        refused = await live.ask_bytes(post("/guarded", b"123456789"))
        assert (refused.status, refused.forwarded, provider.asked) == (413, None, [])
        # A request that no CUSTOM policy is about goes on, whole.
        passed = await live.ask_bytes(post("/free", b"123456789" * 1000))
        assert passed.status == 200
        assert live.bench.around.bodies == [b"123456789" * 1000]


async def test_refusal_is_the_providers_own(tmp_path: Path) -> None:
    async with asking(tmp_path) as (live, provider):
        provider.told = answer("302 Found", b"go there", "location: https://login", "x-reason: none", "x-other: 1")
        refused: Answer = await live.ask("/guarded")
        assert (refused.status, refused.body, refused.forwarded) == (302, b"go there", None)
        assert [refused.header(name) for name in ("location", "x-reason", "x-other")] == ["https://login", "none", None]


async def test_provider_that_fails_refuses(tmp_path: Path) -> None:
    async with asking(tmp_path) as (live, provider):
        provider.told = answer("500 Broken", b"secret")
        refused = await live.ask("/guarded")
        assert (refused.status, refused.body, refused.forwarded) == (403, b"", None)
        live.bench.around.providers["http", "allow"] = 1  # nobody listens there
        assert (await live.ask("/guarded")).status == 403
        assert (await live.ask("/free")).status == 200
