"""A thousand proxies come at once to a control plane that was just started: real streams, served a few at a time."""

import asyncio
import selectors
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.figures import Figured
from authz.control.authority.sds import Identify
from authz.control.authority.stock import Stock
from authz.control.discovery.discovered import SHORT_NAMES, Discovered
from authz.control.fleet import discovery_server
from authz.control.fleet.discovery_server import STARTING, DiscoveryServer
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.control.fleet.proxy_standings import ProxyStandings
from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from benchmarks.xds_clients import Proxy
from tests.control.fleet.fleet_rig import free_ports

PROXIES = 1000
FIRST, HALF = "w0", PROXIES // 2
"""Who has something new when half of all have everything."""
ALL = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/all")
PATIENCE_SECONDS = 45.0


class Watched(ProxyStandings):
    """Told after every answer; ``look`` is called each time."""

    look: Callable[[], None] = staticmethod(lambda: None)

    def note(self, name: str, now: float, *, is_current: bool) -> None:
        self.look()
        super().note(name, now, is_current=is_current)


class Discovery:
    """Discovery alone at the authority's door, with the most streams that were being given everything at once."""

    def __init__(self, fleet: Fleet) -> None:
        self.server = DiscoveryServer()
        self.server.standings = standings = Watched()
        self.server.publish(fleet)
        self.most = 0
        standings.look = self._look

    def _look(self) -> None:
        self.most = max(self.most, self.server.starting)

    def handlers(self, stock: Stock, identify: Identify) -> tuple["grpc.GenericRpcHandler[Any, Any]", ...]:
        return (self.server.handler(stock, identify),)

    def figures(self) -> Figured:
        return iter(())

    def causes(self) -> Iterable[dict[str, object]]:
        return ()

    def page(self, path: str) -> object | None:
        return None


class Clients:
    """As many proxies in one thread; all come back as soon as their connection is lost, and there is a server."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(folder / "ca" / BUNDLE_FILE))
        self._context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        self._context.set_alpn_protocols(["h2"])
        self._proxies: list[Proxy] = []
        self.most = self.lost = 0

    def connect(self, half: Callable[[], None]) -> int:
        """
        All at once, until each has something of every type; ``half`` is called when half of them have. Say how many did
        not yet when the first of them had something again. Whoever loses its connection comes again.
        """
        missing = {f"w{number}": set(SHORT_NAMES) for number in range(PROXIES)}
        begun: set[str] = set()
        left: list[int] = []

        def hear(proxy: Proxy) -> None:
            for response in proxy.go_on():
                if proxy.name not in missing:
                    left.append(len(missing))
                    continue
                begun.add(proxy.name)
                missing[proxy.name].discard(response.type_url)
                if not missing[proxy.name]:
                    del missing[proxy.name]
                    begun.discard(proxy.name)
                    if len(missing) == HALF:
                        half()
            self.most = max(self.most, len(begun))

        ends = time.monotonic() + PATIENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            for name in tuple(missing):
                hear(self._begin(name, selector))
            while missing:
                assert time.monotonic() < ends, f"{len(missing)} proxies do not have everything"
                for key, _ in selector.select(1.0):
                    try:
                        hear(key.data)
                    except OSError:  # on a busy machine, where one handshake waits for a thousand others
                        self.lost += 1
                        begun.discard(key.data.name)
                        selector.unregister(key.fileobj)
                        self._begin(key.data.name, selector)
        return max(left, default=0)

    def _begin(self, name: str, selector: selectors.BaseSelector) -> Proxy:
        proxy = Proxy(self._port, name, self._context)
        self._proxies.append(proxy)
        selector.register(proxy.socket, selectors.EVENT_READ, proxy)
        return proxy

    def close(self) -> None:
        for proxy in self._proxies:
            with suppress(OSError):
                proxy.socket.close()
        self._proxies.clear()


def world(value: bytes) -> dict[str, dict[str, Discovered]]:
    return {url: {"one": Discovered.pack(url, "one", b"\x0a\x03" + value)} for url in SHORT_NAMES}


def fleet() -> Fleet:
    same = world(b"one")
    return {name: FleetMember(name, ALL, same) for name in (f"w{number}" for number in range(PROXIES))}


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[Discovery]:
    discovery = Discovery(fleet())
    authority = AuthorityServer(AuthorityFiles(folder / "ca"), Doors(listen=f"127.0.0.1:{port}", dns=("localhost",)))
    authority.guest = discovery
    await authority.start()
    try:
        yield discovery
    finally:
        await authority.stop()


async def test_all_come_back_at_once_and_each_gets_everything_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_server, "START_SECONDS", PATIENCE_SECONDS)  # on a busy machine, too
    ca = CertificateAuthority.create("mesh.test", time.time())
    ca.save(tmp_path / "ca")
    issued = ca.issue_svid(ALL, time.time())
    (tmp_path / "chain.pem").write_bytes(issued.chain_pem)
    (tmp_path / "key.pem").write_bytes(issued.key_pem)
    (port,) = free_ports(1)
    clients, loop = Clients(port, tmp_path), asyncio.get_running_loop()
    try:
        async with serving(tmp_path, port) as found:
            changed = {**fleet(), FIRST: FleetMember(FIRST, ALL, world(b"two"))}

            def change() -> None:
                loop.call_soon_threadsafe(found.server.publish, changed, (FIRST,))

            left = await asyncio.to_thread(clients.connect, change)
            assert found.server.streams >= PROXIES
            assert clients.lost <= PROXIES / 100
            assert found.server.figures.refused == 0
            assert not sum(found.server.figures.rejected.values())
            assert 1 < found.most <= STARTING
            assert clients.most <= STARTING, "as the proxies see it"
            assert left > HALF / 2, "a change of one that has everything does not wait for those that come"
            async with asyncio.timeout(10):
                while found.server.starting or not all(state.is_current for state in found.server.states()):  # noqa: ASYNC110  # no event for it
                    await asyncio.sleep(0.02)
    finally:
        clients.close()
