"""Fetching key sets as issuers and companies really have it: compressed, marked, and behind a proxy."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from authz.core.errors import FetchError, SettingsError
from authz.sources.keys.fetch import MAX_BODY_BYTES, discover_key_uri, fetch_json, user_agent
from authz.sources.keys.http_proxy import Proxies
from tests.sources.keys.test_source import ONE, Reply, certificate, running

PACKED = gzip.compress(ONE.encode())
MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(MARK + ONE.encode()),
        Reply(PACKED, headers={"content-encoding": "gzip"}),
        Reply(PACKED, headers={"content-encoding": "X-GZIP"}),
        Reply(PACKED),
        Reply(gzip.compress(MARK + ONE.encode()), headers={"content-encoding": "gzip"}),
    ],
)
async def test_marked_and_compressed_key_sets_are_read(reply: Reply) -> None:
    async with running() as server:
        server.replies["/k"] = reply
        document = await fetch_json(f"{server.url}/k", ssl.create_default_context())
    assert document.text == ONE


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(gzip.compress(b" " * (MAX_BODY_BYTES + 1)), headers={"content-encoding": "gzip"}), "more than"),
        (Reply(PACKED[:-9], headers={"content-encoding": "gzip"}), "ends too early"),
        (Reply(PACKED[:10] + b"\xff" * 40), "not valid gzip"),
        (Reply(ONE, headers={"content-encoding": "br"}), "compressed with `br`"),
    ],
)
async def test_what_unpacks_badly_is_refused(reply: Reply, words: str) -> None:
    async with running() as server:
        server.replies["/k"] = reply
        with pytest.raises(FetchError, match=words):
            await fetch_json(f"{server.url}/k", ssl.create_default_context())


def test_the_user_agent_is_our_own() -> None:
    assert user_agent().startswith("authz/")
    assert "python" not in user_agent()


# --- proxies -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connect_proxy(target: int) -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that takes every name for a port of this machine; yields its port and the heads of what it was asked."""
    heads: list[str] = []
    pumps: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        to_reader, to_writer = await asyncio.open_connection("localhost", target)
        writers.extend((writer, to_writer))
        if head.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 200 here you are\r\n\r\n")
        else:  # the whole URL: only its path goes on
            method, url, rest = head.split(" ", 2)
            to_writer.write(f"{method} {httpx.URL(url).raw_path.decode()} {rest}".encode())
        pumps.append(asyncio.create_task(pump(reader, to_writer)))
        pumps.append(asyncio.create_task(pump(to_reader, writer)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], heads
    finally:
        listener.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_https_goes_through_a_connect_proxy_and_the_issuer_is_verified(tmp_path: Path) -> None:
    context, bundle = certificate(tmp_path, "idp.example")
    trust = ssl.create_default_context(cafile=str(bundle))
    async with running(context) as server, connect_proxy(server.port) as (port, heads):
        proxies = Proxies.of("", {"HTTPS_PROXY": f"http://user:secret@127.0.0.1:{port}"})
        server.replies["/.well-known/openid-configuration"] = Reply('{"jwks_uri": "https://idp.example/k"}')
        server.replies["/k"] = Reply(ONE)
        found = await discover_key_uri("https://idp.example", trust, proxies)
        document = await fetch_json(found, trust, proxies)
        with pytest.raises(FetchError, match="certificate"):
            await fetch_json("https://other.example/k", trust, proxies)
        with pytest.raises(FetchError, match="link-local"):
            await fetch_json("https://169.254.169.254/k", trust, proxies)
    assert document.text == ONE
    assert [head.split(" ")[1] for head in heads] == ["idp.example:443", "idp.example:443", "other.example:443"]
    assert all("proxy-authorization: basic" in head.lower() for head in heads)
    assert "secret" not in str(proxies)


async def test_http_goes_through_a_proxy_as_a_whole_url() -> None:
    async with running() as server, connect_proxy(server.port) as (port, heads):
        server.replies["/k"] = Reply(ONE)
        proxies = Proxies.of("", {"http_proxy": f"127.0.0.1:{port}"})
        document = await fetch_json("http://idp.example/k", ssl.create_default_context(), proxies)
        direct = await fetch_json(f"{server.url}/k", ssl.create_default_context(), proxies)
    assert document.text == direct.text == ONE
    assert [head.split(" ")[1] for head in heads] == ["http://idp.example/k"]
    assert f"user-agent: {user_agent()}" in heads[0].lower()


ENVIRONMENT = {
    "HTTPS_PROXY": "http://p:1",
    "NO_PROXY": ".corp, *.lan,10.0.0.0/8 ,fd00::/8,exact.example:8443,[::5]:443",
}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://idp.example/k", "http://p:1"),
        ("http://idp.example/k", ""),
        ("https://a.corp", ""),
        ("https://corp", ""),
        ("https://acorp", "http://p:1"),
        ("https://x.LAN.", ""),
        ("https://10.9.9.9", ""),
        ("https://11.9.9.9", "http://p:1"),
        ("https://[fd00::1]", ""),
        ("https://exact.example", "http://p:1"),
        ("https://exact.example:8443", ""),
        ("https://[::5]", ""),
        ("https://localhost:8443", ""),
        ("https://127.0.0.9", ""),
        ("https://[::1]", ""),
        ("https://idp.localhost", ""),
    ],
)
def test_exceptions_of_the_environment(url: str, expected: str) -> None:
    assert Proxies.of("", ENVIRONMENT).for_url(httpx.URL(url)) == expected


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("", {}, ""),
        ("", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ("", {"ALL_PROXY": "http://all:1"}, "http://all:1"),
        ("", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
        ("none", {"HTTPS_PROXY": "http://p:1"}, ""),
        ("http://own:1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://own:1"),
    ],
)
def test_a_setting_wins_over_the_environment(setting: str, environment: dict[str, str], expected: str) -> None:
    assert Proxies.of(setting, environment).for_url(httpx.URL("https://idp.example")) == expected


@pytest.mark.parametrize(
    ("setting", "environment"), [("socks5://p:1", {}), ("http://", {}), ("", {"HTTPS_PROXY": "ftp://p"})]
)
def test_what_is_no_proxy_is_refused_by_its_name(setting: str, environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"jwks_proxy|HTTPS_PROXY"):
        Proxies.of(setting, environment)
