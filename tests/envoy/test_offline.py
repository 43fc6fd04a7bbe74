"""
What the offline commands believe Envoy does to a request before it asks, against what it does.

Random requests from fixed seeds: the same ones in every run.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from authz.core.attributes import Workload
from authz.core.normalize import JOINED_HEADERS, client_address, join_headers, normalize_path
from authz.core.resources import MeshConfig, PathNormalization
from tests.envoy.live import PEER, running

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

LABELS = frozenset({("app", "api"), ("version", "y"), ("tier", "N"), ("build", "0x10"), ("on", "on"), ("null", "null")})
PIECES = (
    *("a", "b", "A", "1", "30", "/", "/", "/", "//", ".", "..", "...", "%2e", "%2E", "%2f", "%2F", "%5C", "%5c", "\\"),
    *("%61", "%7e", "%2d", "%41", "%30", "%25", "%252e", "%252f", "%zz", "%", "%%", "%2", "%4", ";", "..;", ".;x"),
    *(";x=1", "?", "#", "<", '"', "|", "^", "`", "{", "}", "[", "]", "*", "~", "@", ":", "=", "&", "%3f", "%23"),
    *("%c0%af", "%C3%A9", "%20", "%0d", "%00", "$", "'", "(", ")", "+", ",", "!", "%3b", "%3B"),
)


@pytest.mark.parametrize("mode", PathNormalization)
async def test_paths_are_normalised_as_offline(mode: PathNormalization, tmp_path: Path) -> None:
    choose = random.Random(9)
    paths = ["/" + "".join(choose.choices(PIECES, k=choose.randint(1, 9))) for _ in range(250)]
    known = ["///", "//?x", "/%2%61", "/%%30%30", "/%%41B", "/a/..;%00/b", "/a/.;%00", "/a%00/../b", "/%2%2e/x"]
    async with running(tmp_path, "", mesh=MeshConfig(path_normalization=mode)) as live:
        for path in (*known, *paths):
            answer, seen = await live.look(path)
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
    async with running(tmp_path, "") as live:
        for _ in range(150):
            pairs = [(choose.choice(names), choose.choice(values)) for _ in range(choose.randint(1, 6))]
            pairs += choose.choices(pairs, k=choose.randint(0, 3))
            answer, seen = await live.look("/", *pairs)
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
    async with running(tmp_path, "", mesh=mesh, is_gateway=is_gateway) as live:
        for _ in range(100):
            sent = [
                choose.choice((", ", ",", " , ")).join(choose.choices(elements, k=choose.randint(1, 4)))
                for _ in range(choose.randint(0, 2))
            ]
            _, seen = await live.look("/", *(("x-forwarded-for", value) for value in sent))
            assert seen is not None
            assert seen.http is not None
            delivered = seen.http.headers.get("x-forwarded-for", ())
            expected = client_address(PEER, delivered, gateway=is_gateway, trusted_proxies=proxies)
            assert (sent, delivered, seen.source.remote_ip) == (sent, delivered, expected)


async def test_labels_that_look_like_other_things_arrive_as_they_are(tmp_path: Path) -> None:
    async with running(tmp_path, "", workload=Workload("n", LABELS, "y")) as live:
        _, seen = await live.look("/")
        assert seen is not None
        workload = seen.destination.workload
        assert (workload.namespace, workload.service_account, workload.labels) == ("n", "y", LABELS)
