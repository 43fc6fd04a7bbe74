"""
Since when each proxy is current or not, and which revision it last had all of; told at every ACK, NACK and change.

A revision that concerns nobody costs nothing: whoever is current has the newest, and only the others are noted.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class ProxyStanding:
    """Of one proxy that was connected. Times in seconds since the epoch."""

    is_current: bool = False
    since: float = 0.0
    """When it became current, or ceased to be."""
    revision: str = ""
    """While it is not current: the newest of which it had acknowledged all; empty: not known."""
    acknowledged_at: float = 0.0
    refused_at: float = 0.0


@dataclass(slots=True)
class ProxyStandings:
    """All of one control plane. ``take_changed`` says which are other than when it was last asked."""

    revision: str = ""
    """What is published."""
    since: float = 0.0
    """When that was."""
    _of: dict[str, ProxyStanding] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)

    def of(self, name: str) -> ProxyStanding:
        """A proxy's; all empty before it was connected."""
        return self._of.get(name) or ProxyStanding()

    def change(self, changed: Iterable[str], members: Collection[str], now: float) -> None:
        """
        There is something new; ``revise`` follows, if it was made from another revision.

        Args:
            changed: the proxies that it concerns, with those that are gone.
            members: every proxy of the mesh.
            now: seconds since the epoch.
        """
        for name in changed:
            self._changed.add(name)
            if name not in members:
                self._of.pop(name, None)
            elif (standing := self._of.get(name)) is not None and standing.is_current:
                standing.is_current, standing.since, standing.revision = False, now, self.revision

    def revise(self, revision: str, now: float) -> None:
        """What is published was made from this revision."""
        if revision != self.revision:
            self.revision, self.since = revision, now

    def note(self, name: str, now: float, *, is_current: bool) -> None:
        """A proxy is connected, and has or has not what there is for it."""
        standing = self._of.get(name)
        if standing is None:
            standing = self._of[name] = ProxyStanding(since=now)
            self._changed.add(name)
        if standing.is_current != is_current:
            revision = "" if is_current else self.revision
            standing.is_current, standing.since, standing.revision = is_current, now, revision
            self._changed.add(name)

    def answer(self, name: str, now: float, *, is_refusal: bool) -> None:
        """A proxy took something, or refused it."""
        standing = self._of.setdefault(name, ProxyStanding(since=now))
        if is_refusal:
            standing.refused_at = now
        else:
            standing.acknowledged_at = now
        self._changed.add(name)

    def touch(self, name: str) -> None:
        """Something else of a proxy is to be told."""
        self._changed.add(name)

    def leave(self, name: str, now: float) -> None:
        """A proxy is not connected any more."""
        if name in self._of:
            self.note(name, now, is_current=False)
            self._of[name].since = now
            self._changed.add(name)

    def take_changed(self) -> set[str]:
        """The names of those that changed since the last time."""
        taken, self._changed = self._changed, set()
        return taken
