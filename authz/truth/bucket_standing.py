"""How the servers keep what a fleet has: which bucket is there, who leads it, and which server is behind."""

from dataclasses import dataclass
from functools import partial

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from authz.truth.truth_bucket import ARCHIVES, KEEPS, bucket_name, stream_of
from authz.truth.truth_client import TruthClient, TruthRefused

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
    Ask for those buckets that the client may see.

    Raises:
        TruthAway: as ``TruthClient.call``.
        TruthRefused: it may see none.
    """

    async def look(js: JetStreamContext, what: str) -> BucketStanding:
        try:
            return _standing(what, await js.stream_info(stream_of(client.address.fleet, what)))
        except nats.js.errors.NotFoundError:
            return BucketStanding(what, is_there=False)

    found, refusals = [], []
    for what in buckets:  # one after the other: that one is not allowed is said beside the answers
        try:
            found.append(
                client.call(partial(look, what=what), LOOK_SECONDS, about=bucket_name(client.address.fleet, what))
            )
        except TruthRefused as error:
            refusals.append(error)
    if not found and refusals:
        raise refusals[0]
    return tuple(found)


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
