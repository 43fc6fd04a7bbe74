"""
Who called what, as records tell it: allowed requests by workload and caller. What was denied is no reason to allow.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from authz.analysis.replay.path_templates import PathTemplates
from authz.analysis.replay.recorded_request import (
    DescribedWorkloads,
    RecordedRequest,
    identity_of,
    moment_of,
    read_recorded,
)
from authz.core.attributes import Unknown, Workload
from authz.core.decided import Record

MAX_SUBJECTS = 2
"""Subjects of an issuer that are told apart: with two of them it is any."""


@dataclass(slots=True)
class Caller:
    """What one caller did at one workload."""

    principal: str
    """Empty for callers without mutual TLS."""
    issuer: str
    """For those, the issuer of their token, or nothing: with and without one they are different callers."""
    paths: PathTemplates
    tcp_ports: Counter[int | None] = field(default_factory=Counter)
    issuers: dict[str, set[str]] = field(default_factory=dict)
    """Subjects by issuer, as many as are told apart."""
    has_tokens: bool = True
    """Every request over HTTP had an accepted token with issuer and subject."""
    count: int = 0
    first: str = "~"
    last: str = ""
    unwritten: int = 0
    """Requests whose method or path is not recorded as it was."""

    @property
    def problem(self) -> str:
        """Why no policy can name the caller; empty when one can."""
        principal = self.principal
        if principal and not identity_of(principal).startswith("spiffe://"):
            return "its identity is no SPIFFE ID, which `principals` never match (AP-26)"
        if principal.startswith("*") or principal.endswith("*") or not principal.isprintable():
            return "its identity cannot be written in a policy"
        return ""

    def see(self, request: RecordedRequest, time: str) -> None:
        """Count a request."""
        self.count += 1
        self.first, self.last = min(self.first, time), max(self.last, time)
        port = request.attributes.destination.port
        known = None if isinstance(port, Unknown) else port
        http, token = request.attributes.http, request.token
        if http is None:
            self.tcp_ports[known] += 1
            return
        if token is None or request.lacks("request.auth.principal") or not (token.issuer and token.subject):
            self.has_tokens = False
        elif len(subjects := self.issuers.setdefault(token.issuer, set())) < MAX_SUBJECTS:
            subjects.add(token.subject)
        method = http.method
        is_wild = not method or method.startswith("*") or method.endswith("*")
        if is_wild or request.lacks("methods") or request.lacks("paths"):
            self.unwritten += 1
        else:
            self.paths.add(http.url_path, (method, known))


@dataclass(slots=True)
class Called:
    """A workload and who called it."""

    workload: Workload
    has_labels: bool
    names: set[str] = field(default_factory=set)
    callers: dict[tuple[str, str], Caller] = field(default_factory=dict)


@dataclass(slots=True)
class Observed:
    """Takes records. ``values`` as in ``PathTemplates``; ``described`` as in ``read_recorded``."""

    values: int
    described: DescribedWorkloads = field(default_factory=dict)
    called: dict[tuple[str, frozenset[tuple[str, str]], bool], Called] = field(default_factory=dict)
    """By namespace and labels: what a policy can tell apart."""
    records: int = 0
    denied: int = 0
    unknown: int = 0
    """Records that do not say who called what."""
    first: str = "~"
    last: str = ""

    def take_all(self, records: Iterable[Record]) -> None:
        """Take every record in turn."""
        for record in records:
            self.take(record)

    def take(self, record: Record) -> None:
        """Take one record."""
        self.records += 1
        time = moment_of(record) or self.last
        self.first, self.last = min(self.first, time), max(self.last, time)
        is_denied = record.get("effect") != "allow"
        self.denied += is_denied
        request = read_recorded(record, self.described)
        if request is None or (request.lacks("source.principal") and not is_denied):
            self.unknown += not is_denied
            return
        called = self._called(request)
        if is_denied:
            return
        principal = request.attributes.source.principal
        issuer = request.token.issuer if request.token is not None and not principal else ""
        caller = called.callers.get((principal, issuer))
        if caller is None:
            caller = called.callers[principal, issuer] = Caller(principal, issuer, PathTemplates(self.values))
        caller.see(request, time)

    def _called(self, request: RecordedRequest) -> Called:
        workload = request.attributes.destination.workload
        labels = workload.labels if request.has_labels else frozenset({("", workload.name)})
        key = (workload.namespace, labels, request.has_labels)
        called = self.called.get(key)
        if called is None:
            called = self.called[key] = Called(workload, request.has_labels)
        called.names.add(workload.name or workload.service_account)
        return called
