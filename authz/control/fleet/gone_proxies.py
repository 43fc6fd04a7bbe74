"""
Which proxies are gone: they were connected, and have not been for some time.

Nobody is gone who never was connected: it may be served by another control plane, or by none. Only time in which
somebody looked counts, so that a process that was stopped, or a clock that leaps, takes nobody out.
"""

import json
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, field

GONE_AFTER_SECONDS = 60.0
"""An Envoy tries again after 30 seconds at the latest."""
LOOK_SECONDS = 1.0
"""How often somebody looks."""
MAX_LOOK_SECONDS = 5.0
"""What lies between two looks counts for this much at most."""


@dataclass(slots=True)
class GoneProxies:
    """
    Proxies that were connected, and for how long those are away that are not now.

    ``restore`` begins with what an earlier process noted: who was gone then stays gone until it is back, and all
    others have the whole time to come back.
    """

    after_seconds: float
    """How long a proxy is away before it is gone; 0: nobody ever is."""
    gone: frozenset[str] = frozenset()
    """By name; replaced by each ``look``."""
    _present: Set[str] = frozenset()
    _away: dict[str, float] = field(default_factory=dict)
    """Seconds, by name."""
    _looked: float | None = None

    def restore(self, noted: str) -> None:
        """Begin with what ``noted`` returned; what cannot be read is as if nothing had been noted."""
        try:
            found = json.loads(noted)
            known, gone = (frozenset(map(str, found[key])) for key in ("known", "gone"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if self.after_seconds:
            self.gone = gone
            self._away = {name: self.after_seconds if name in gone else 0.0 for name in known | gone}

    @property
    def is_anybody_away(self) -> bool:
        """
        Whether time alone may make somebody gone, or back. While nobody is away, a ``look`` that is told what the last
        was told finds what that found.
        """
        return bool(self._away)

    def noted(self) -> str:
        """What has to outlive the process."""
        return json.dumps({"known": sorted(self._present | self._away.keys()), "gone": sorted(self.gone)})

    def look(
        self,
        now: float,
        connected: Set[str],
        serves: Callable[[str], bool],
        *,
        members: Collection[str],
        left: Set[str] = frozenset(),
        elsewhere: Set[str] | None = frozenset(),
    ) -> frozenset[str]:
        """
        Say who is gone.

        Args:
            now: seconds of a clock that never goes back.
            connected: proxies with a stream here.
            serves: whether one of these has taken its listeners: who was gone is back when it has.
            members: every proxy of the mesh; others are forgotten.
            left: proxies that were connected at some time; so one counts that came and went between two looks.
            elsewhere: proxies that another control plane of this mesh serves: they are not away. None: nobody knows who
                these are, and so nobody is gone.

        Returns:
            Names, which are ``gone`` as well.
        """
        passed = 0.0 if self._looked is None else min(max(0.0, now - self._looked), MAX_LOOK_SECONDS)
        self._looked = now
        if elsewhere is None:
            self.gone = frozenset()
            self._away = dict.fromkeys(self._away, 0.0)  # who is still away when somebody knows is so from then on
        if elsewhere is None or not self.after_seconds:
            return self.gone
        present = connected | elsewhere if elsewhere else connected
        away = {name: seconds + passed for name, seconds in self._away.items() if name in members}
        parted = (self._present - present) | (left - present)
        away |= {name: 0.0 for name in parted if name not in away and name in members}
        for name in [name for name in away if name in present]:
            if name not in self.gone or name in elsewhere or serves(name):
                del away[name]
        self._present, self._away = frozenset(present), away
        self.gone = frozenset(name for name, seconds in away.items() if seconds >= self.after_seconds)
        return self.gone
