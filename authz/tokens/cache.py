"""
Verified tokens, remembered: a bounded LRU that never outlives a token, its key set or its rules.

Keys hold a SHA-256 of the token, never the token. Times and key set are checked again on every hit.
INVARIANT: only tokens that verified are stored; refusals are never remembered.
Safe to share between threads: every operation holds the lock.
"""

import hashlib
from collections import OrderedDict
from threading import Lock

from authz.core.attributes import Authentication, per_request

CacheKey = tuple[bytes, bytes]
"""SHA-256 of the token; digest of the rules and of the place where the token stood."""

DEFAULT_CACHE_SIZE = 10_000
"""Some 40 MB with payloads of one kilobyte."""


@per_request
class VerifiedToken:
    """A token that verified, and the finished answer for requests whose only token it is."""

    answer: Authentication
    rule_index: int
    """Place of the accepting rule in the list of rules."""
    key_set: str
    """Digest of the key set that verified it; the entry is good as long as the rule still has that set."""
    valid_from: float
    valid_until: float
    """Inclusive: ``exp`` and the skew (RA-25)."""


class TokenCache:
    """Bounded cache of verified tokens; ``hits`` and ``misses`` only ever grow."""

    __slots__ = ("_entries", "_lock", "_max_entries", "hits", "misses")

    def __init__(self, max_entries: int = DEFAULT_CACHE_SIZE) -> None:
        # A bare ordered dictionary: what a general cache adds costs as much as reading a token.
        self._entries: OrderedDict[CacheKey, VerifiedToken] = OrderedDict()
        self._max_entries = max_entries
        self._lock = Lock()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: CacheKey, now: float) -> VerifiedToken | None:
        """Return the entry if it is there and its times allow ``now``; an expired one is dropped."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.misses += 1
                return None
            if entry.valid_from <= now <= entry.valid_until:
                self._entries.move_to_end(key)
                self.hits += 1
                return entry
            del self._entries[key]
            self.misses += 1
            return None

    def put(self, key: CacheKey, entry: VerifiedToken) -> None:
        """Store a token that verified just now."""
        with self._lock:
            entries = self._entries
            if key in entries:  # another thread verified it meanwhile
                entries.move_to_end(key)
            entries[key] = entry
            if len(entries) > self._max_entries:
                entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def token_key(token: bytes) -> bytes:
    """SHA-256 of a token."""
    return hashlib.sha256(token).digest()
