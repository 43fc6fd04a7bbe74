"""When a stream ends that a certificate opened, and when somebody looks at one that waits."""

import asyncio
import math

import pytest

from authz.control.fleet.proxy_stream import ENDING_SECONDS, ProxyStream, Waits, ends_at
from authz.core.spiffe import SpiffeId
from authz.identity.registration import SvidPeer


@pytest.mark.parametrize(
    ("expires", "share", "end"),
    [
        (10_000.0, 0.0, 10_000.0),
        (10_000.0, 1.0, 10_000.0 - ENDING_SECONDS),
        (10_000.0, 0.5, 10_000.0 - ENDING_SECONDS / 2),
        (1_100.0, 1.0, 1_090.0),
        (900.0, 1.0, 900.0),
        (math.inf, 1.0, math.inf),
    ],
    ids=["at the end", "the earliest", "between", "soon", "expired", "never"],
)
def test_streams_end_in_the_last_part_of_what_is_left(expires: float, share: float, end: float) -> None:
    assert ends_at(expires, 1_000.0, share) == end


async def test_streams_are_looked_at_in_their_turn_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.control.fleet.proxy_stream.GRAIN_SECONDS", 0.01)
    looked: asyncio.Queue[ProxyStream] = asyncio.Queue()
    waits = Waits(0.02, looked.put_nowait)
    web = SvidPeer(SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/web"), 1)
    first, second = ProxyStream(web, math.inf), ProxyStream(web, math.inf)
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(10):
        began = clock()
        for stream in (first, second, first):
            waits.add(stream)
            await asyncio.sleep(0.001)
        assert [await looked.get() for _ in range(3)] == [first, second, first]
        assert clock() >= began + 0.02
        waits.add(second)  # when all were looked at, there is no timer
        assert await looked.get() is second
