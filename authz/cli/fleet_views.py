"""What is shown of a fleet: tables, and one line about each that is not as it should be."""

from collections.abc import Iterable

from authz.canary.candidate_standing import CandidateStanding
from authz.cli import terminal
from authz.cli.ca_files import time_of
from authz.truth.fleet_merge import (
    BEHIND,
    MISSING,
    REFUSING,
    SILENT,
    UNKNOWN,
    FleetView,
    ProxyView,
    ReplicaView,
)

MOST_LINES = 20
"""Lines about single proxies; the rest is counted."""
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def age(seconds: float) -> str:
    """``12s``, ``5m``, ``3h``, ``2d``."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def print_fleet(view: FleetView, lagging: Iterable[ReplicaView | ProxyView], *, only_lagging: bool) -> None:
    """Both tables, and what they have no column for."""
    late = list(lagging)
    counted = (terminal.count(len(view.replicas), "replica"), terminal.count(len(view.proxies), "proxy", "proxies"))
    terminal.say(f"revision {view.revision or '-'}: {counted[0]}, {counted[1]}")
    if not view.replicas:
        return
    replicas, proxies = view.replicas, view.proxies
    if only_lagging:
        proxies = tuple(one for one in late if isinstance(one, ProxyView))
    now = view.now
    has_candidate = any(one.candidate for one in replicas) or any(one.candidate for one in proxies)
    more = ("CANDIDATE",) if has_candidate else ()
    terminal.print_table(
        ("REPLICA", "KIND", "STATE", "REVISION", "SINCE", "HEARD", "PROXIES", "CERTIFICATE UNTIL", *more),
        [
            (
                *(one.name, one.kind, one.state, one.revision or "-", _ago(now, one.since), _ago(now, one.heard_at)),
                *(str(one.proxies), time_of(one.certificate_expires) if one.certificate_expires else ""),
                *((_standing(one.candidate),) if has_candidate else ()),
            )
            for one in replicas
        ],
    )
    if proxies:
        terminal.say()
        terminal.print_table(
            ("PROXY", "STATE", "REVISION", "AT", "SINCE", "LAST ACK", "CERTIFICATE UNTIL", *more),
            [
                (
                    *(one.name, one.state, one.revision or "-", one.replica or "-", _ago(now, one.since)),
                    _ago(now, one.acknowledged_at),
                    time_of(one.certificate_expires) if one.certificate_expires else "",
                    *((str(one.candidate or ""),) if has_candidate else ()),
                )
                for one in proxies
            ],
        )
    for one in replicas:
        if one.problem:
            terminal.say(f"{one.name}: {one.problem}")
        if one.candidate is not None and one.candidate.reason:
            terminal.say(f"{one.name}: candidate {_standing(one.candidate)}: {one.candidate.reason}")
        if one.has_wrong_clock:
            word = "ahead" if one.clock_offset > 0 else "behind"
            terminal.say(f"{one.name}: its clock is {age(abs(one.clock_offset))} {word}")
    for proxy in proxies:
        for refused in proxy.refusals:
            terminal.say(f"{proxy.name} refused {refused.kind} {refused.version}: {refused.words}")
        for line in proxy.waits:
            terminal.say(f"{proxy.name} does not answer {line}")


def reason(one: ReplicaView | ProxyView, now: float) -> str:
    """Why one of them has not what it should, in a line."""
    has = f"has revision {one.revision}" if one.revision else "has no revision that is known"
    for_long = _ago(now, one.since)
    if isinstance(one, ReplicaView):
        told = {
            SILENT: f"silent for {_ago(now, one.heard_at)}{f': {one.problem}' if one.problem else ''}",
            REFUSING: f"{has}: {one.problem}",
        }
        return f"replica {one.name}: {told.get(one.state, has)}"
    where = f" at {one.replica}" if one.replica else ""
    if one.refusals:
        first = one.refusals[0]
        return f"proxy {one.name}{where}: {has}, and refused {first.kind} {first.version}: {first.words}"
    if one.waits:
        return f"proxy {one.name}{where}: {has}, and does not answer {one.waits[0]}"
    told = {
        BEHIND: f"{has}, behind for {for_long}",
        REFUSING: f"{has}, refusing for {for_long}",
        MISSING: "connected nowhere",
        UNKNOWN: f"nobody knows: {one.replica} is silent for {for_long}",
    }
    return f"proxy {one.name}{where if one.state != UNKNOWN else ''}: {told.get(one.state, has)}"


def remark_reasons(late: Iterable[ReplicaView | ProxyView], now: float) -> None:
    """A line about each of the first ones, to stderr, and how many more there are."""
    found = list(late)
    for one in found[:MOST_LINES]:
        terminal.remark(reason(one, now))
    if len(found) > MOST_LINES:
        terminal.remark(f"and {len(found) - MOST_LINES} more")


def _standing(candidate: CandidateStanding | None) -> str:
    """``8 refused``."""
    if candidate is None:
        return "-"
    return f"{candidate.number} {candidate.state}" if candidate.number else str(candidate.state)


def _ago(now: float, time: float) -> str:
    return age(now - time) if time else "-"
