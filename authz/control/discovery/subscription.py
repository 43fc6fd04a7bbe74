"""What one stream wants of one type, what it was sent, and what it said to that. Both protocols keep it so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from authz.control.discovery.discovered import CLUSTER_TYPE, LISTENER_TYPE, Discovered, TypeWorld

WILDCARD = "*"
WITH_WILDCARD = frozenset({CLUSTER_TYPE, LISTENER_TYPE})
"""Types of which a first request without names wants everything."""
MAX_NAMES = 20_000
"""TypeWorld of one type that one stream may name."""
MAX_NAME, MAX_TYPE = 1000, 200
"""Characters of a name, and of a type."""
MAX_WORDS = 4000
"""Characters that are kept of what a proxy says when it refuses something."""


@dataclass(slots=True)
class Subscription:
    """The state of one type on one stream."""

    type_url: str
    is_wildcard: bool = False
    names: dict[str, None] = field(default_factory=dict)
    """What was asked for by name, in that order."""
    has_named: bool = False
    """Whether a request of the state of the world ever named anything."""
    sent: dict[str, Discovered] = field(default_factory=dict)
    """What the proxy has, or has refused: neither is sent again until it changes (XA-154)."""
    done: TypeWorld | None = None
    """
    The very world of which nothing more was to be sent when it was last looked at: most types of most proxies, at each
    change and answer. None after everything else that changes what was sent, or what is wanted.
    """
    unknown: set[str] = field(default_factory=set)
    """Asked for by name since the last response of a delta, which says of what does not exist that it is gone."""
    nonce: str = ""
    """Of the last response."""
    is_waiting: bool = False
    """Whether the last response has no answer yet. There is one under way at most: a slow proxy gets the newest."""
    untaken: frozenset[str] = frozenset()
    """What was sent since the proxy last took a response."""
    pushed: str = ""
    """The version of the last response."""
    accepted: str = ""
    """The version that the proxy took last; empty: none yet."""
    rejection: str = ""
    """The proxy's words when it refused the last response; empty after it took one."""
    refused: str = ""
    """The version that it refused; empty when there is none."""

    def name_all(self, names: Iterable[str]) -> None:
        """
        Want exactly these: a request of the state of the world.

        Raises ValueError for too many.
        """
        named = dict.fromkeys(names)
        _demand_few(named)
        self.done = None
        # Without names from the first request on, everything is wanted; who has named something wants nothing then.
        self.has_named = self.has_named or bool(named)
        self.is_wildcard = WILDCARD in named or (self.type_url in WITH_WILDCARD and not self.has_named)
        self.names = {name: None for name in named if name != WILDCARD}
        if not self.is_wildcard:
            self.sent = {name: one for name, one in self.sent.items() if name in self.names}

    def subscribe(self, names: Iterable[str], *, is_first: bool) -> None:
        """
        Want these as well; what was wanted already is sent again, for that is why somebody asks twice.

        Raises ValueError for too many.
        """
        asked = dict.fromkeys(names)
        if not asked:
            return
        _demand_few(self.names | asked)
        self.done = None
        self.is_wildcard = self.is_wildcard or WILDCARD in asked
        added = {name: None for name in asked if name != WILDCARD}
        self.names |= added
        self.unknown |= added.keys()
        if not is_first:  # on a new stream the proxy has said which versions it has
            for name in added:
                self.sent.pop(name, None)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Want these no longer; the proxy has forgotten them."""
        gone = frozenset(names)
        if not gone:
            return
        self.done = None
        if WILDCARD in gone:
            self.is_wildcard = False
        self.names = {name: None for name in self.names if name not in gone}
        self.unknown -= gone
        for name in list(self.sent) if WILDCARD in gone else gone:
            if name not in self.names and (name in gone or not self.is_wildcard):
                self.sent.pop(name, None)

    def answer(self, nonce: str, error: str | None) -> bool:
        """
        Note an ACK, or a NACK with its text. Return whether it was of the last response: others are overtaken.
        """
        if nonce != self.nonce:
            return False
        if self.is_waiting and error is None:
            self.accepted, self.rejection, self.refused, self.untaken = self.pushed, "", "", frozenset()
        elif error is not None:
            self.rejection, self.refused = error, self.pushed
        self.is_waiting = False
        return True

    def forget_refused(self) -> None:
        """Of deltas: what was taken back from it, it refuses no longer. Not while a response has no answer."""
        self.untaken = self.untaken.intersection(self.sent)
        if not self.untaken:
            self.rejection, self.refused = "", ""

    def wanted(self, there: TypeWorld) -> dict[str, Discovered]:
        """What it is to have of what there is; a name that does not exist yet is left out (XA-155)."""
        if self.is_wildcard:
            return dict(there)
        return {name: there[name] for name in self.names if name in there}

    def is_done(self, there: TypeWorld) -> bool:
        """Whether it has been sent what there is for it, and nothing else."""
        if self.done is not there and not self.changed(there) and not self.gone(there):
            self.done = there
        return self.done is there

    def is_at_rest(self, there: TypeWorld) -> bool:
        """Whether there is surely nothing to do: of most types of most proxies, at each change and answer."""
        return (
            self.done is there
            and not self.is_waiting
            and not self.rejection
            and not self.unknown
            and bool(self.nonce or self.sent)
        )

    def changed(self, there: TypeWorld) -> tuple[Discovered, ...]:
        """What it is to have and has not been sent in this version, by name."""
        wanted = there if self.is_wildcard else self.wanted(there)
        sent = self.sent.get
        found = [one for name, one in wanted.items() if (old := sent(name)) is None or old.version != one.version]
        return tuple(sorted(found, key=lambda one: one.name) if len(found) > 1 else found)

    def gone(self, there: TypeWorld) -> tuple[str, ...]:
        """What it was sent and is no longer to have."""
        if self.is_wildcard:
            return tuple(sorted(self.sent.keys() - there.keys()))
        return tuple(sorted(name for name in self.sent if name not in there or name not in self.names))


def _demand_few(names: Mapping[str, None]) -> None:
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise ValueError(f"a name of {longest} characters, at most {MAX_NAME} are served")
    if len(names) > MAX_NAMES:
        raise ValueError(f"{len(names)} resources of one type were named, at most {MAX_NAMES} are served on a stream")
