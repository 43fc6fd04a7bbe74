"""
One door as an ASGI application: HTTP in, the check function, HTTP out.

Whatever goes wrong is a refusal the proxy understands, never an error that it might take for leave to go on (CS-13).
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from authz.service.check_function import CheckFunction
from authz.service.doors import grpc_web
from authz.service.doors.door_answers import FORBIDDEN, HttpAnswer, write_door_answer
from authz.service.doors.forms import HttpHeaders, Misasked, Reader
from authz.service.pending import Pending
from authz.service.ports.certificate_protocol import PEER_CERTIFICATE, PEER_IDENTITY
from authz.service.ports.failure import where_it_failed
from authz.service.server import AskProvider
from authz.service.streams import JudgeCaller
from authz.service.vouched import Vouched
from authz.settings.http_doors import HttpDoor

_log = logging.getLogger("authz.doors")
MAX_REMARKS = 32
"""How many different complaints are logged; each is logged once."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""The callables of ASGI; their messages are dictionaries of many kinds, hence Any."""


class DoorApp:
    """Answers the proxies at one door."""

    def __init__(
        self,
        door: HttpDoor,
        function: CheckFunction,
        ask: AskProvider,
        clock: Callable[[], float],
        judge_caller: JudgeCaller | None,
        max_message_bytes: int,
    ) -> None:
        self._door = door
        self._function = function
        self._ask = ask
        self._clock = clock
        self._judge_caller = judge_caller
        self._max_bytes = max_message_bytes
        self._reader = Reader(door) if door.kind != "grpc-web" else None
        self._upstream = frozenset(door.upstream_headers)
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing."""
        try:
            answer = await self._answer(scope, receive)
        except Misasked as error:
            self._remark(str(error))
            answer = FORBIDDEN
        except Exception as error:  # a mistake of ours must not let anybody in
            _log.error("a question at %s failed and was refused: %s", self._door.listen, where_it_failed(error))
            answer = FORBIDDEN
        headers = [(name.encode("latin-1"), value.encode("utf-8", "surrogateescape")) for name, value in answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> HttpAnswer:
        if self._reader is None:
            return await self._answer_grpc_web(scope, receive)
        caller = self._caller(scope)
        if caller is None:
            return FORBIDDEN
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        question = self._reader.read(scope["method"], target.decode("latin-1"), scope["headers"])
        message = await self._check(question.message, question.metadata, caller, self._reader.vouched)
        return write_door_answer(self._door.kind, message, self._upstream)

    async def _check(
        self, message: bytes, metadata: tuple[tuple[str, str], ...], caller: str, vouched: Vouched | None
    ) -> bytes:
        answer = self._function.check(message, metadata, self._clock(), caller, vouched)
        while isinstance(answer, Pending):
            answer = answer.resume(await self._ask(answer), self._clock())
        return answer

    def _caller(self, scope: Scope) -> str | None:
        """The SPIFFE ID by which the proxy asks, empty where it has none; None when it may not have an answer."""
        certificate: bytes = scope.get(PEER_CERTIFICATE, b"")
        if not certificate:
            return ""
        if self._judge_caller is not None:
            refusal = self._judge_caller(ssl.DER_cert_to_PEM_cert(certificate), self._clock())
            if refusal:
                self._remark(f"a caller is not answered: {refusal}")
                return None
        return str(scope.get(PEER_IDENTITY, ""))

    async def _answer_grpc_web(self, scope: Scope, receive: Receive) -> HttpAnswer:
        headers: HttpHeaders = scope["headers"]
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        text = grpc_web.is_text(dict(told).get("content-type", ""))
        if text is None:
            return HttpAnswer(415, body=b"this door speaks gRPC-Web\n")
        message, status, reason = None, grpc_web.OK, ""
        if scope["method"] != "POST" or scope["raw_path"] != grpc_web.PATH.encode():
            status, reason = grpc_web.UNIMPLEMENTED, f"only {grpc_web.PATH} is answered"
        elif (caller := self._caller(scope)) is None:
            status, reason = grpc_web.UNAUTHENTICATED, "the certificate is not accepted"
        else:
            try:
                question = grpc_web.read_message(await self._body(receive), text=text)
            except grpc_web.NotGrpcWeb as error:
                status, reason = grpc_web.INVALID_ARGUMENT, str(error)
            else:
                message = await self._check(question, tuple(told), caller, None)
        body = grpc_web.write_answer(message, status, reason, text=text)
        return HttpAnswer(200, (("content-type", grpc_web.content_type(text=text)),), body)

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            part = await receive()
            if part["type"] != "http.request":
                raise grpc_web.NotGrpcWeb("the caller is gone")
            body += part.get("body", b"")
            if len(body) > 2 * self._max_bytes:  # as base64 it is larger by a third
                raise grpc_web.NotGrpcWeb("the message is too large")
            if not part.get("more_body"):
                return bytes(body)

    def _remark(self, what: str) -> None:
        if what not in self._told and len(self._told) < MAX_REMARKS:
            self._told.add(what)
            _log.warning("door %s (%s): %s; such questions are refused", self._door.listen, self._door.kind, what)
