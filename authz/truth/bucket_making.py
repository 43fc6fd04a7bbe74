"""Makes the buckets of a fleet, and closes those that are there to what one writer could do to all others."""

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, ObjectStoreConfig, RePublish, StorageType, StreamConfig

from authz.truth.truth_bucket import (
    ARCHIVES,
    FLEET,
    KEEPS,
    KEY_SETS,
    LEDGER,
    MAX_VALUE_BYTES,
    bucket_name,
    change_subject,
    stream_of,
)
from authz.truth.truth_client import TruthClient

FORGETS_SECONDS = {LEDGER: 40 * 24 * 3600.0}
"""After so long a value is gone: no certificate of a workload lives longer than 30 days."""
MOST_BYTES = {FLEET: 128 << 20, KEY_SETS: 32 << 20}
"""
Of what servers write: room for the reports of twenty controls with 10,000 proxies each that all refuse something. When
it is full no new key is written; those that are there are replaced as before, so that nobody silences the others.
"""


def make_buckets(client: TruthClient, replicas: int) -> tuple[str, ...]:
    """
    Make every bucket that is not there, kept by so many servers; return the names of those that were made.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """

    async def make(js: JetStreamContext) -> tuple[str, ...]:
        made = []
        for what, kept in KEEPS.items():
            name = bucket_name(client.address.fleet, what)
            before, told_at = f"$KV.{name}.>", change_subject(client.address.fleet, what, ">")
            told = StreamConfig(
                name=stream_of(client.address.fleet, what), subjects=[before], max_msgs_per_subject=kept,
                max_msg_size=MAX_VALUE_BYTES, max_age=FORGETS_SECONDS.get(what, 0.0),
                max_bytes=MOST_BYTES.get(what, -1), discard=DiscardPolicy.NEW,
                num_replicas=replicas, storage=StorageType.FILE, deny_delete=True,
                republish=RePublish(before, told_at, headers_only=True),
                allow_rollup_hdrs=False,  # by which whoever may write one key would delete all others
            )  # fmt: skip
            try:
                there = (await js.stream_info(told.name or "")).config
            except nats.js.errors.NotFoundError:
                await js.add_stream(told)
                made.append(name)
            else:
                if there.allow_rollup_hdrs or there.max_bytes != told.max_bytes:
                    await js.update_stream(there, allow_rollup_hdrs=False, max_bytes=told.max_bytes)
        name = bucket_name(client.address.fleet, ARCHIVES)
        try:
            await js.object_store(name)
        except nats.js.errors.NotFoundError:
            await js.create_object_store(name, ObjectStoreConfig(replicas=replicas, storage=StorageType.FILE))
            made.append(name)
        return tuple(made)

    return client.call(make, 30.0, about=bucket_name(client.address.fleet, ""))
