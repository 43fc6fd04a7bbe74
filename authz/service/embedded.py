"""
The application that an Envoy loads: ``authz.service.embedded:application``, an ASGI application with the whole server
inside.

Under a supervisor it is given an order and obeys; in a sidecar it reads the ``AUTHZ_*`` settings of that process.
Envoy does not open its listener before the application has started, and tells it when the process ends.
Each filter that loads it has an event loop and a server of its own, so nothing here is shared.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from authz.core.errors import AuthzError
from authz.service.app import App, ServerOf
from authz.service.check_function import CheckFunction
from authz.service.ports.failure import where_it_failed
from authz.service.ports.log import log_to_stderr
from authz.service.server import AskProvider
from authz.service.streams import JudgeCaller
from authz.service.workers.hosted import HostedServer, Receive, Scope, Send
from authz.service.workers.line import ORDER, Line, Order
from authz.service.workers.published import published_policies
from authz.service.workers.refusals import follow_refusals
from authz.service.workers.scheduling import calm_host
from authz.service.workers.worker import LAST_SECONDS, SupervisedApp, tell_failure
from authz.settings.precedence import PREFIX, read_settings
from authz.settings.sections import LogSettings
from authz.settings.settings import Settings

_log = logging.getLogger("authz.embedded")
_SERVER = "authz.server"
SETTINGS_FILE = f"{PREFIX}CONFIG"
"""Environment variable: the YAML file of settings, as ``authz serve --config``."""


def application(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
    """Serve one call, or the life of one server."""
    if scope["type"] == "http":
        server: HostedServer = scope["state"][_SERVER]
        return server(scope, receive, send)
    return _live(scope, receive, send)


application.__dict__["_asgi_single_callable"] = True  # it returns coroutines without being one: a frame less per call


async def _live(scope: Scope, receive: Receive, send: Send) -> None:
    """The lifespan of a server: start it, keep it, stop it."""
    await receive()  # lifespan.startup
    order = os.environ.get(ORDER)
    life: _Supervised | _Alone = _Supervised(Order.read(order)) if order is not None else _Alone()
    try:
        scope["state"][_SERVER] = await life.start()
    except AuthzError as error:
        await send({"type": "lifespan.startup.failed", "message": f"authz does not start: {error}"})
        return
    except Exception as error:
        _log.error("the server does not start: %s", where_it_failed(error))
        await send({"type": "lifespan.startup.failed", "message": "authz does not start: internal error"})
        return
    await send({"type": "lifespan.startup.complete"})
    calming = asyncio.create_task(calm_host(workers=order is not None), name="calm")
    await receive()  # lifespan.shutdown
    calming.cancel()
    await life.stop()
    await send({"type": "lifespan.shutdown.complete"})


def _server_of(settings: Settings) -> ServerOf:
    def make(function: CheckFunction, ask: AskProvider, judge_caller: JudgeCaller | None) -> HostedServer:
        return HostedServer(function, ask, max_message_bytes=settings.max_message_bytes, judge_caller=judge_caller)

    return make


class _Alone:
    """A server inside a sidecar: nobody supervises it but Envoy."""

    async def start(self) -> HostedServer:
        environment = dict(os.environ)
        file = environment.pop(SETTINGS_FILE, "")
        settings = read_settings(
            {"server": "envoy", "workers": 1}, file=Path(file) if file else None, environment=environment
        ).model_copy(update={"listen": ()})  # Envoy listens
        log_to_stderr(LogSettings.of(settings))
        self._published = ExitStack()
        policies = published_policies(settings, lambda line: _log.info("%s", line))
        settings = self._published.enter_context(policies)
        self._app = App(settings, lambda line: _log.info("%s", line), server=_server_of(settings))
        await self._app.start()
        assert isinstance(self._app.server, HostedServer)
        return self._app.server

    async def stop(self) -> None:
        await self._app.stop(drain=False)
        self._published.close()


class _Supervised:
    """A server whose supervisor started this Envoy for it."""

    def __init__(self, order: Order) -> None:
        self._order = order

    async def start(self) -> HostedServer:
        order = self._order
        log_to_stderr(LogSettings.of(order.settings), order.index)
        line = await Line.over(socket.socket(fileno=order.control))
        try:
            self._worker = SupervisedApp(order, line, _server_of(order.settings))
            await self._worker.start()
        except AuthzError as error:
            tell_failure(line, error)
            await line.close()
            raise
        self._obeying = asyncio.create_task(self._obey(), name="obey")
        self._refusals = asyncio.create_task(follow_refusals(order.tls_host), name="refusals")
        assert isinstance(self._worker.app.server, HostedServer)
        return self._worker.app.server

    async def _obey(self) -> None:
        if not await self._worker.obey():
            signal.alarm(LAST_SECONDS)  # Envoy has no handler for it, so it ends the process
            await self._worker.stop(drain=True)
            os.kill(os.getpid(), signal.SIGTERM)

    async def stop(self) -> None:
        self._obeying.cancel()
        self._refusals.cancel()
        await self._worker.stop(drain=False)
