"""
Which authorities the truth knows, and when each was heard of last: one that died holds up every change of the root.

An authority that serves says every few seconds what its holders trust (``common_state.REPORT_SECONDS``). When, is what
the servers of NATS say, so that no clock but theirs counts.
"""

from dataclasses import dataclass

from authz.control.authority.common_state import AUTHORITIES_KEY, HOLDERS_KEY, INTERMEDIATES_KEY
from authz.truth.truth_bucket import TruthBucket


@dataclass(frozen=True, slots=True)
class KnownAuthority:
    """One that has announced itself."""

    name: str
    announced: bytes
    """What it said of itself (``identity.announcement``); not verified."""
    silent_seconds: float
    """Since it was heard of last, by the servers' clock."""


def known_authorities(bucket: TruthBucket) -> tuple[KnownAuthority, ...]:
    """Every one, by name. Raises TruthAway, TruthRefused."""
    announced, heard = bucket.entries(f"{AUTHORITIES_KEY}*"), bucket.entries(f"{HOLDERS_KEY}*")
    now = bucket.now()
    found = []
    for key, entry in sorted(announced.items()):
        name = key.removeprefix(AUTHORITIES_KEY)
        said = heard.get(HOLDERS_KEY + name)
        last = max(entry.created, said.created if said is not None else 0.0)
        found.append(KnownAuthority(name, entry.value, max(0.0, now - last)))
    return tuple(found)


def forget_authority(bucket: TruthBucket, name: str) -> None:
    """Take away all that was kept of one; one that lives announces itself again. Raises as ``TruthBucket``."""
    for pattern in (f"{INTERMEDIATES_KEY}{name}.*", f"{HOLDERS_KEY}{name}", f"{AUTHORITIES_KEY}{name}"):
        for key, entry in bucket.entries(pattern).items():
            bucket.delete(key, entry.revision)
