"""The operator's HTTP side hosted in the same event loop: uvicorn without its own signals and logs."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
        """``listen`` is ``host:port`` or ``unix:/path``. Raises SettingsError."""
        self._path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
        host, _, port = listen.rpartition(":")
        if self._path is None and not (host and port.isdigit()):
            raise SettingsError(f"setting `admin`: `{listen}` is neither host:port nor unix:/path")
        number = 0 if self._path is not None else int(port)
        config = uvicorn.Config(
            app, host.strip("[]"), number, log_config=None, access_log=False, lifespan="off", ws="none"
        )
        config.load()
        self._server = _Hosted(config)
        if self._path is not None:
            self._socket = _unix_socket(self._path)
            self.address = listen
        else:
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
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _unix_socket(path: Path) -> socket.socket:
    """A socket for its owner and group; one that a crashed process left is replaced."""
    found = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()
        found.bind(str(path))
        path.chmod(0o660)
    except OSError as error:
        found.close()
        raise SettingsError(f"setting `admin`: cannot listen on `unix:{path}`: {error.strerror or error}") from error
    return found
