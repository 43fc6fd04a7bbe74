"""All proxies come back at once after the control plane was restarted: real streams, a few at a time served."""

import asyncio
import selectors
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.figures import Figured
from authz.control.authority.sds import Identify
from authz.control.authority.stock import Stock
from authz.control.discovery.discovered import SHORT_NAMES, Discovered
from authz.control.fleet.discovery_server import STARTING, DiscoveryServer
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.control.fleet.proxy_standings import ProxyStandings
from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from benchmarks.xds_clients import Proxy
from tests.control.fleet.fleet_rig import free_ports

PROXIES = 300
"""Several times as many as are given everything at once; with 1,000 this is the longest test of the room."""
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
        self.most = 0

    def connect(self) -> None:
        """All at once, until each has something of every type. Raises OSError when one stream is refused or ends."""
        missing = {f"w{number}": set(SHORT_NAMES) for number in range(PROXIES)}
        begun: set[str] = set()

        def hear(proxy: Proxy) -> None:
            for response in proxy.go_on():
                begun.add(proxy.name)
                missing[proxy.name].discard(response.type_url)
                if not missing[proxy.name]:
                    del missing[proxy.name]
                    begun.discard(proxy.name)
            self.most = max(self.most, len(begun))

        ends = time.monotonic() + PATIENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            for name in tuple(missing):
                proxy = Proxy(self._port, name, self._context)
                self._proxies.append(proxy)
                selector.register(proxy.socket, selectors.EVENT_READ, proxy)
                hear(proxy)
            while missing:
                assert time.monotonic() < ends, f"{len(missing)} proxies do not have everything"
                for key, _ in selector.select(1.0):
                    hear(key.data)

    def close(self) -> None:
        for proxy in self._proxies:
            with suppress(OSError):
                proxy.socket.close()
        self._proxies.clear()


def fleet() -> Fleet:
    world = {url: {"one": Discovered.pack(url, "one", b"\x0a\x03one")} for url in SHORT_NAMES}
    return {name: FleetMember(name, ALL, world) for name in (f"w{number}" for number in range(PROXIES))}


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


async def test_all_come_back_at_once_and_each_gets_everything_a_few_at_a_time(tmp_path: Path) -> None:
    ca = CertificateAuthority.create("mesh.test", time.time())
    ca.save(tmp_path / "ca")
    issued = ca.issue_svid(ALL, time.time())
    (tmp_path / "chain.pem").write_bytes(issued.chain_pem)
    (tmp_path / "key.pem").write_bytes(issued.key_pem)
    (port,) = free_ports(1)
    before, after = Clients(port, tmp_path), Clients(port, tmp_path)
    try:
        async with serving(tmp_path, port) as first:
            await asyncio.to_thread(before.connect)
            assert first.server.streams == PROXIES
        async with serving(tmp_path, port) as second:
            await asyncio.to_thread(after.connect)
            assert second.server.streams == PROXIES
            assert second.server.figures.refused == 0
            assert not sum(second.server.figures.rejected.values())
            assert 1 < second.most <= STARTING
            assert after.most <= STARTING, "as the proxies see it"
            async with asyncio.timeout(10):
                while second.server.starting or not all(state.is_current for state in second.server.states()):  # noqa: ASYNC110  # no event for it
                    await asyncio.sleep(0.02)
    finally:
        before.close()
        after.close()
