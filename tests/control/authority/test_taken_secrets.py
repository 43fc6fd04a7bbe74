"""What Envoys acknowledge of secret discovery, as the authority tells it to those who change the root."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from authz._proto import sds_pb2 as wire
from authz.control.authority import authority_server
from authz.control.authority.holders import Holders
from authz.control.authority.sds import SecretServer
from authz.control.authority.stock import Stock
from authz.control.discovery.discovered import SECRET_TYPE
from authz.control.discovery.secrets import ROOTS
from authz.identity.rotation import activate, prepare, retire, taint
from tests.control.authority.test_sds import MESH, REVIEWS, directory, local, read, running, stream

__all__ = ["directory"]  # a fixture


@pytest.fixture
def holders(monkeypatch: pytest.MonkeyPatch) -> Holders:
    """Those of the authority that starts next."""
    noted = Holders()

    def make(stock: Stock, _: Holders | None) -> SecretServer:
        return SecretServer(stock, noted)

    monkeypatch.setattr(authority_server, "SecretServer", make)
    return noted


def answer(response: wire.DiscoveryResponse, names: list[str], **more: Any) -> wire.DiscoveryRequest:
    return wire.DiscoveryRequest(resource_names=names, type_url=SECRET_TYPE, response_nonce=response.nonce, **more)


@pytest.mark.parametrize("roots", [ROOTS, f"spiffe://{MESH}"])
async def test_a_change_of_the_root_is_followed_by_what_is_acknowledged(
    directory: Path, holders: Holders, roots: str
) -> None:
    names = [REVIEWS, roots]
    async with running(directory) as authority, local(directory) as channel:
        old = authority.ca.active.id
        call = stream(channel)

        def report() -> tuple[int, dict[str, int], dict[str, list[str]]]:
            told: Any = holders.report([one.id for one in authority.ca.authorities], time.time())
            lacking = {root: len(found["lacking"]) for root, found in told["roots"].items()}
            return told["seen"], lacking, {root: found["signed"] for root, found in told["roots"].items()}

        async def settled(response: wire.DiscoveryResponse, **more: Any) -> None:
            """Answered, and the answer was read: what is unknown and asked for after it is told of."""
            acknowledged = authority.server.secrets.figures.acknowledged + authority.server.secrets.figures.rejected
            await call.write(answer(response, names, **more))
            figures, until = authority.server.secrets.figures, time.monotonic() + 5
            while figures.acknowledged + figures.rejected == acknowledged:
                assert time.monotonic() < until
                await asyncio.sleep(0.01)

        await call.write(wire.DiscoveryRequest(resource_names=names, type_url=SECRET_TYPE))
        first = await read(call)
        assert report()[0] == 0
        await settled(first)
        assert report() == (1, {old: 0}, {old: [REVIEWS]})

        authority.change(prepare(authority.ca, time.time()))
        new = authority.ca.authorities[-1].id
        second = await read(call)
        assert report() == (1, {old: 0, new: 1}, {old: [REVIEWS], new: []})
        await settled(second)
        assert report() == (1, {old: 0, new: 0}, {old: [REVIEWS], new: []})

        authority.change(taint(activate(authority.ca)))
        third = await read(call)
        await settled(third, error_detail=wire.Status(code=13, message="no"))
        assert report()[2] == {old: [REVIEWS], new: []}
        authority.change(retire(authority.ca))
        await settled(await read(call))
        assert report() == (1, {new: 0}, {new: [REVIEWS]})
        call.cancel()
