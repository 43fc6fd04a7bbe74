"""
Whether a candidate goes on: it does not when a workload that has it refuses more than it did before, beyond a bound.

Proxies report how many requests they had and refused since they started. A workload of which nothing was known before
it got the candidate is taken to have refused nothing: whoever does not know takes the candidate back.
"""

from collections import deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

MIN_REQUESTS = 20
"""Of fewer in a window nothing follows."""
WINDOW_SECONDS = 60.0
LEAST_SECONDS = 0.5
"""Of the reports of a proxy within so long the last is kept: one that reports in a loop must not fill the memory."""


@dataclass(frozen=True, slots=True)
class AbortBound:
    """When a candidate is taken back."""

    share: Fraction
    """So much more of the requests in a window refused than before, from 0 to 1."""
    window_seconds: float = WINDOW_SECONDS
    min_requests: int = MIN_REQUESTS


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests of one proxy, since it started or in a window."""

    requests: int = 0
    refused: int = 0
    """By policies: tokens, rules and authorizers."""

    def since(self, before: "RequestCounts") -> "RequestCounts":
        """What came after."""
        return RequestCounts(self.requests - before.requests, self.refused - before.refused)

    @property
    def share(self) -> Fraction:
        """The share that was refused; 0 without requests."""
        return Fraction(self.refused, self.requests) if self.requests else Fraction(0)


@dataclass(slots=True)
class _Reported:
    """What one proxy said lately."""

    said: deque[tuple[float, RequestCounts]] = field(default_factory=deque)
    before: Fraction | None = None
    """The share that it refused before it got the candidate; None: nobody knows."""

    def within(self, start: float) -> RequestCounts:
        """What it had from about ``start`` on: from the last report until then, or the first one."""
        if not self.said:
            return RequestCounts()
        first = self.said[0][1]
        for time, counts in self.said:
            if time > start:
                break
            first = counts
        return self.said[-1][1].since(first)


class CanaryJudge:
    """``report`` and ``begin`` tell it what happens, in the order of time; ``verdict`` judges."""

    def __init__(self, bound: AbortBound | None) -> None:
        """Without a ``bound``, which may be replaced, it counts, and its verdict is never against a candidate."""
        self.bound = bound
        self._reported: dict[str, _Reported] = {}
        self._names: frozenset[str] = frozenset()
        self._version = ""
        self._since = 0.0

    @property
    def _window(self) -> float:
        return self.bound.window_seconds if self.bound is not None else WINDOW_SECONDS

    def report(self, proxy: str, counts: RequestCounts, now: float) -> None:
        """Take what a proxy has counted since it started."""
        known = self._reported.setdefault(proxy, _Reported())
        said = known.said
        if said and (counts.requests < said[-1][1].requests or counts.refused < said[-1][1].refused):
            said.clear()  # it was started again
            said.append((now, RequestCounts()))
        if len(said) > 1 and now - said[-2][0] < LEAST_SECONDS:
            said[-1] = (now, counts)
        else:
            said.append((now, counts))
        while len(said) > 1 and said[1][0] <= now - self._window:
            said.popleft()

    def begin(self, version: str, names: Iterable[str], now: float) -> None:
        """Note which candidate is in force for whom, every time that it may be another; an empty version: none."""
        chosen = frozenset(names)
        if (version, chosen) == (self._version, self._names):
            return
        fresh = chosen if version != self._version else chosen - self._names
        for name in fresh:
            known = self._reported.setdefault(name, _Reported())
            had = known.within(now - self._window)
            known.before = had.share if had.requests else None
        self._version, self._names, self._since = version, chosen, now

    def forget(self, proxies: Container[str]) -> None:
        """Keep nothing of proxies other than these."""
        self._reported = {name: one for name, one in self._reported.items() if name in proxies}

    def verdict(self, now: float) -> str:
        """Why the candidate must be taken back; empty while it need not."""
        bound = self.bound
        if bound is None or not self._version:
            return ""
        for name, (had, before) in sorted(self.counted(now).items()):
            if had.requests >= bound.min_requests and had.share - (before or 0) > bound.share:
                known = f"{_percent(before)} before" if before is not None else "nothing known of before"
                return (
                    f"`{name}` refused {had.refused} of {had.requests} requests, {_percent(had.share)} ({known}): more "
                    f"than {_percent(bound.share)} above that"
                )
        return ""

    def counted(self, now: float) -> Mapping[str, tuple[RequestCounts, Fraction | None]]:
        """Of each workload that has the candidate: its last window with it, and the share that it refused before."""
        start = max(self._since, now - self._window)
        reported = ((name, self._reported.get(name)) for name in self._names)
        return {name: (one.within(start), one.before) for name, one in reported if one is not None and one.said}


def _percent(share: Fraction) -> str:
    return f"{float(share * 100):.3g}%"
