"""The operator's HTTP side hosted in the same event loop: uvicorn without its own signals and logs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from authz.core.errors import SettingsError

Application = Callable[..., Awaitable[Any]]
"""An ASGI application; which framework made it does not matter here."""


class _Hosted(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's: they drain it, and this goes last."""
        yield


class AdminServer:
    """``start`` once, ``stop`` once. ``address`` is where it listens, a port chosen by the system filled in."""

    def __init__(self, app: Application, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise SettingsError(f"setting `admin`: `{listen}` is not host:port")
        self._listen = listen
        config = uvicorn.Config(
            app, host.strip("[]"), int(port), log_config=None, access_log=False, lifespan="off", ws="none"
        )
        config.load()
        self._server = _Hosted(config)
        try:
            self._socket = config.bind_socket()
        except SystemExit as error:  # uvicorn ends the process where it cannot bind
            raise SettingsError(f"setting `admin`: cannot listen on `{listen}`") from error
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="admin")

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
