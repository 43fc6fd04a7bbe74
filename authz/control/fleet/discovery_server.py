"""
The gRPC shell of aggregated discovery: streams around ``discovery.conversation.Conversation``, filled from the fleet.

The SVID of a connection says which workload asks, and ``node.id`` must name a proxy of that workload: it gets its own
world, and of other names nothing. A change wakes the streams of those proxies only whose worlds changed. Each stream
takes what is newest when its proxy can take more, so that a slow one holds up nobody.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Set
from functools import partial
from time import time
from typing import Any

import grpc

from authz._proto import delta_discovery_pb2 as delta
from authz._proto import sds_pb2 as sotw
from authz.control.authority.sds import SHOWN_CHARACTERS, STATUS, Identify
from authz.control.authority.stock import Stock
from authz.control.discovery.conversation import Request
from authz.control.discovery.discovered import SHORT_NAMES, ProxyWorld, Push
from authz.control.discovery.overdue import waits_of
from authz.control.discovery.subscription import MAX_WORDS, WILDCARD
from authz.control.fleet.fleet_figures import FleetFigures, ProxyState
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.control.fleet.proxy_standings import ProxyStandings
from authz.control.fleet.proxy_state import has_everything, state_of
from authz.control.fleet.proxy_stream import ANSWER_SECONDS, ProxyStream, Waits, ends_at
from authz.identity.registrar import Cause, Refused, SigningLimit
from authz.identity.registration import Evidence, SvidPeer

log = logging.getLogger("authz.control.discovery")
audit = logging.getLogger("authz.discovery")
"""One JSON line for everything that was refused to a peer."""

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
MAX_STREAMS = 4
"""Streams of one proxy: it needs one, and after a failure of the network an old one may not have ended yet."""
STARTING = 64
"""Streams that get everything at the same time: after a restart all proxies come back at once."""
START_SECONDS = 5.0
"""The longest that a stream is among these."""
FIRST_SECONDS = 60.0
"""The longest that a stream says nothing at its beginning: Envoy's first request comes with it."""
_Context = grpc.aio.ServicerContext[Request, bytes]


class DiscoveryServer:
    """Serves one fleet, whose changes it is told by ``publish``."""

    def __init__(self, *, starting: int = STARTING, clock: Callable[[], float] = time) -> None:
        self._fleet: dict[str, FleetMember] = {}
        self._streams: dict[str, set[ProxyStream]] = {}
        self._left: dict[str, ProxyState] = {}
        self._states: dict[str, ProxyState] = {}
        """As they were last asked for; a proxy of which something may be other since then has none."""
        self._sorted: tuple[str, ...] | None = None
        self._others: dict[str, set[str]] | None = None
        self._starting = asyncio.Semaphore(starting)
        self._starts = Waits(START_SECONDS, self._started)
        self._answers = Waits(ANSWER_SECONDS, ProxyStream.look)
        self._records = SigningLimit(1.0, 10, 20.0, 200)  # a stranger who knocks in a loop must not fill the disk
        self._words = SigningLimit(1.0, 20, 1000.0, 20_000)  # nor a proxy that refuses in a loop
        self.opened = 0
        """Streams since the start."""
        self._clock = clock
        self.figures = FleetFigures()
        self.standings = ProxyStandings()
        self.moves = 0
        """Grows with every proxy that comes or leaves, and where others may be in the fleet than before."""

    def publish(self, fleet: Fleet, some: Iterable[str] | None = None) -> tuple[str, ...]:
        """
        Serve a fleet, of which nothing is kept but its members; return whose world is new or gone.

        Args:
            fleet: everybody; where ``some`` is given, nobody else is looked at.
            some: proxies of the fleet of before, which alone may be other than they were; None: any may.
        """
        before, self._others = self._fleet, None
        self._sorted = self._sorted if some is not None else None
        if some is None:
            changed = [name for name, member in fleet.items() if before.get(name) is not member]
            changed += [name for name in before if name not in fleet]
            self._fleet = dict(fleet)
            self._left = {name: state for name, state in self._left.items() if name in fleet}
            self.moves += 1
        else:
            changed = [name for name in some if before.get(name) is not fleet[name]]
            before.update((name, fleet[name]) for name in changed)
        self.standings.change(changed, self._fleet, self._clock())
        for name in changed:
            self._states.pop(name, None)
            for stream in self._streams.get(name, ()):
                stream.wake()
        return tuple(changed)

    def handler(self, stock: Stock, identify: Identify) -> "grpc.GenericRpcHandler[Any, bytes]":
        """The gRPC service for peers that ``identify`` tells apart by their SVIDs."""
        stream = partial(self._converse, stock, identify)
        read, read_delta = sotw.DiscoveryRequest.FromString, delta.DeltaDiscoveryRequest.FromString
        methods = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(stream, read),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(stream, read_delta),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def states(self) -> Iterator[ProxyState]:
        """Every proxy of the fleet by name: what it was sent, and what it said to that."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self._fleet))
        return iter([self._state_of(self._fleet[name]) for name in self._sorted])

    def state(self, name: str) -> ProxyState | None:
        """One of them; None when there is no such proxy."""
        member = self._fleet.get(name)
        return None if member is None else self._state_of(member)

    def _state_of(self, member: FleetMember) -> ProxyState:
        found = self._states.get(member.name)
        if found is None:
            found = self._states[member.name] = self._looked_at(member)
        return found

    def _looked_at(self, member: FleetMember) -> ProxyState:
        streams = self._streams.get(member.name)
        if streams:
            return state_of(member, max(streams, key=lambda one: one.number), is_connected=True)
        return self._left.get(member.name, ProxyState(member.name, str(member.spiffe_id)))

    @property
    def connected_and_left(self) -> tuple[Set[str], Set[str]]:
        """Names of the proxies that have a stream, and of those of which one has ended; both change with them."""
        return self._streams.keys(), self._left.keys()

    @property
    def streams(self) -> int:
        """How many are open."""
        return sum(map(len, self._streams.values()))

    @property
    def starting(self) -> int:
        """How many streams are being given everything now."""
        return sum(stream.is_starting for streams in self._streams.values() for stream in streams)

    async def _converse(
        self, stock: Stock, identify: Identify, requests: AsyncIterator[Request], context: _Context
    ) -> AsyncIterator[bytes]:
        evidence = identify(context)
        if not isinstance(evidence, SvidPeer):
            reason = evidence.reason if isinstance(evidence, Refused) else "an SVID is needed"
            self._refuse(stock, context.peer(), "", reason)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
        self.opened += 1
        stream = ProxyStream(evidence, ends_at(evidence.expires_at, stock.clock(), stock.jitter()), self.opened)
        stream.end_in(stream.ends_at - stock.clock())
        reading = asyncio.create_task(stream.read(requests))
        stock.listen(stream, minds_itself=True)
        try:
            item = await self._first(stock, stream, reading, context)
            await self._starting.acquire()
            stream.is_starting = True
            self._starts.add(stream)
            while True:
                for push in await self._answer(stock, stream, item, context):
                    self.figures.pushes[SHORT_NAMES.get(push.type_url, "other")] += 1
                    yield push.encode()
                if stream.conversation.subscriptions and stream.conversation.is_settled:
                    self._started(stream)
                if reading.done() and stream.inbox.empty():
                    return
                item = await stream.inbox.get()
        finally:
            self._started(stream)
            stream.close()
            reading.cancel()
            stock.leave(stream)
            self._leave(stream)

    async def _first(
        self, stock: Stock, stream: ProxyStream, reading: "asyncio.Task[None]", context: _Context
    ) -> Request | None:
        """
        The first request, or None at the end of the stream: whoever opens streams and says nothing must not take the
        places of those who begin.
        """
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                while (item := await stream.inbox.get()) is None:
                    stream.is_told = False
                    if reading.done() or stock.clock() >= stream.ends_at:
                        return None
                return item
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "a stream begins with a request, and none came")
            raise

    async def _answer(self, stock: Stock, stream: ProxyStream, item: Request | None, context: _Context) -> list[Push]:
        """What is due after a request, or the word that something changed; ends the call of a peer that may not ask."""
        conversation = stream.conversation
        node = stream.node
        if item is None:
            stream.is_told = False
            if not node and stock.clock() < stream.ends_at:
                return []  # it has not said yet who it is
        elif item.node.id:
            node = item.node.id
        member = self._member(stock, stream, node)
        if isinstance(member, Refused):
            self._refuse(stock, str(stream.evidence), node, member.reason)
            await context.abort(STATUS[member.cause], member.reason)
        if not stream.node:
            stream.node = member.name
            if member.name not in self._streams:
                self._streams[member.name] = set()
                self.moves += 1
            self._streams[member.name].add(stream)
        self._states.pop(member.name, None)
        pushes = conversation.update(member.world)
        if item is not None:
            try:
                pushes += conversation.receive(item)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            self._note(stock, stream, item, member.world)
        if stream.is_out_of_patience:
            stream.is_out_of_patience = False
            waits = f": {'; '.join(found)}" if (found := waits_of(conversation.subscriptions, member.world)) else ""
            log.warning("%s leaves responses without an answer; what waits for it is sent%s", stream.node, waits)
            self.standings.touch(stream.node)
            pushes += conversation.go_on()
        stream.watch(self._answers)
        self.standings.note(stream.node, self._clock(), is_current=not pushes and has_everything(member, conversation))
        return pushes

    def _member(self, stock: Stock, stream: ProxyStream, node: str) -> FleetMember | Refused:
        """The proxy that a stream is of, judged each time: SVIDs expire and are revoked, and workloads go."""
        evidence: Evidence = stream.evidence
        if stock.clock() >= stream.ends_at:
            return Refused("the certificate that opened this stream expires; a new stream takes a new one")
        if revoked := stock.registrar.revoked(evidence):
            return Refused(revoked)
        member = self._fleet.get(node)
        if member is None or member.spiffe_id != stream.evidence.spiffe_id or stream.node not in ("", node):
            return Refused(f"`{stream.evidence}` has no proxy `{node[:SHOWN_CHARACTERS]}` in this mesh")
        if not stream.node and len(self._streams.get(node, ())) >= MAX_STREAMS:
            return Refused(f"`{node}` has {MAX_STREAMS} streams already", Cause.LIMIT)
        return member

    def _note(self, stock: Stock, stream: ProxyStream, request: Request, world: ProxyWorld) -> None:
        """Count and log what a request says: an ACK, a NACK, names of others."""
        short = SHORT_NAMES.get(request.type_url, "other")
        node, is_answer, is_refusal = stream.node, bool(request.response_nonce), request.HasField("error_detail")
        if is_answer:
            self.standings.answer(node, self._clock(), is_refusal=is_refusal)
        if is_refusal:
            self.figures.rejected[short] += 1
            if self._words.take(node, self._clock()):
                words = request.error_detail.message[:MAX_WORDS]
                log.error("%s refused %s, keeps the old one: %s", node, short, words)
        elif is_answer:
            self.figures.acknowledged[short] += 1
        named = (
            request.resource_names_subscribe
            if isinstance(request, delta.DeltaDiscoveryRequest)
            else request.resource_names
        )
        own = world.get(request.type_url, {})
        for name in named:
            if name not in own and name != WILDCARD and name in self._names(request.type_url):
                told = f"{short} {name}"
                if told not in stream.told:
                    stream.told.add(told)
                    reason = f"{short} `{name[:SHOWN_CHARACTERS]}` is of another workload"
                    self._refuse(stock, str(stream.evidence), node, reason)

    def _names(self, type_url: str) -> set[str]:
        """Every name of a type in the fleet; gathered when somebody asks for what it does not have."""
        if self._others is None:
            self._others = {}
        if type_url not in self._others:
            self._others[type_url] = {name for one in self._fleet.values() for name in one.world.get(type_url, ())}
        return self._others[type_url]

    def _refuse(self, stock: Stock, peer: str, node: str, reason: str) -> None:
        self.figures.refused += 1
        now = stock.clock()
        if self._records.take(peer, now):
            line = {"time": now, "peer": peer, "node": node[:SHOWN_CHARACTERS], "refused": reason}
            audit.warning("%s", json.dumps(line))

    def _started(self, stream: ProxyStream) -> None:
        if stream.is_starting:
            stream.is_starting = False
            self._starting.release()

    def _leave(self, stream: ProxyStream) -> None:
        name = stream.node
        streams = self._streams.get(name, set())
        if stream in streams:
            streams.discard(stream)
            self._states.pop(name, None)
            if not streams:
                del self._streams[name]
                self.moves += 1
                self.standings.leave(name, self._clock())
                if name in self._fleet:
                    self._left[name] = state_of(self._fleet[name], stream, is_connected=False)
