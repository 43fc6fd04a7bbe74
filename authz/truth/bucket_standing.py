"""How the servers keep what a fleet has: which bucket is there, who leads it, and which server is behind."""

import asyncio
from dataclasses import dataclass

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from authz.truth.truth_bucket import ARCHIVES, KEEPS, stream_of
from authz.truth.truth_client import TruthClient

LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BucketStanding:
    """One bucket."""

    what: str
    is_there: bool
    replicas: int = 0
    """By how many servers it is to be kept."""
    leader: str = ""
    """Empty while none leads; for a server alone its own name, or nothing."""
    behind: tuple[str, ...] = ()
    """Servers that are away, or have not yet got everything."""
    messages: int = 0
    bytes: int = 0

    @property
    def is_well(self) -> bool:
        """Whether every server has it."""
        return self.is_there and not self.behind and (self.replicas == 1 or bool(self.leader))


def bucket_standings(client: TruthClient, buckets: tuple[str, ...] = (*KEEPS, ARCHIVES)) -> tuple[BucketStanding, ...]:
    """
    Ask for every bucket that the client may read.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """

    async def look(js: JetStreamContext) -> tuple[BucketStanding, ...]:
        return tuple(await asyncio.gather(*(one(js, what) for what in buckets)))

    async def one(js: JetStreamContext, what: str) -> BucketStanding:
        try:
            return _standing(what, await js.stream_info(stream_of(client.address.fleet, what)))
        except nats.js.errors.NotFoundError:
            return BucketStanding(what, is_there=False)

    return client.call(look, LOOK_SECONDS, about=f"authz-{client.address.fleet}-")


def _standing(what: str, info: StreamInfo) -> BucketStanding:
    cluster = info.cluster
    peers = (cluster.replicas or []) if cluster is not None else []
    return BucketStanding(
        what,
        is_there=True,
        replicas=info.config.num_replicas or 1,
        leader=(cluster.leader or "") if cluster is not None else "",
        behind=tuple(sorted(peer.name or "?" for peer in peers if peer.offline or not peer.current)),
        messages=info.state.messages,
        bytes=info.state.bytes,
    )
