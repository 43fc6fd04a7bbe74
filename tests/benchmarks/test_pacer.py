"""The load generator speaks enough HTTP/2 for grpcio, keeps its pace, and counts a stall for everybody due."""

import asyncio
import select
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from benchmarks.clients import CHECK
from benchmarks.pacer import Answers, Connection, Order, _length, header_block

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "localhost"),
           ("content-type", "application/grpc"), ("te", "trailers"), ("x-long", "y" * 300)]  # fmt: skip
BODY = (b"\0\0\0\0\x05hello").hex()
Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


async def paced(handler: Handler, rate: float, seconds: float) -> Answers:
    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CHECK.split("/")[1], handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await asyncio.to_thread(Connection(Order(port, HEADERS, BODY, rate, seconds)).run)
    finally:
        await server.stop(None)


async def test_every_request_is_answered() -> None:
    asked = []

    async def check(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        asked.append((message, dict(context.invocation_metadata() or ())["x-long"]))
        return b"yes"

    answers = await paced(check, 100, 0.2)
    assert (len(answers.took), answers.refused) == (answers.sent, 0)
    assert answers.sent == pytest.approx(20 - answers.slipped / 0.01, abs=1)
    assert asked == [(b"hello", "y" * 300)] * answers.sent
    gaps = [after - before for before, after in zip(sorted(answers.due), sorted(answers.due)[1:], strict=False)]
    assert min(gaps) == pytest.approx(0.01, abs=1e-6)
    assert max(gaps) <= 0.01 + answers.slipped + 1e-6


async def test_a_load_that_is_woken_late_makes_no_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[float] = []

    async def check(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        arrived.append(time.perf_counter())
        return b"yes"

    waited = []

    def late(*arguments: Any) -> Any:
        waited.append(arguments)
        if len(waited) == 5:
            time.sleep(0.1)  # the system gave the processor to somebody else
        return select.select(*arguments)

    monkeypatch.setattr("benchmarks.pacer.select", SimpleNamespace(select=late))
    answers = await paced(check, 100, 0.3)
    assert answers.slipped >= 0.08
    assert answers.sent <= 23
    assert answers.sent == len(arrived)


@pytest.mark.slow
async def test_a_stall_counts_for_everybody_who_was_due() -> None:
    count = 0

    async def check(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        nonlocal count
        count += 1
        if count == 5:
            time.sleep(0.1)  # noqa: ASYNC251  # the stall
        return b"yes"

    answers = await paced(check, 100, 0.3)
    assert sum(took > 15 for took in answers.took) >= 7


@pytest.mark.parametrize(("length", "written"), [(126, b"\x7e"), (127, b"\x7f\x00"), (1337, b"\x7f\xba\x09")])
def test_lengths_are_written_as_hpack_has_it(length: int, written: bytes) -> None:
    assert _length(length) == written
    assert header_block([("a", "b")]) == b"\x00\x01a\x01b"
