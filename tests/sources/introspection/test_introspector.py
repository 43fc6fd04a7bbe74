"""Issuers asked about tokens by real HTTP: what is believed, for how long, and what becomes of everything else."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.core.attributes import Json
from authz.core.introspection import Introspection, TokenAnswer, TokenQuestion
from authz.sources.introspection import introspector as module
from authz.sources.introspection.exchange import MAX_ANSWER_BYTES
from authz.sources.introspection.introspector import FAILURES_TO_OPEN, Introspector
from authz.tokens.json_text import read_object
from tests.service.ports.test_server_tls import Pair
from tests.sources.introspection.endpoint import CLIENT, SECRET, Endpoint, endpoint

ISSUER = "https://issuer.test"
ACTIVE: dict[str, Json] = {"active": True, "sub": "alice"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Asking:
    """An introspector and a real endpoint."""

    def __init__(self, served: Endpoint, introspector: Introspector, of: Introspection, clock: Clock) -> None:
        self.served, self.introspector, self.of, self.clock = served, introspector, of, clock

    async def __call__(self, token: str) -> TokenAnswer:
        """As a request does: first from memory."""
        question = TokenQuestion(self.of, token)
        return self.introspector.remembered(question, self.clock()) or await self.introspector.ask(question)

    @property
    def state(self) -> module.IntrospectionState:
        return self.introspector.status()[0]


@asynccontextmanager
async def asking(
    folder: Path, context: ssl.SSLContext | None = None, bundles: dict[str, str] | None = None, **changes: Any
) -> AsyncIterator[Asking]:
    (folder / "secret").write_text(f"{SECRET}\n")
    clock = Clock()
    async with endpoint(context) as served:
        served.answers["good"] = ACTIVE
        facts = {"issuer": ISSUER, "endpoint": served.url, "client_id": CLIENT, "timeout_seconds": 20.0}
        of = Introspection(**{**facts, "client_secret_file": str(folder / "secret"), **changes})
        introspector = Introspector(read_object, clock=clock, ca_bundles=bundles)
        introspector.update([of])
        try:
            yield Asking(served, introspector, of, clock)
        finally:
            await introspector.close()


async def test_an_issuer_says_which_tokens_are_active(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        assert await ask("good") == TokenAnswer(ACTIVE)
        assert await ask("bad") == TokenAnswer(None)
        assert ask.served.asked == ["good", "bad"]
        assert (ask.state.misses, ask.state.refusals, ask.state.failures, ask.state.error) == (2, 1, 0, "")


@pytest.mark.parametrize(
    ("token", "claims", "later", "asked"),
    [
        ("good", {}, 59, 1), ("good", {}, 60, 2),
        ("good", {"exp": 1_800_000_030}, 29, 1), ("good", {"exp": 1_800_000_030}, 30, 2),
        ("good", {"exp": 1_900_000_000}, 60, 2), ("good", {"exp": "soon"}, 59, 1),
        ("bad", None, 9, 1), ("bad", None, 10, 2),
    ],
)  # fmt: skip
async def test_an_answer_is_believed_for_its_time_and_not_beyond_exp(
    token: str, claims: dict[str, Any] | None, later: float, asked: int, tmp_path: Path
) -> None:
    async with asking(tmp_path) as ask:
        ask.served.answers["good"] = {**ACTIVE, **(claims or {})}
        first = await ask(token)
        ask.clock.now += later
        assert await ask(token) == first
        assert len(ask.served.asked) == asked
        assert ask.state.hits == 2 - asked


async def test_a_token_that_is_revoked_is_refused_when_its_answer_is_old(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        await ask("good")
        del ask.served.answers["good"]
        ask.clock.now += 60
        assert await ask("good") == TokenAnswer(None)


async def test_requests_with_one_token_share_one_question_and_one_that_gives_up_does_not_end_it(
    tmp_path: Path,
) -> None:
    async with asking(tmp_path) as ask:
        ask.served.gate = asyncio.Event()
        together = [asyncio.create_task(ask("good")) for _ in range(20)]
        await ask.served.until_asked(1)
        together[0].cancel()
        ask.served.gate.set()
        answers = await asyncio.gather(*together, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [TokenAnswer(ACTIVE)] * 19
        assert ask.served.asked == ["good"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": 500}, "status 500"),
        ({"status": 302, "headers": "location: http://127.0.0.1:1/\r\n"}, "status 302"),
        ({"status": 201}, "status 201"),
        ({"content_type": "text/html"}, "'text/html'"),
        ({"content_type": ""}, "(none)"),
        ({"answers": {"good": b"<html>"}}, "not a JSON object"),
        ({"answers": {"good": b"[true]"}}, "not a JSON object"),
        ({"answers": {"good": b""}}, "not a JSON object"),
        ({"answers": {"good": b'{"active": true, "active": false}'}}, "not a JSON object"),
        ({"answers": {"good": {"sub": "alice"}}}, "`active`"),
        ({"answers": {"good": {"active": "true"}}}, "`active`"),
        ({"answers": {"good": {"active": 1}}}, "`active`"),
        ({"answers": {"good": {"active": None}}}, "`active`"),
        ({"answers": {"good": b" " * (MAX_ANSWER_BYTES + 1)}}, "more than 65536 bytes"),
    ],
)
async def test_whatever_is_no_plain_answer_refuses_the_token_and_is_not_remembered(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    async with asking(tmp_path) as ask:
        for name, value in changes.items():
            setattr(ask.served, name, value)
        answer = await ask("good")
        assert answer.claims is None
        assert said in answer.error
        await ask("good")
        assert ask.served.asked == ["good", "good"]
        assert (ask.state.failures, ask.state.refusals) == (2, 0)


async def test_an_endpoint_that_does_not_answer_in_time_refuses(tmp_path: Path) -> None:
    async with asking(tmp_path, timeout_seconds=0.05) as ask:
        ask.served.is_silent = True
        assert "no answer within 0.05 s" in (await ask("good")).error


async def test_a_connection_that_was_closed_meanwhile_is_no_failure(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        ask.served.closes = True
        for token in ("a", "b", "c"):
            assert await ask(token) == TokenAnswer(None)
        assert ask.state.failures == 0


async def test_an_endpoint_that_fails_again_and_again_is_left_alone_and_tried_again(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        ask.served.status = 503
        for number in range(FAILURES_TO_OPEN):
            assert "status 503" in (await ask(f"t{number}")).error
        assert "is not asked for 1 s" in (await ask("t")).error
        assert len(ask.served.asked) == FAILURES_TO_OPEN
        ask.clock.now += 1
        ask.served.gate = asyncio.Event()
        trial = asyncio.create_task(ask("trial"))
        await ask.served.until_asked(FAILURES_TO_OPEN + 1)
        assert "is not asked" in (await ask("beside the trial")).error  # one question finds out
        ask.served.gate.set()
        assert "status 503" in (await trial).error
        ask.clock.now += 1
        assert "is not asked for 1 s" in (await ask("t")).error  # the pause is twice as long
        ask.clock.now += 1
        ask.served.status = 200
        assert await ask("good") == TokenAnswer(ACTIVE)
        assert await ask("other") == TokenAnswer(None)
        assert ask.state.error == ""


async def test_what_is_remembered_holds_while_the_endpoint_is_dead(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        await ask("good")
        ask.served.status = 500
        await ask("other")
        assert await ask("good") == TokenAnswer(ACTIVE)


async def test_invented_tokens_drive_out_no_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    async with asking(tmp_path) as ask:
        await ask("good")
        for number in range(5):
            await ask(f"invented-{number}")
        await ask("good")
        await ask("invented-0")
        assert ask.served.asked.count("good") == 1
        assert ask.served.asked.count("invented-0") == 2


async def test_more_questions_than_may_be_under_way_wait_and_are_no_fault_of_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 2)
    async with asking(tmp_path) as ask:
        ask.served.gate = asyncio.Event()
        first = [asyncio.create_task(ask(f"t{number}")) for number in range(4)]
        await ask.served.until_asked(2)
        ask.served.gate.set()
        assert await asyncio.gather(*first) == [TokenAnswer(None)] * 4
        assert ask.state.error == ""


@pytest.mark.parametrize("secret", [None, "", " \n", "wrong", b"\xff", "x" * 5000])
async def test_a_secret_that_is_missing_or_wrong_refuses_and_is_read_again(
    secret: str | bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(tmp_path) as ask:
        file = tmp_path / "secret"
        file.unlink()
        if secret is not None:
            file.write_bytes(secret if isinstance(secret, bytes) else secret.encode())
        assert "secret" in (await ask("good")).error
        file.write_text(SECRET)
        assert await ask("good") == TokenAnswer(ACTIVE)
    assert SECRET not in caplog.text


async def test_neither_token_nor_secret_is_in_the_log_or_in_any_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with asking(tmp_path) as ask:
        ask.served.answers["opaque-token-1"] = b"<html>opaque-token-1"
        question = TokenQuestion(ask.of, "opaque-token-1")
        answer = await ask.introspector.ask(question)
        told = [repr(question), repr(answer), repr(ask.introspector.status()), caplog.text]
    assert "the answer is not a JSON object" in caplog.text
    for text in told:
        assert "opaque-token-1" not in text
        assert SECRET not in text


@pytest.mark.parametrize(("trusted", "error"), [(True, ""), (False, "certificate verify failed")])
async def test_an_endpoint_over_tls_is_verified_by_the_bundle_of_its_issuer(
    trusted: bool, error: str, tmp_path: Path
) -> None:
    authority, stranger = Pair("authority"), Pair("stranger")
    Pair("endpoint", authority).write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.pem").write_bytes((authority if trusted else stranger).pem)
    async with asking(tmp_path, context, {ISSUER: str(tmp_path / "ca.pem")}) as ask:
        answer = await ask("good")
    assert (answer.claims is not None) is trusted
    assert error in answer.error


async def test_a_metadata_address_is_not_asked(tmp_path: Path) -> None:
    async with asking(tmp_path, endpoint="http://169.254.169.254/introspect") as ask:
        assert "refused" in (await ask("good")).error


async def test_entries_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        await ask("good")
        ask.introspector.update([])
        assert ask.introspector.status() == ()
        ask.introspector.update([ask.of])
        assert ask.state.misses == 0
