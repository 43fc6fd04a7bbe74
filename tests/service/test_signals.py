"""Signals to a server that runs: which reopen, which switch the log level, and that none of the others ends it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from authz.service.ports.signals import ENDING
from tests.service.messages import check_request, response
from tests.service.running import check_call
from tests.service.test_app import worker, write_policies


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def _wait(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # nothing tells of a file
            await asyncio.sleep(0.02)


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [(), ("--workers", "2", "--server", "grpcio"), ("--workers", "2", "--server", "envoy")]
)
async def test_signals_of_operators(tmp_path: Path, flags: tuple[str, ...]) -> None:
    if "envoy" in flags:
        pytest.importorskip("pyvoy")
    file, aside = tmp_path / "audit.jsonl", tmp_path / "audit.old"
    own = ["--policies", str(write_policies(tmp_path)), "--listen", f"unix:{tmp_path}/a.sock", "--log-level", "info"]
    async with worker(*own, "--audit", f"file:{file}", "--drain-delay-seconds", "0", *flags) as service:
        await service.says("workers serve" if flags else "health is SERVING")
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/a.sock") as channel:
            ask = check_call(channel)
            assert response(await ask(check_request(path="/open"))).status.code == 0
            await _wait(lambda: _lines(file))
            file.rename(aside)
            service.process.send_signal(signal.SIGUSR1)
            await _wait(file.exists)  # before anything is written, as scripts of log rotation expect
            service.process.send_signal(signal.SIGUSR2)
            count = 2 if flags else 1
            for _ in range(count + (1 if flags else 0)):
                await service.says("the log level is now debug")
            service.process.send_signal(signal.SIGUSR2)
            for _ in range(count + (1 if flags else 0)):
                await service.says("the log level is now info")
            for number in set(ENDING) - {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}:
                service.process.send_signal(number)
            service.process.send_signal(signal.SIGRTMIN)
            assert response(await ask(check_request(path="/open"))).status.code == 0
            await _wait(lambda: len(_lines(file)) == len(_lines(aside)) == 1)
        service.process.send_signal(signal.SIGQUIT)
        await service.says("stopped")
        assert await service.process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("server", ["grpcio", "envoy"])
async def test_workers_survive_signals_sent_to_them(tmp_path: Path, server: str) -> None:
    if server == "envoy":
        pytest.importorskip("pyvoy")
    own = ["--policies", str(write_policies(tmp_path)), "--listen", f"unix:{tmp_path}/a.sock", "--audit", "none"]
    async with worker(*own, "--workers", "2", "--server", server, "--drain-delay-seconds", "0") as service:
        await service.says("workers serve")
        children = _children(service.process.pid)
        assert len(children) == 2
        for number in set(ENDING) - {signal.SIGALRM}:
            for child in children:
                os.kill(int(child), number)
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/a.sock") as channel:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0
        now = _children(service.process.pid)
        assert now == children
        service.process.send_signal(signal.SIGTERM)
        await service.says("stopped")
