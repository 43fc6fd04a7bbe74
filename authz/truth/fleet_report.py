"""
What a replica says of itself and of the proxies that it serves, and how that is written into the truth.

    replica.<name>            one for each replica, written every few seconds: that it lives
    proxies.<name>.<number>   the proxies of its mesh in parts, each written when one of them changed
    server.<name>             one for each ``authz serve`` whose policies come from the truth; it has no proxies

A server may write its own key and no replica's, so what stands at ``server.`` says nothing of proxies.

A proxy that is current has the replica's own revision, and its part says no other: a revision that concerns nobody
changes no part. The replica names the change of each part that it means, and writes the parts before itself, so that
whoever reads never takes an old part for a new revision.

Times are seconds since the epoch by the replica's clock, which may be wrong; ``clock`` says what it showed.

What a newer replica says besides is left out. Before candidates were reported, a report that said more than was known
could not be read at all: to a control of that time a replica is silent as long as it has one.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zlib import crc32

from authz.bundles.strict_json import read_strict_json
from authz.canary.candidate_standing import CandidateStanding
from authz.core.errors import SettingsError
from authz.truth.reported_candidate import candidate_json, candidate_number, read_candidate

REPLICA, PROXIES, SERVER = "replica", "proxies", "server"
"""What keys begin with."""
CONTROL, SERVE = "control", "serve"
"""Kinds of replicas."""
PART_PROXIES = 200
"""About so many proxies are in one part."""
MAX_TEXT = 400
"""Characters of a proxy's words, and of a problem."""
MAX_DIGITS = 16
"""Of a revision that is a number."""
MAX_TIME = 253_402_300_799
"""The last second that has four digits of a year: later ones cannot be shown."""
MAX_COUNT = 2**53
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RefusedResource:
    """Something that a proxy refused, and has not taken a newer one of."""

    kind: str
    """Envoy's short name of the type: ``lds``."""
    version: str
    words: str
    """Envoy's own."""


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """One proxy, as one replica sees it."""

    name: str
    is_connected: bool = False
    is_current: bool = False
    """Whether it has acknowledged all that there is for it at the replica's revision."""
    revision: str = ""
    """If it is not: the newest of which it had acknowledged all; empty when that is not known."""
    since: float = 0.0
    """When it became current, or ceased to be; 0: it never was connected here."""
    acknowledged_at: float = 0.0
    """When it last took something; 0: never."""
    refused_at: float = 0.0
    """When it last refused something; 0: never."""
    certificate_expires: float = 0.0
    """Of the SVID by which it last connected; 0: unknown."""
    refusals: tuple[RefusedResource, ...] = ()
    waits: tuple[str, ...] = ()
    """What it leaves without an answer, and what it may wait for, a line each."""
    candidate: int = 0
    """The candidate that its replica has in force for it, which it has when it is current; 0 for none."""


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica."""

    name: str
    kind: str
    clock: float
    """What its clock showed."""
    revision: str
    """What it has in force, and gives to its proxies: a number, or a digest of the policies."""
    since: float
    """When that came into force."""
    problem: str = ""
    """Why something newer is not; empty when it is."""
    certificate_expires: float = 0.0
    """Of its own certificate; 0: it has none."""
    parts: tuple[int, ...] = ()
    """The change of the truth by which each part of its proxies was last written."""
    candidate: CandidateStanding | None = None
    """What became there of the candidate of the fleet; None: it knows of none."""


_Read = TypeVar("_Read", RefusedResource, ProxyReport, ReplicaReport)


@dataclass(frozen=True, slots=True)
class Reported:
    """A report with when it came in, by the clock of whoever keeps reports."""

    at: float
    report: ReplicaReport
    proxies: tuple[ProxyReport, ...] = field(default=(), repr=False)
    is_whole: bool = True
    """False when parts of it are missing: then nobody knows what the proxies run."""


def check_replica_name(name: str) -> str:
    """
    The name as it is.

    Raises:
        SettingsError: it is none.
    """
    if not is_replica_name(name):
        raise SettingsError(f"`{name[:100]}` is no name of a replica: at most 63 characters of a-z, 0-9 and `-`")
    return name


def digest_revision(digest: str) -> str:
    """A digest as a revision, which nobody takes for a number although it may have digits only."""
    return f"v{digest}" if digest.isdigit() else digest


def revision_number(revision: str) -> int | None:
    """The number of a revision that is one; None for a digest or a commit, which have no order."""
    is_number = revision.isascii() and revision.isdigit() and len(revision) <= MAX_DIGITS
    return int(revision) if is_number else None


def has_reached(revision: str, wanted: str) -> bool:
    """Whether a revision is the wanted one, or newer where they are numbers."""
    has, wants = revision_number(revision), revision_number(wanted)
    return revision == wanted or (has is not None and wants is not None and has >= wants)


def replica_value(report: ReplicaReport) -> bytes:
    """As it is written."""
    return _dump(_replica_json(report))


def read_replica(value: bytes) -> ReplicaReport:
    """Raises ValueError: it is none."""
    found = _load(value)
    try:
        return _replica_of(found, tuple(map(_count, found.get("parts", ()))))
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def part_value(proxies: Iterable[ProxyReport], parts: int, most: int) -> bytes:
    """
    One part of so many, as it is written.

    Args:
        proxies: those of this part.
        parts: how many there are.
        most: bytes that a value may have; Envoy's words are left out when they do not fit.
    """
    rows = [proxy_json(one) for one in proxies]
    value = _dump({"of": parts, "proxies": rows})
    if len(value) > most:
        for row in rows:
            row["refusals"] = [{**one, "words": ""} for one in row.get("refusals", ())]
            row.pop("waits", None)
        value = _dump({"of": parts, "proxies": rows})
    return value


def read_part(value: bytes) -> tuple[int, tuple[ProxyReport, ...]]:
    """How many parts there are, and the proxies of this one. Raises ValueError: it is none."""
    found = _load(value)
    try:
        return _count(found["of"]), tuple(_checked(read_proxy(row)) for row in found["proxies"])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from error


def proxy_json(proxy: ProxyReport) -> dict[str, Any]:
    """What is not as by default."""
    row = _filled(proxy)
    if proxy.refusals:
        row["refusals"] = [
            {"kind": one.kind, "version": one.version, "words": one.words[:MAX_TEXT]} for one in proxy.refusals
        ]
    if proxy.waits:
        row["waits"] = [line[:MAX_TEXT] for line in proxy.waits]
    return row


def read_proxy(row: Mapping[str, Any]) -> ProxyReport:
    """Raises TypeError: it is none."""
    refusals = tuple(RefusedResource(**one) for one in row.get("refusals", ()))
    waits = tuple(map(str, row.get("waits", ())))
    return ProxyReport(**{**_known(ProxyReport, row), "refusals": refusals, "waits": waits})


def reported_json(reported: Reported) -> dict[str, Any]:
    """A whole report, as the admin address of a replica shows it."""
    return {"replica": _replica_json(reported.report), "proxies": [proxy_json(one) for one in reported.proxies]}


def read_reported(found: Mapping[str, Any], at: float) -> Reported:
    """What an admin address showed at a time. Raises ValueError: it is none."""
    try:
        report = _replica_of(found["replica"], ())
        return Reported(at, report, tuple(_checked(read_proxy(row)) for row in found["proxies"]))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _replica_json(report: ReplicaReport) -> dict[str, Any]:
    row = _filled(report) | {"problem": report.problem[:MAX_TEXT]}
    return row if report.candidate is None else {**row, "candidate": candidate_json(report.candidate)}


def _replica_of(found: Mapping[str, Any], parts: tuple[int, ...]) -> ReplicaReport:
    """Raises ValueError, TypeError: it is none."""
    candidate = read_candidate(found.get("candidate"))
    return _checked(ReplicaReport(**{**_known(ReplicaReport, found), "parts": parts, "candidate": candidate}))


def _known(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Those members that are known here."""
    return {name: value for name, value in found.items() if name in kind.__dataclass_fields__}


def part_count(proxies: int, before: int = 0) -> int:
    """
    In how many parts so many proxies are written.

    Args:
        proxies: how many there are.
        before: how many parts there were; they stay as long as they are not half or twice what is needed.
    """
    needed = max(1, -(-proxies // PART_PROXIES))
    return before if needed <= before <= 4 * needed else 2 * needed if before else needed


def part_of(name: str, parts: int) -> int:
    """The part in which a proxy is; the same in every process."""
    return crc32(name.encode()) % parts


def is_replica_name(name: str) -> bool:
    """Whether somebody may report by this name."""
    return bool(_NAME.fullmatch(name))


def _checked(one: _Read) -> _Read:
    """
    What anybody wrote, as it is: every field is of its type and within its bounds, so that it can be shown.

    Raises ValueError.
    """
    for name, described in type(one).__dataclass_fields__.items():
        value = getattr(one, name)
        if described.type in (str, "str"):
            is_right = isinstance(value, str) and len(value) <= MAX_TEXT
        elif described.type in (bool, "bool"):
            is_right = isinstance(value, bool)
        elif described.type in (float, "float"):
            is_right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIME
        elif described.type in (int, "int"):
            is_right = candidate_number(value) == value
        elif name == "candidate":
            is_right = value is None or isinstance(value, CandidateStanding)  # checked where it was read
        else:
            is_right = all(_is_right(member) for member in value)
        if not is_right:
            raise ValueError(f"`{name}` is not what it should be")
    return one


def _is_right(member: object) -> bool:
    """Of several: refused resources, numbers that were looked at, or lines of text. Raises ValueError."""
    if isinstance(member, RefusedResource):
        _checked(member)
    return not isinstance(member, str) or len(member) <= MAX_TEXT


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise ValueError("a number is not what it should be")
    return value


def _filled(one: ProxyReport | ReplicaReport) -> dict[str, Any]:
    kept = {}
    for name, described in type(one).__dataclass_fields__.items():
        value = getattr(one, name)
        if value != described.default:
            kept[name] = value
    return kept


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _load(value: bytes) -> dict[str, Any]:
    found = read_strict_json(value)
    if not isinstance(found, dict):
        raise ValueError("no object")  # of the bytes, not of an argument
    return found
