"""
What the offline commands believe Envoy does to a request before it asks, against what it does.

Random requests from fixed seeds: the same ones in every run.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from authz.analysis.cases import compile_texts
from authz.analysis.request import OfflineRequest
from authz.analysis.suite import PolicyText
from authz.core.attributes import AttributeContext, Workload
from authz.core.engine import Engine
from authz.core.normalize import JOINED_HEADERS, client_address, join_headers, normalize_path
from authz.core.resources import MeshConfig, PathNormalization
from authz.service.snapshot import Snapshot
from tests.envoy import sidecar as envoy
from tests.envoy.client import Answer, Endpoints, send
from tests.envoy.corpus import Bench, bench

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

PEER = "10.9.9.9"
ENDS = Endpoints(PEER, "10.1.0.5", 8080)
LABELS = frozenset({("app", "api"), ("version", "y"), ("tier", "N"), ("build", "0x10"), ("on", "on"), ("null", "null")})
PIECES = (
    *("a", "b", "A", "1", "30", "/", "/", "/", "//", ".", "..", "...", "%2e", "%2E", "%2f", "%2F", "%5C", "%5c", "\\"),
    *("%61", "%7e", "%2d", "%41", "%30", "%25", "%252e", "%252f", "%zz", "%", "%%", "%2", "%4", ";", "..;", ".;x"),
    *(";x=1", "?", "#", "<", '"', "|", "^", "`", "{", "}", "[", "]", "*", "~", "@", ":", "=", "&", "%3f", "%23"),
    *("%c0%af", "%C3%A9", "%20", "%0d", "%00", "$", "'", "(", ")", "+", ",", "!", "%3b", "%3B"),
)


class Running:
    def __init__(self, found: Bench) -> None:
        self._found = found

    async def ask(self, path: str, *headers: tuple[str, str]) -> tuple[Answer, AttributeContext | None]:
        """The answer and what the service saw; None when it was not asked."""
        self._found.audit.clear()
        request = OfflineRequest(host="api", path=path, headers=headers)
        address = (envoy.own_address(), envoy.HTTP)
        answer = await asyncio.to_thread(send, address, ENDS, self._found.identities, request, tls=False)
        entries = self._found.audit.entries
        return answer, entries[0].attributes if entries else None


@contextlib.asynccontextmanager
async def running(state: Path, mesh: MeshConfig, *, is_gateway: bool = False) -> AsyncIterator[Running]:
    pytest.importorskip("envoy")
    async with bench(state) as found:
        engine = compile_texts([PolicyText("policies.yaml", "")], mesh)
        assert isinstance(engine, Engine)
        found.function.replace(Snapshot(engine, mesh, engine.version, time()))
        flavour = envoy.Flavour.of(Workload("n", LABELS, "y"), mesh, is_gateway=is_gateway)
        upstreams = envoy.Upstreams(found.around.http, found.around.tcp)
        with contextlib.ExitStack() as stack:
            process = envoy.sidecar(state, "sidecar", flavour, upstreams, found.identities)
            await asyncio.to_thread(stack.enter_context, process)
            yield Running(found)


@pytest.mark.parametrize("mode", PathNormalization)
async def test_paths_are_normalised_as_offline(mode: PathNormalization, tmp_path: Path) -> None:
    choose = random.Random(9)
    paths = ["/" + "".join(choose.choices(PIECES, k=choose.randint(1, 9))) for _ in range(250)]
    known = ["///", "//?x", "/%2%61", "/%%30%30", "/%%41B", "/a/..;%00/b", "/a/.;%00", "/a%00/../b", "/%2%2e/x"]
    async with running(tmp_path, MeshConfig(path_normalization=mode)) as live:
        for path in (*known, *paths):
            answer, seen = await live.ask(path)
            expected = normalize_path(path, mode)
            if expected is None:
                assert (path, answer.status, seen) == (path, 400, None)
            else:
                assert answer.forwarded is not None, (path, answer)
                assert (path, answer.forwarded[":path"]) == (path, (expected,))
                assert seen is not None
                assert seen.http is not None
                assert seen.http.path == expected


async def test_headers_are_joined_as_offline(tmp_path: Path) -> None:
    choose = random.Random(10)
    # Those that Envoy removes or writes itself say nothing about joining.
    own = {
        "expect",
        "referer",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "grpc-timeout",
        "x-client-trace-id",
    }
    names = sorted(name for name in JOINED_HEADERS if name not in own and not name.startswith("x-envoy-"))
    names += ["cookie", "x-user", "X-User", "x-forwarded-client-id", "accept-language", "set-cookie", "date", "te-x"]
    values = ["", "a", " b ", "a,b", ",", "é", "\udcff\udc80", "x\ty", '"q"', "Bearer t"]
    async with running(tmp_path, MeshConfig()) as live:
        for _ in range(150):
            pairs = [(choose.choice(names), choose.choice(values)) for _ in range(choose.randint(1, 6))]
            pairs += choose.choices(pairs, k=choose.randint(0, 3))
            answer, seen = await live.ask("/", *pairs)
            assert answer.status == 200, (pairs, answer)
            assert seen is not None
            assert seen.http is not None
            expected = join_headers(pairs)
            assert {name: seen.http.headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(("is_gateway", "proxies"), [(False, 0), (True, 0), (True, 1), (True, 2)])
async def test_client_address_is_found_as_offline(is_gateway: bool, proxies: int, tmp_path: Path) -> None:
    choose = random.Random(11)
    elements = [
        "192.0.2.1",
        "198.51.100.7",
        "2001:db8::1",
        "unknown",
        "",
        "192.0.2.1:80",
        "[2001:db8::2]",
        "10.0.0.256",
    ]
    mesh = replace(MeshConfig(), num_trusted_proxies=proxies)
    async with running(tmp_path, mesh, is_gateway=is_gateway) as live:
        for _ in range(100):
            sent = [
                choose.choice((", ", ",", " , ")).join(choose.choices(elements, k=choose.randint(1, 4)))
                for _ in range(choose.randint(0, 2))
            ]
            _, seen = await live.ask("/", *(("x-forwarded-for", value) for value in sent))
            assert seen is not None
            assert seen.http is not None
            delivered = seen.http.headers.get("x-forwarded-for", ())
            expected = client_address(PEER, delivered, gateway=is_gateway, trusted_proxies=proxies)
            assert (sent, delivered, seen.source.remote_ip) == (sent, delivered, expected)


async def test_labels_that_look_like_other_things_arrive_as_they_are(tmp_path: Path) -> None:
    async with running(tmp_path, MeshConfig()) as live:
        _, seen = await live.ask("/")
        assert seen is not None
        workload = seen.destination.workload
        assert (workload.namespace, workload.service_account, workload.labels) == ("n", "y", LABELS)
