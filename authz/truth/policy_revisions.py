"""
Revisions of the policies of a fleet: archives by their digest, and a head that is replaced by compare-and-swap only.

The archive comes before the head that names it, and goes after no kept head does. What an archive holds is not known
here.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from authz.truth.policy_head import DamagedHead, PolicyHead, PushedSet, read_head, write_head
from authz.truth.truth_bucket import POLICIES, TruthArchives, TruthBucket
from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused, TruthUntouched

log = logging.getLogger("authz.truth")
HEAD = "head"
"""The key."""
MOST_NUMBERS_AT_ONCE = 1000
"""One is usual; candidates have numbers, too."""
_DIGITS = 64
"""Of a digest; archives of other names are not ours."""


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head, and where it is kept."""

    head: PolicyHead
    place: int
    """The bucket's revision, by which it is replaced."""


class PolicyRevisions:
    """Every method raises TruthAway and TruthRefused, as ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self.client = client
        self._bucket = TruthBucket(client, POLICIES)
        self._archives = TruthArchives(client)

    def head(self) -> KeptHead | None:
        """
        What is in force; None before the first push.

        Raises:
            DamagedHead: what stands there is none.
        """
        found = self._bucket.get(HEAD)
        try:
            return KeptHead(read_head(found.value), found.revision) if found is not None else None
        except DamagedHead as error:
            raise _damaged(error) from None

    def to_replace(self, *, over_damaged: bool = False) -> KeptHead | None:
        """
        What is in force, for whoever gives the next revision its number; None before the first push.

        A head whose number jumps is damaged as well: who may write there, but has no key, could use up all numbers.

        Args:
            over_damaged: in the place of a damaged one, the newest kept head that is not.

        Raises:
            DamagedHead: what stands there is, and no other is kept if one is wanted.
        """
        found = self._bucket.get(HEAD)
        if found is None:
            return None
        good = _in_steps(self.history())
        try:
            head = read_head(found.value)
            if good and head.next_number - good[-1].next_number > MOST_NUMBERS_AT_ONCE:
                raise DamagedHead(f"number {head.next_number - 1} does not follow {good[-1].next_number - 1}")
            return KeptHead(head, found.revision)
        except DamagedHead as error:
            if over_damaged and good:
                return KeptHead(good[-1], found.revision)
            raise _damaged(error) from None

    def history(self) -> tuple[PolicyHead, ...]:
        """
        The heads that are kept, at most 64, the oldest first; what is none is left out, and logged.

        A revision stands there again for everything that became of its candidates.
        """
        found = []
        for entry in self._bucket.history(HEAD):
            try:
                found.append(read_head(entry.value))
            except DamagedHead as error:
                log.warning("a head of the policies in the truth is damaged, of bucket revision %s: %s",
                            entry.revision, error)  # fmt: skip
        return tuple(found)

    def archive(self, head: PushedSet, most: int) -> bytes:
        """
        The archive of a revision or candidate, with at most so many bytes.

        Raises:
            TruthRefused: it is not there, larger, or another one.
        """
        data = self._archives.get(head.digest, most)
        if data is None:
            raise TruthRefused(f"the archive of revision {head.number} is not in the truth")
        if hashlib.sha256(data).hexdigest() != head.digest:
            raise TruthRefused(f"the archive of revision {head.number} has another digest than its head says")
        return data

    def publish(self, head: PolicyHead, archive: bytes, before: KeptHead | None) -> None:
        """
        Put a revision in force in the place of ``before``, or as the first; or a candidate beside what is in force.

        Args:
            head: what is to stand there.
            archive: what is new in it: that of its candidate if it is for the revision of ``before``.
            before: what stands there.

        Raises:
            TruthChanged: another one is in force by now; nothing is changed.
            TruthUntouched: nobody answered before the head was asked for: by this call, nothing has come in force.
            TruthAway: nobody knows whether it is in force: ask ``is_published``.
            DamagedHead: the head could not be read again.
        """
        value = write_head(head)
        new: PushedSet = head
        if before is not None and head.number == before.head.number and head.candidate is not None:
            new = head.candidate
        # Only what is here by now may go later: what somebody else puts for a newer revision has no head yet.
        try:
            there = self._archives.names()
            self._archives.put(new.digest, archive)
        except TruthAway as error:
            raise TruthUntouched(str(error)) from error
        if before is None:
            self._bucket.create(HEAD, value)
        else:
            self._bucket.update(HEAD, value, before.place)
        try:
            self._forget(there)
        except (TruthAway, TruthRefused) as error:
            log.warning("old archives of the policies stay in the truth until the next push: %s", error)

    def amend(self, head: PolicyHead, before: KeptHead) -> None:
        """
        Say something else of the revision in force and its candidate, without an archive.

        Raises:
            TruthChanged: something else stands there by now; nothing is changed.
            DamagedHead: the head could not be read again.
        """
        self._bucket.update(HEAD, write_head(head), before.place)

    def is_published(self, head: PolicyHead) -> bool:
        """Whether a revision is in force, or was."""
        return head in self.history()

    def watch(self, wake: Callable[[], None]) -> None:
        """As ``TruthBucket.watch``, for the head."""
        self._bucket.watch(HEAD, wake)

    def _forget(self, there: tuple[str, ...]) -> None:
        heads = self.history()
        kept = {head.digest for head in heads} | {head.candidate.digest for head in heads if head.candidate is not None}
        for name in there:
            if name not in kept and len(name) == _DIGITS and not name.strip("0123456789abcdef"):
                self._archives.delete(name)


def _in_steps(heads: tuple[PolicyHead, ...]) -> list[PolicyHead]:
    """Those that follow upon one another, the oldest first."""
    good: list[PolicyHead] = []
    for head in heads:
        if not good or head.next_number - good[-1].next_number <= MOST_NUMBERS_AT_ONCE:
            good.append(head)
    return good


def _damaged(error: DamagedHead) -> DamagedHead:
    return DamagedHead(
        f"the head of the policies in the truth is damaged: {error}; servers keep what they have. Find out who wrote "
        "it, then replace it with `authz policies push --over-damaged`"
    )
