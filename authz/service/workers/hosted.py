"""
The adapter for a worker hosted inside Envoy: gRPC on ASGI with trailers, by hand.

Envoy speaks HTTP/2; this file knows gRPC's framing and statuses and moves bytes between them and ``CheckFunction``.
It has no socket and starts no process: ``hosting`` finds what Envoy needs, ``embedded`` is what Envoy loads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from time import time
from typing import Any

from google.protobuf.message import DecodeError

from authz.service.check_function import CheckFunction
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION, HEALTH, GrpcHealth
from authz.service.ports.sockets import SocketLock
from authz.service.server import AskProvider
from authz.service.streams import JudgeCaller
from authz.service.workers.callers import caller_identity, caller_refusal
from authz.wire.check import DIRECT_IP_METADATA, REMOTE_IP_METADATA

Scope = dict[str, Any]
_Event = dict[str, Any]
Receive = Callable[[], Awaitable[_Event]]
Send = Callable[[_Event], Awaitable[None]]

CHECK_PATH = f"/{AUTHORIZATION}/Check"
HEALTH_CHECK_PATH = f"/{HEALTH}/Check"
HEALTH_WATCH_PATH = f"/{HEALTH}/Watch"
PREFIX_BYTES = 5
"""The prefix of every gRPC message: one byte that says whether it is compressed, four of its length."""
WATCH_REPEAT_SECONDS = 30.0
"""How often a watcher is told the same thing again: a vanished one is noticed only by sending."""
DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = 4, 5, 8, 12, 13, 16

_METADATA = {name.encode(): name for name in (REMOTE_IP_METADATA, DIRECT_IP_METADATA, "traceparent")}
"""The metadata of a call that ``wire`` reads; the rest is left undecoded."""
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_START: _Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
_SUCCESS: _Event = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False}


class _Refused(Exception):
    """A call that is not answered with a message: its gRPC status and why, in plain ASCII."""

    def __init__(self, status: int, reason: str, http_status: int = 200) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.http_status = http_status
        """Other than 200 only for what is not a gRPC call, whose sender may not know gRPC's statuses."""


class HostedServer:
    """
    One worker's server as an ASGI application; the twin of ``CheckServer``.

    Envoy listens, so ``start`` has nothing to bind. All calls are in the event loop that called ``start``.
    """

    def __init__(
        self,
        function: CheckFunction,
        ask: AskProvider,
        *,
        max_message_bytes: int,
        judge_caller: JudgeCaller | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self._function = function
        self._ask = ask
        self._max_message_bytes = max_message_bytes
        self._judge_caller = judge_caller
        self._clock = clock
        self._running = 0
        self._idle = asyncio.Event()
        self.health = GrpcHealth()
        self.addresses: tuple[str, ...] = ()

    async def start(self, listen: Sequence[str]) -> None:
        """
        Guard Unix sockets; Envoy opens all addresses when the application has started.

        Raises:
            SettingsError: another server holds a socket.
        """
        self._locks = [
            SocketLock(Path(address.removeprefix("unix:")), tidy=False)
            for address in listen
            if address.startswith("unix:")
        ]  # until the process ends

    async def drain(self, delay_seconds: float, grace_seconds: float) -> None:
        """Say NOT_SERVING, let the proxies notice, finish what runs (XA-127)."""
        self.health.set_serving(False)
        await asyncio.sleep(delay_seconds)
        await self.stop(grace_seconds)

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Wait that long for running calls; None does not wait. Envoy ends what is left with its own process."""
        self.health.set_serving(False)
        if self._running and grace_seconds:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), grace_seconds)
            except TimeoutError:
                return

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve one call. Not a coroutine itself: one frame less on the hot path."""
        if scope["path"] == CHECK_PATH:
            return self._check(scope, receive, send)
        return self._other(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        try:
            message = await self._message(scope, receive)
            if message is None:
                return
            headers = scope["headers"]
            now = self._clock()
            if self._judge_caller is not None and (refusal := caller_refusal(headers, self._judge_caller, now)):
                raise _Refused(UNAUTHENTICATED, refusal)
            answer = self._function.check(message, _metadata(headers), now, caller_identity(headers))
            if isinstance(answer, Pending):
                answer = await self._asked(answer, _timeout(headers))
            await _reply(send, answer)
        except _Refused as refused:
            await _refuse(send, refused)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _asked(self, answer: bytes | Pending, timeout_seconds: float | None) -> bytes:
        """
        Ask providers until there is a decision, for as long as the caller waits.

        A caller that hangs up earlier is not noticed: the host reports that only while a message is being received.
        Then the decision is made and recorded, and heard by nobody.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while isinstance(answer, Pending):
                    try:
                        told = await self._ask(answer)
                    except asyncio.CancelledError:
                        answer.abandon()
                        raise
                    answer = answer.resume(told, self._clock())
        except TimeoutError:
            raise _Refused(DEADLINE_EXCEEDED, "the caller no longer waits") from None
        return answer

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            if path == HEALTH_CHECK_PATH:
                message = await self._message(scope, receive)
                if message is not None:
                    await _reply(send, self._health(message))
            elif path == HEALTH_WATCH_PATH:
                message = await self._message(scope, receive)
                if message is not None:
                    await self._watch(message, send)
            else:
                _must_be_grpc(scope)
                raise _Refused(UNIMPLEMENTED, "unknown method")
        except _Refused as refused:
            await _refuse(send, refused)

    def _health(self, message: bytes) -> bytes:
        answer, is_known = self._status(message)
        if not is_known:
            raise _Refused(NOT_FOUND, "unknown service")
        return answer

    def _status(self, message: bytes) -> tuple[bytes, bool]:
        try:
            return self.health.answer(message)
        except DecodeError:
            raise _Refused(INTERNAL, "not a HealthCheckRequest") from None

    async def _watch(self, message: bytes, send: Send) -> None:
        self._status(message)
        await send(_START)
        while True:
            changed = self.health.changed
            answer, _ = self._status(message)
            try:
                await send({"type": "http.response.body", "body": _frame(answer), "more_body": True})
            except OSError:  # the watcher is gone
                return
            try:
                await asyncio.wait_for(changed.wait(), WATCH_REPEAT_SECONDS)
            except TimeoutError:
                continue

    async def _message(self, scope: Scope, receive: Receive) -> bytes | None:
        """
        Receive the one message of a unary call; None when the caller hung up before it was whole.

        Raises:
            _Refused: the framing is wrong; its status is the one gRPC prescribes.
        """
        _must_be_grpc(scope)
        event = await receive()
        if event["type"] != "http.request":
            return None
        body: bytes = event["body"]
        if event["more_body"]:
            parts, size = [body], len(body)
            while event["more_body"]:
                if size >= PREFIX_BYTES:
                    parts = [b"".join(parts)]
                    self._expected(parts[0], scope)  # a message that is too long is refused before it has arrived
                event = await receive()
                if event["type"] != "http.request":
                    return None
                parts.append(event["body"])
                size += len(event["body"])
                if size > self._max_message_bytes + PREFIX_BYTES:
                    raise _Refused(RESOURCE_EXHAUSTED, "message larger than allowed")
            body = b"".join(parts)
        expected = self._expected(body, scope)
        if len(body) != expected:
            raise _Refused(
                INTERNAL, "message shorter than it says" if len(body) < expected else "more than one message"
            )
        return body[PREFIX_BYTES:]

    def _expected(self, body: bytes, scope: Scope) -> int:
        """Length of the body according to its prefix."""
        if len(body) < PREFIX_BYTES:
            raise _Refused(INTERNAL, "no message")
        if body[0]:
            if body[0] == 1:
                raise _Refused(UNIMPLEMENTED, "compressed messages are not read")
            raise _Refused(INTERNAL, "unknown flags of a message")
        length = int.from_bytes(body[1:PREFIX_BYTES], "big")
        if length > self._max_message_bytes:
            raise _Refused(RESOURCE_EXHAUSTED, "message larger than allowed")
        return PREFIX_BYTES + length


def _must_be_grpc(scope: Scope) -> None:
    """Raise _Refused for any other method or content type."""
    if scope["method"] != "POST":
        raise _Refused(UNIMPLEMENTED, "gRPC is POST", 405)
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value == b"application/grpc" or value.startswith((b"application/grpc+", b"application/grpc;")):
                return
            break
    raise _Refused(UNIMPLEMENTED, "not a gRPC call", 415)


def _metadata(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(_METADATA[name], value.decode("latin-1")) for name, value in headers if name in _METADATA]


def _timeout(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds that the caller will wait, by ``grpc-timeout``; None when it does not say."""
    for name, value in headers:
        if name == b"grpc-timeout" and value[:-1].isdigit() and value[-1:] in _UNITS:
            return int(value[:-1]) * _UNITS[value[-1:]]
    return None


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


async def _reply(send: Send, message: bytes) -> None:
    try:
        await send(_START)
        await send({"type": "http.response.body", "body": _frame(message), "more_body": False})
        await send(_SUCCESS)
    except OSError:  # the caller is gone; the decision is recorded already
        return


async def _refuse(send: Send, refused: _Refused) -> None:
    """Answer with headers only, as gRPC prescribes where there is no message."""
    headers = [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(refused.status).encode()),
        (b"grpc-message", refused.reason.encode()),
        (b"grpc-accept-encoding", b"identity"),
    ]
    try:
        await send({"type": "http.response.start", "status": refused.http_status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except OSError:
        return
