"""
Requests without a record: what a proxy counted is compared with the entries it sent, by proxy and minute.

Envoy's counters of written entries are no proof: with a dead receiver it counts as written what nobody got. Its counter
of requests is one: ``downstream_rq_total`` less those that still run is the number of requests that ended, and each of
them has an entry. Entries come after they are counted, so a deficit counts only if it is still there a minute later.

Of TCP connections Envoy counts how many began, and how many are open per listener, HTTP ones included. So at
least those ended that began and are not among all the open ones: a loss smaller than the number of open ones is not
seen, and none is invented.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from authz.service.native.intake import TCP, TENTHS, Intake
from authz.service.native.proxies import ask_admin

_log = logging.getLogger("authz.native")
MINUTE = 60.0
_COUNTERS = quote(
    r"^(http\..*\.downstream_rq_(total|active)|tcp\..*\.downstream_cx_total|listener\..*\.downstream_cx_active"
    r"|server\.uptime)$"
)
MAX_PROXIES = 4096
UPTIME_SECONDS = 1.0
"""Uptime is told in whole seconds."""
RESTARTED_SECONDS = 5.0
"""A process is a new one if it began this much later: an answer may be late, and a clock may be set a little."""


class Counted(NamedTuple):
    """A proxy's counters at one moment."""

    ended: dict[str, int]
    """Requests that ended, by ``stat_prefix``; of TCP connections (after TCP) at least this many did."""
    started_at: float
    """Start of the process by its own uptime, seconds since the epoch: a new process counts from zero."""
    begun: Mapping[str, int] = {}
    """TCP connections that began."""


@dataclass(slots=True)
class _Compared:
    """One listener of one proxy since the first comparison."""

    base: int
    """Requests that had ended then."""
    since: float
    """When that was; entries of requests that ended earlier do not count."""
    entries: int = 0
    """Entries of requests that ended since then, up to the last comparison."""
    deficit: int = 0
    """What was missing at the last comparison; its entries may still have been on their way."""
    reported: int = 0


@dataclass(slots=True)
class _Proxy:
    started_at: float
    listeners: dict[str, _Compared] = field(default_factory=dict)


class Gaps:
    """
    Compares once a minute. ``where``: address of a proxy's admin interface, with ``{proxy}`` for its name.

    ``kept``: a file by which an orderly stop is remembered, so that what proxies served meanwhile is compared as well;
    None remembers nothing.
    """

    def __init__(
        self,
        intake: Intake,
        where: str,
        clock: Callable[[], float],
        kept: Path | None = None,
        ask: Callable[[str], Awaitable[Counted]] | None = None,
    ) -> None:
        self._intake = intake
        intake.counts_seen = True
        self._where = where
        self._clock = clock
        self._kept = kept
        self._ask = ask or self.asked
        self._proxies: dict[str, _Proxy] = {}
        self.missing: Counter[str] = Counter()
        self.unreachable: dict[str, bool] = {}
        self._restore()

    async def run(self) -> None:
        """Compare for ever."""
        while True:
            await self.compare()
            await asyncio.sleep(MINUTE)

    async def compare(self) -> None:
        """Compare every proxy that ever sent an entry. Never raises."""
        unknown = {proxy for proxy, _, _ in self._intake.seen} - set(self._proxies)
        names = [*sorted(self._proxies), *sorted(unknown)]  # a new name takes nobody's place
        for proxy in names[MAX_PROXIES:]:
            self._settle(proxy)
        if len(self.unreachable) > MAX_PROXIES:
            self.unreachable = {name: failed for name, failed in self.unreachable.items() if name in self._proxies}
        for proxy in names[:MAX_PROXIES]:
            asked_at = self._clock()
            try:
                counted = await self._ask(proxy)
            except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
                if not self.unreachable.get(proxy):
                    _log.error("the counters of proxy %s cannot be read: %s", proxy, type(error).__name__)
                self.unreachable[proxy] = True
                self._settle(proxy)
                continue
            self.unreachable[proxy] = False
            self._compare(proxy, counted, asked_at)

    def close(self) -> None:
        """Remember the counts for the next start. An orderly stop took every entry that it acknowledged."""
        if self._kept is not None:
            proxies = {name: asdict(proxy) for name, proxy in self._proxies.items()}
            seen = [[*key, number] for key, number in self._intake.seen.items()]
            self._write({"version": 1, "clean": True, "proxies": proxies, "seen": seen})

    def _restore(self) -> None:
        if self._kept is None:
            return
        try:
            told = json.loads(self._kept.read_bytes())
            if told["clean"]:
                for name, proxy in told["proxies"].items():
                    listeners = {one: _Compared(**compared) for one, compared in proxy["listeners"].items()}
                    self._proxies[name] = _Proxy(proxy["started_at"], listeners)
                for proxy, listener, tenth, number in told["seen"]:
                    self._intake.seen[proxy, listener, tenth] += number
            else:
                _log.warning("the last stop was not orderly: requests served meanwhile cannot be compared with records")
                self._intake.note("access-log-uncompared", self._clock(), {"reason": "the last stop was not orderly"})
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, OSError) as error:
            _log.error("`%s` does not hold counts, so counting starts over: %s", self._kept, type(error).__name__)
        self._write({"version": 1, "clean": False})

    def _write(self, told: dict[str, Any]) -> None:
        assert self._kept is not None
        temporary = self._kept.with_name(self._kept.name + ".new")
        try:
            temporary.write_text(json.dumps(told), encoding="ascii")
            temporary.replace(self._kept)
        except OSError as error:
            _log.error("`%s` cannot be written: %s", self._kept, error.strerror)

    def _compare(self, proxy: str, counted: Counted, asked_at: float) -> None:
        """
        Compare one proxy, which counted at some moment since it was asked.

        What ended in between may be on either side, so every entry of that time counts: at the first comparison a loss
        of that few requests is not seen, and none is invented.
        """
        now = self._clock()
        known = self._proxies.get(proxy)
        is_restarted = known is not None and counted.started_at > known.started_at + RESTARTED_SECONDS
        if known is None or is_restarted:
            known = self._proxies[proxy] = _Proxy(counted.started_at)
        for listener in sorted({one for name, one, _ in self._intake.seen if name == proxy} | set(known.listeners)):
            if listener not in counted.ended:
                continue
            ended = counted.ended[listener]
            compared = known.listeners.get(listener)
            if compared is None:
                # A proxy that started again counts from zero, and everything since then must have come.
                begun = counted.begun.get(listener, ended)
                started_at = counted.started_at - (now - asked_at) - UPTIME_SECONDS
                base, since = (0, started_at) if is_restarted else (begun, asked_at)
                compared = known.listeners[listener] = _Compared(base, since)
            compared.entries += self._take(proxy, listener, compared.since, until=now)
            deficit = ended - compared.base - compared.entries
            certain = min(deficit, compared.deficit) - compared.reported
            compared.deficit = deficit
            if certain > 0:
                compared.reported += certain
                self._report(proxy, listener, certain, now)

    def _settle(self, proxy: str) -> None:
        """Drop the counts of a proxy that cannot be asked, so that they do not pile up."""
        known = self._proxies.get(proxy)
        for listener in {one for name, one, _ in self._intake.seen if name == proxy}:
            compared = known.listeners.get(listener) if known is not None else None
            until = self._clock()
            taken = self._take(proxy, listener, compared.since if compared is not None else 0.0, until)
            if compared is not None:
                compared.entries += taken

    def _take(self, proxy: str, listener: str, since: float, until: float) -> int:
        """Take the entries that ended in a time; later ones stay for the next comparison, earlier ones are dropped."""
        seen = self._intake.seen
        taken = 0
        for key in [key for key in seen if key[0] == proxy and key[1] == listener and key[2] < until * TENTHS]:
            number = seen.pop(key)
            if key[2] >= int(since * TENTHS):
                taken += number
        return taken

    def _report(self, proxy: str, listener: str, number: int, now: float) -> None:
        self.missing[proxy] += number
        _log.error("proxy %s served %d at %s without an access log entry", proxy, number, listener)
        self._intake.note(
            "access-log-gap",
            now,
            {"proxy": proxy, "listener": listener, "missing": number, "minute": int(now // MINUTE * MINUTE)},
        )

    async def asked(self, proxy: str) -> Counted:
        """Ask a proxy's admin interface. Raises OSError, ValueError, httpx's errors."""
        text = await ask_admin(self._where, proxy, f"/stats?filter={_COUNTERS}")
        return read_counters(text, self._clock())


def read_counters(text: str, now: float) -> Counted:
    """Read the answer of ``/stats``. Raises ValueError."""
    totals: dict[str, int] = {}
    active: dict[str, int] = {}
    begun: dict[str, int] = {}
    opened = uptime = 0
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name == "server.uptime":
            uptime = int(value)
        elif name.endswith(".downstream_rq_total"):
            totals[name[len("http.") : -len(".downstream_rq_total")]] = int(value)
        elif name.endswith(".downstream_rq_active"):
            active[name[len("http.") : -len(".downstream_rq_active")]] = int(value)
        elif name.startswith("tcp."):
            begun[TCP + name[len("tcp.") : -len(".downstream_cx_total")]] = int(value)
        elif name.startswith("listener.") and ".worker_" not in name and not name.startswith("listener.admin."):
            opened += int(value)
    ended = {name: total - active.get(name, 0) for name, total in totals.items()}
    return Counted(ended | {name: total - opened for name, total in begun.items()}, now - uptime, begun)
