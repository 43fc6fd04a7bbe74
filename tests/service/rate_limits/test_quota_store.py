"""Redis as the store: shared by several, its failures, and what is never written anywhere."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.service.rate_limits.quota_store import PAUSE_SECONDS, MemoryStore, RedisStore, StoreDown, open_store
from tests.envoy.limits_rig import redis_server

pytest.importorskip("limits")
NOW = 1_800_000_030.0


async def test_two_servers_count_together_and_keys_end_with_their_window(tmp_path: Path) -> None:
    import redis

    with redis_server(tmp_path) as url:
        one, other = open_store(url), open_store(url)
        try:
            found = [await store.add("app/quota/global/0", NOW + 30, 2, NOW) for store in (one, other, one)]
            assert found == [2, 4, 6]
            assert await other.add("app/quota/global/0", NOW + 30, 0, NOW) == 6
        finally:
            await one.close()
            await other.close()
        with redis.Redis(unix_socket_path=url.removeprefix("unix://")) as client:
            (key,) = client.keys("*")
            assert key == b"authz:app/quota/global/0"
            assert 30 < client.ttl(key) <= 35


async def test_a_password_comes_from_a_file(tmp_path: Path) -> None:
    import redis

    (tmp_path / "password").write_text("s3cret\n")
    with redis_server(tmp_path) as url:
        path = url.removeprefix("unix://")
        with redis.Redis(unix_socket_path=path) as client:
            client.config_set("requirepass", "s3cret")
        allowed, refused = open_store(url, tmp_path / "password"), open_store(url)
        try:
            assert await allowed.add("a", NOW + 1, 1, NOW) == 1
            with pytest.raises(StoreDown, match=r"(?i)auth"):
                await refused.add("a", NOW + 1, 1, NOW)
        finally:
            await allowed.close()
            await refused.close()


async def test_a_store_that_failed_is_left_alone_for_a_moment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(f"unix://{tmp_path}/redis.sock")
    with caplog.at_level(logging.WARNING):
        for now in (NOW, NOW + PAUSE_SECONDS / 2, NOW + PAUSE_SECONDS + 0.1):
            with pytest.raises(StoreDown):
                await store.add("a", now + 1, 1, now)
        with redis_server(tmp_path):
            with pytest.raises(StoreDown):
                await store.add("a", NOW + 3, 1, NOW + 2)
            assert await store.add("a", NOW + 5, 1, NOW + 4) == 1
    await store.close()
    said = [record.getMessage() for record in caplog.records if record.name == "authz.rate_limits"]
    assert [("does not answer" in text, "answers again" in text) for text in said] == [(True, False), (False, True)]


async def test_many_at_once_wait_instead_of_going_uncounted(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        store = open_store(url)
        found = await asyncio.gather(*(store.add("a", NOW + 30, 1, NOW) for _ in range(1_000)))
        await store.close()
    assert sorted(found) == list(range(1, 1_001))


@contextlib.asynccontextmanager
async def pretended_redis(directory: Path, answer: bytes) -> AsyncIterator[str]:
    """Something that gives the same answer to everything; the URL."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(talk, directory / "redis.sock")
    try:
        yield f"unix://{directory}/redis.sock"
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n", b"+OK\r\n" * 9, b"$3\r\nabc\r\n" * 9, b"*-1\r\n" * 9, b"\xff" * 70_000, b"-ERR no\r\n" * 9],
    ids=["silence", "garbage", "words", "texts", "nothing", "no-protocol", "errors"],
)
async def test_a_store_that_is_silent_or_talks_nonsense_is_down_before_a_proxy_gives_up(
    tmp_path: Path, answer: bytes
) -> None:
    async with pretended_redis(tmp_path, answer) as url:
        store = open_store(url)
        asked = [store.add("a", NOW + 1, amount, NOW) for amount in (0, 1, 0)]
        async with asyncio.timeout(0.25):
            found = await asyncio.gather(*asked, return_exceptions=True)
        await store.close()
    assert [type(one) for one in found] == [StoreDown] * 3


async def test_a_value_that_is_no_number_keeps_nobody_waiting(tmp_path: Path) -> None:
    import redis

    with redis_server(tmp_path) as url:
        with redis.Redis(unix_socket_path=url.removeprefix("unix://")) as client:
            client.set("authz:a", "many")
        store = open_store(url)
        async with asyncio.timeout(5):
            with pytest.raises(StoreDown, match="many"):
                await store.add("a", NOW + 1, 0, NOW)
            assert await store.add("b", NOW + 5, 1, NOW + 4) == 1
        await store.close()


async def test_nothing_secret_of_the_url_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore("redis://user:s3cret@127.0.0.1:1/0")
    with pytest.raises(StoreDown):
        await store.add("a", NOW + 1, 1, NOW)
    await store.close()
    assert "redis://127.0.0.1:1/0" in caplog.text
    assert "s3cret" not in caplog.text


def test_memory_is_the_process_itself() -> None:
    assert isinstance(open_store("memory"), MemoryStore)


def test_a_password_that_cannot_be_read_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="rate_limit_store_password"):
        open_store("redis://127.0.0.1", tmp_path / "none")
