"""
Who may have which identity: registration entries, in the words of ``spire-server entry create``.

A peer brings evidence that somebody else vouches for: the kernel (Unix credentials), the TLS handshake (an SVID), or us
(a join token). An entry says which identity goes with it. What no entry grants is refused.

    entries:
    - spiffeID: spiffe://cluster.local/ns/shop/sa/reviews
      selectors: [unix:uid:1000, unix:gid:1000]     # all of them must hold
      x509SVIDTTL: 3600
      dns: [reviews.shop.svc]
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents import nodes as documents
from authz.documents.nodes import Node, Scalar, Sequence
from authz.documents.reading import read_documents
from authz.documents.schema import Notes, elements, note_unknown
from authz.identity.certificate_template import SVID_TTL_SECONDS, judge_dns_name

MAX_TTL_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class UnixPeer:
    """A process at the other end of a local socket, as the kernel says (SO_PEERCRED)."""

    uid: int
    gid: int

    @property
    def selectors(self) -> frozenset[str]:
        """The credentials as SPIRE writes them: ``unix:uid:1000``."""
        return frozenset({f"unix:uid:{self.uid}", f"unix:gid:{self.gid}"})

    def __str__(self) -> str:
        return f"unix:uid:{self.uid},gid:{self.gid}"


@dataclass(frozen=True, slots=True)
class SvidPeer:
    """The holder of a valid SVID: the handshake proved the key, and ``svid_validation`` the chain."""

    spiffe_id: SpiffeId
    serial: int
    expires_at: float = field(default=inf, compare=False)
    """When the proof ends, seconds since the epoch: a stream may live longer than the certificate it began with."""

    def __str__(self) -> str:
        return str(self.spiffe_id)


@dataclass(frozen=True, slots=True)
class TokenBearer:
    """Somebody who showed a join token that was good for exactly this identity; the token is spent."""

    spiffe_id: SpiffeId

    def __str__(self) -> str:
        return f"join-token:{self.spiffe_id}"


Evidence = UnixPeer | SvidPeer | TokenBearer


@dataclass(frozen=True, slots=True)
class Grant:
    """An identity that a peer may have, and how its certificate shall be."""

    spiffe_id: SpiffeId
    ttl_seconds: float = SVID_TTL_SECONDS
    dns: tuple[str, ...] = ()
    federates_with: tuple[TrustDomain, ...] = ()
    """Trust domains whose bundles the holder may fetch besides its own."""


@dataclass(frozen=True, slots=True)
class RegistrationEntry:
    """Either ``selectors`` (who is local) or ``parent_id`` (an SVID holder who may fetch this identity too)."""

    grant: Grant
    selectors: frozenset[str] = frozenset()
    parent_id: SpiffeId | None = None

    def is_for(self, evidence: Evidence) -> bool:
        """Whether the evidence entitles to this identity."""
        match evidence:
            case UnixPeer():
                return bool(self.selectors) and self.selectors <= evidence.selectors
            case SvidPeer():
                return self.parent_id == evidence.spiffe_id
            case TokenBearer():
                return False


def granted(entries: Iterable[RegistrationEntry], evidence: Evidence) -> dict[str, Grant]:
    """
    Every identity that the evidence is good for, by SPIFFE ID.

    An SVID is good for its own renewal, a token for its identity; an entry of that identity gives life and DNS names.
    """
    entries = tuple(entries)
    found = {str(entry.grant.spiffe_id): entry.grant for entry in entries if entry.is_for(evidence)}
    if not isinstance(evidence, UnixPeer):
        own = evidence.spiffe_id
        written = (entry.grant for entry in entries if entry.grant.spiffe_id == own)
        found.setdefault(str(own), next(written, Grant(own)))
    return found


FIELDS = ("spiffeID", "parentID", "selectors", "x509SVIDTTL", "dns", "federatesWith")
CODE = "ID-2"
"""Code of every problem of an entry; text that is no YAML has the reader's own."""


def read_entries(
    file: str, data: bytes, trust_domain: TrustDomain
) -> tuple[tuple[RegistrationEntry, ...], tuple[Problem, ...]]:
    """Read registration entries from YAML or JSON. Never raises on content; any problem is an error."""
    problems: list[Problem] = []
    written = list(read_documents(file, data, problems))
    if problems:
        return (), sort_problems(problems)
    for document in written[1:]:
        place = Location(file, document.root.line, document.root.column)
        problems.append(Problem(Severity.ERROR, CODE, "expected one document with one list `entries`", place))
    if not written or problems:
        return (), tuple(problems)
    entries = _Reader(Notes(written[0], problems), trust_domain).entries(written[0].root)
    return entries, sort_problems(problems)


class _Reader:
    """Collects every problem; an entry with one is left out."""

    def __init__(self, notes: Notes, trust_domain: TrustDomain) -> None:
        self.notes = notes
        self.trust_domain = trust_domain

    def note(self, node: Node, message: str, help_text: str = "") -> None:
        self.notes.error(CODE, node, message, help_text)

    def entries(self, node: Node) -> tuple[RegistrationEntry, ...]:
        root = self._mapping(node, ("entries",))
        items = root.get("entries")
        if items is None:
            if not self.notes.problems:
                self.note(node, "there is no list `entries`")
            return ()
        if not isinstance(items, Sequence):
            self.note(items, "expected a list")
            return ()
        read = [self._entry(item) for item in items.items]
        return tuple(entry for entry in read if entry is not None)

    def _entry(self, node: Node) -> RegistrationEntry | None:
        before = len(self.notes.problems)
        fields = self._mapping(node, FIELDS)
        if not isinstance(node, documents.Mapping):
            return None
        spiffe_id = self._spiffe_id(fields, "spiffeID")
        if "spiffeID" not in fields:
            self.note(node, "`spiffeID` is missing")
        if spiffe_id is not None and not spiffe_id.path:
            self.note(fields["spiffeID"], f"`{spiffe_id}` has no path")
        if spiffe_id is not None and spiffe_id.trust_domain != self.trust_domain:
            self.note(fields["spiffeID"], f"`{spiffe_id}` is not of the trust domain `{self.trust_domain}`")
        parent_id = self._spiffe_id(fields, "parentID")
        selectors = frozenset(self._selector(text, at) for text, at in self._texts(fields, "selectors"))
        if ("parentID" in fields) == ("selectors" in fields):
            message = "exactly one of `selectors` (local processes) and `parentID` (a holder of that SVID) is needed"
            self.note(node, message)
        grant = Grant(
            spiffe_id or SpiffeId(self.trust_domain),
            self._ttl(fields),
            tuple(self._dns_name(text, at) for text, at in self._texts(fields, "dns")),
            tuple(self._domains(fields)),
        )
        return RegistrationEntry(grant, selectors, parent_id) if len(self.notes.problems) == before else None

    def _mapping(self, node: Node, known: tuple[str, ...]) -> dict[str, Node]:
        if not isinstance(node, documents.Mapping):
            self.note(node, "expected a mapping")
            return {}
        for name in node.entries:
            if name not in known:
                note_unknown(name, node, known, self.notes, CODE)
        return {name: child for name, child in node.entries.items() if name in known}

    def _texts(self, fields: Mapping[str, Node], name: str) -> list[tuple[str, Node]]:
        node = fields.get(name)
        if node is None:
            return []
        found: list[tuple[str, Node]] = [(item.value, item) for item in elements(node) if isinstance(item, Scalar)]
        if not isinstance(node, Sequence) or len(found) < len(node.items):
            self.note(node, "expected a list of strings")
            return []
        if name == "selectors" and not found:
            self.note(node, "an empty list would be for nobody")
        return found

    def _spiffe_id(self, fields: Mapping[str, Node], name: str) -> SpiffeId | None:
        node = fields.get(name)
        if node is None:
            return None
        try:
            return SpiffeId.parse(node.value if isinstance(node, Scalar) else "")
        except ValueError as error:
            self.note(node, str(error))
            return None

    def _selector(self, text: str, node: Node) -> str:
        kind, _, value = text.rpartition(":")
        if kind not in ("unix:uid", "unix:gid") or not (value.isascii() and value.isdigit()):
            self.note(node, f"`{text}` is not a selector known here", "write `unix:uid:1000` or `unix:gid:1000`")
        return text

    def _dns_name(self, text: str, node: Node) -> str:
        if reason := judge_dns_name(text):
            self.note(node, reason)
        return text

    def _ttl(self, fields: Mapping[str, Node]) -> float:
        node = fields.get("x509SVIDTTL")
        if node is None:
            return SVID_TTL_SECONDS
        text = node.value if isinstance(node, Scalar) else ""
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_TTL_SECONDS):
            self.note(node, f"expected whole seconds from 1 to {MAX_TTL_SECONDS}")
            return SVID_TTL_SECONDS
        return float(text)

    def _domains(self, fields: Mapping[str, Node]) -> Iterable[TrustDomain]:
        for text, node in self._texts(fields, "federatesWith"):
            try:
                yield TrustDomain(text.removeprefix("spiffe://"))
            except ValueError as error:
                self.note(node, str(error))
