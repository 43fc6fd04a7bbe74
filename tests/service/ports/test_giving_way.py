"""An event loop moves to a thread of the idle class and back."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import pytest

from authz.service.ports import giving_way
from authz.service.ports.giving_way import GivingWay

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the system has no idle class")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  # a thread's class is no event
            await asyncio.sleep(0.01)


def is_idle() -> bool:
    return os.sched_getscheduler(0) == os.SCHED_IDLE


def test_the_loop_stays_in_the_main_thread_until_it_gives_way() -> None:
    seen: list[bool] = []

    async def main() -> None:
        await asyncio.sleep(0)
        seen.append(threading.current_thread() is threading.main_thread() and not is_idle())

    GivingWay().run(main())
    assert seen == [True]


def test_the_loop_gives_way_and_takes_its_share_while_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(giving_way, "SHARE_SECONDS", 0.01)
    way, waits = GivingWay(), [False]
    classes: list[bool] = []

    async def main() -> None:
        way.begin(lambda: waits[0])
        for waiting in (False, True, False):
            waits[0] = waiting
            await until(lambda wanted=not waiting: is_idle() is wanted)  # type: ignore[misc]  # mypy: a lambda's default
            classes.append(is_idle())

    way.run(main())
    assert classes == [True, False, True]
    assert not is_idle(), "the main thread never left its class"


def test_a_starved_loop_comes_back_to_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(giving_way, "STARVED_SECONDS", 0.05)
    way = GivingWay()

    async def main() -> None:
        way.begin(lambda: False)
        await until(is_idle)
        held = threading.Event()
        held.wait(0.2)  # the loop gets no turn, as on a saturated machine
        await until(lambda: not is_idle())

    way.run(main())
    assert not is_idle()


def test_what_the_main_coroutine_raises_is_raised_from_either_thread() -> None:
    async def fails(way: GivingWay, *, begin: bool) -> None:
        if begin:
            way.begin(lambda: False)
            await until(is_idle)
        raise ValueError("broken")

    for begin in (False, True):
        way = GivingWay()
        with pytest.raises(ValueError, match="broken"):
            way.run(fails(way, begin=begin))


def test_a_signal_is_handled_while_the_loop_gives_way() -> None:
    way, heard = GivingWay(), []

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, stopping.set)
        way.begin(lambda: False)
        await until(is_idle)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(stopping.wait(), 30)
        heard.append(is_idle())

    previous = signal.getsignal(signal.SIGUSR2)
    try:
        way.run(main())
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert heard == [True]
