"""Who in a fleet has its candidate, for people and programs."""

from collections.abc import Iterator

from authz.canary.candidate_standing import CandidateState
from authz.cli import terminal
from authz.cli.fleet_views import MOST_LINES, age
from authz.core.attributes import Json
from authz.truth.fleet_candidate import FleetCandidate
from authz.truth.fleet_merge import CURRENT, MISSING, SILENT, FleetView, ProxyView, ReplicaView

UNTOLD = "has said nothing of it: it may be older, have its policies from elsewhere, or a `--candidate` of its own"


def standing_lines(view: FleetView, candidate: FleetCandidate) -> Iterator[str]:
    """A line about each replica, and how many of its proxies have it."""
    having = list(candidate.proxies(view))
    for one in view.replicas:
        found, own = candidate.at(one), [proxy for proxy in having if proxy.replica == one.name]
        told = ""
        if found is not None and found.state is CandidateState.IN_FORCE:
            have = sum(proxy.state == CURRENT for proxy in own)
            told = f" for {terminal.count(len(own), 'proxy', 'proxies')}"
            told += "" if have == len(own) else f", {have} of which have acknowledged it"
        yield f"{one.name}: {_told(view, one, candidate)}{told}"
    if not view.replicas:
        yield "no replica has reported what became of it"


def standings_json(view: FleetView, candidate: FleetCandidate) -> dict[str, Json]:
    """The same with the documented fields (docs/truth.md)."""
    replicas: list[Json] = []
    for one in view.replicas:
        found = candidate.at(one)
        state = None if found is None else str(found.state)
        reason = None if found is None else found.reason or None
        replicas.append({"name": one.name, "kind": one.kind, "state": state, "reason": reason})
    return {"replicas": replicas, "without": [one.name for one in candidate.without(view)]}


def say_taken(view: FleetView, candidate: FleetCandidate, *, is_there: bool) -> bool:
    """How waiting for a candidate ended: how many have it, or who has not and why."""
    shown, having = f"candidate {candidate.number}", list(candidate.proxies(view))
    if candidate.is_taken(view):
        counted = terminal.count(len(view.replicas), "replica")
        proxies = terminal.count(len(having), "proxy", "proxies")
        terminal.say(f"{shown}: {counted} and {proxies} have it")
        missing = sum(one.candidate == candidate.number and one.state == MISSING for one in view.proxies)
        if missing:
            told = terminal.count(missing, "proxy that it is for is", "proxies that it is for are")
            terminal.remark(f"{told} connected nowhere, and not waited for")
        return True
    if not is_there:
        terminal.remark(f"{shown} is over: somebody took it back, or pushed something else meanwhile")
    if not view.replicas:
        terminal.remark("no replica has reported what became of it")
    else:
        late = list(candidate.without(view))
        terminal.remark(f"{shown}: {len(late)} of {len(view.replicas) + len(having)} do not have it")
        for one in late[:MOST_LINES]:
            terminal.remark(_why_not(view, one, candidate))
        if len(late) > MOST_LINES:
            terminal.remark(f"and {len(late) - MOST_LINES} more")
    return False


def _told(view: FleetView, one: ReplicaView, candidate: FleetCandidate) -> str:
    if one.state == SILENT:
        return f"silent for {age(view.now - one.heard_at)}" if one.heard_at else "silent"
    found = candidate.at(one)
    if found is None:
        return UNTOLD
    return f"{found.state}{f': {found.reason}' if found.reason else ''}"


def _why_not(view: FleetView, one: ReplicaView | ProxyView, candidate: FleetCandidate) -> str:
    if isinstance(one, ReplicaView):
        problem = f"; {one.problem}" if one.problem else ""
        return f"replica {one.name}: {_told(view, one, candidate)}{problem}"
    where = f"proxy {one.name} at {one.replica}"
    if one.refusals:
        first = one.refusals[0]
        return f"{where}: refused {first.kind} {first.version}: {first.words}"
    if one.waits:
        return f"{where}: does not answer {one.waits[0]}"
    return f"{where}: {one.state}, has not acknowledged it"
