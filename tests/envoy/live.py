"""One sidecar that runs, for tests that say their own policies and requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import time

import pytest

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify.proxy import Endpoints
from authz.core.attributes import AttributeContext, Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.service.loading.snapshot import Snapshot
from tests.envoy import sidecar as envoy
from tests.envoy.client import Answer, connect, read_http1, send
from tests.envoy.corpus import Bench, bench
from tests.service.recording import Recorder

WORKLOAD = Workload("shop", frozenset({("app", "api")}), "api")
PEER = "10.9.9.9"
ENDS = Endpoints(PEER, "10.1.0.5", 8080)


@dataclass(frozen=True)
class Live:
    """A sidecar that runs, and the service it asks."""

    bench: Bench

    async def ask(self, path: str = "/", *headers: tuple[str, str], method: str = "GET") -> Answer:
        request = OfflineRequest(method=method, host="api", path=path, headers=headers)
        address = (envoy.own_address(), envoy.HTTP)
        return await asyncio.to_thread(send, address, ENDS, self.bench.identities, request, tls=False)

    async def ask_bytes(self, data: bytes, source: str = "", ends: Endpoints | None = ENDS) -> Answer:
        def exchange() -> Answer:
            with connect((envoy.own_address(), envoy.HTTP), ends, None, "", source) as connection:
                connection.sendall(data)
                return read_http1(connection)

        return await asyncio.to_thread(exchange)

    async def look(self, path: str, *headers: tuple[str, str]) -> tuple[Answer, AttributeContext | None]:
        """The answer and what the service saw; None when it was not asked."""
        self.bench.audit.clear()
        answer = await self.ask(path, *headers)
        return answer, self.last if self.bench.audit.entries else None

    @property
    def last(self) -> AttributeContext:
        return self.bench.audit.entries[-1].attributes


@contextlib.asynccontextmanager
async def running(
    state: Path,
    policies: str | None,
    *,
    workload: Workload = WORKLOAD,
    mesh: MeshConfig = MeshConfig(),  # noqa: B008  # a frozen value
    is_gateway: bool = False,
    audit: Recorder | None = None,
    failure_mode_allow: bool = False,
    behind_proxy_protocol: bool = True,
) -> AsyncIterator[Live]:
    """Run the service with these policies (None: not loaded yet) and a sidecar that asks it."""
    pytest.importorskip("envoy")
    async with bench(state, audit) as found:
        if policies is not None:
            engine = compile_texts([PolicyText("policies.yaml", policies)], mesh)
            assert isinstance(engine, Engine), engine
            found.function.replace(Snapshot(engine, mesh, engine.version, time()))
        with contextlib.ExitStack() as stack:
            process = envoy.sidecar(
                state,
                "sidecar",
                envoy.Flavour(workload.namespace, workload.labels, workload.service_account, mesh, is_gateway),
                envoy.Upstreams(found.around.http, found.around.tcp),
                found.identities,
                failure_mode_allow=failure_mode_allow,
                behind_proxy_protocol=behind_proxy_protocol,
            )
            await asyncio.to_thread(stack.enter_context, process)
            yield Live(found)
