"""
Who may have which identity: registration entries, in the words of ``spire-server entry create``.

A peer brings evidence that somebody else vouches for: the kernel (Unix credentials), the TLS handshake (an SVID), or us
(a join token). An entry says which identity goes with it. What no entry grants is refused.

    entries:
    - spiffeID: spiffe://cluster.local/ns/shop/sa/reviews
      selectors: [unix:uid:1000, unix:path:/usr/bin/reviews]     # all of them must hold
      x509SVIDTTL: 3600
      jwtSVIDTTL: 300
      dns: [reviews.shop.svc]
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from authz.core.errors import Problem, sort_problems
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents import nodes as documents
from authz.documents.nodes import Node, Scalar
from authz.identity.certificate_template import SVID_TTL_SECONDS, judge_dns_name
from authz.identity.listed import ListReader, read_one_document

MAX_TTL_SECONDS = 30 * 24 * 3600
JWT_SVID_TTL_SECONDS = 300.0
"""Spire's default life of a JWT-SVID."""
MAX_JWT_SVID_TTL_SECONDS = 3600
"""A token cannot be taken back, and its key is published as long as one of them may be valid."""
_NUMBER = re.compile(r"[0-9]{1,10}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"(?:/[^/]+)+")


@dataclass(frozen=True, slots=True)
class UnixPeer:
    """
    A process at the other end of a local socket, as the kernel says (SO_PEERCRED).

    The binary is looked at only where an entry asks for it; an empty ``path`` or ``sha256`` is unknown: no selector.
    """

    uid: int
    gid: int
    path: str = ""
    """Of the binary that the process ran when it was looked at, as its own file system names it."""
    sha256: str = ""
    """Of that binary's content, hexadecimal."""
    unknown: str = field(default="", compare=False)
    """Why the binary is not known, for the record; empty when it is, or when nobody asked."""

    @property
    def selectors(self) -> frozenset[str]:
        """The credentials as SPIRE writes them: ``unix:uid:1000``."""
        found = {f"unix:uid:{self.uid}", f"unix:gid:{self.gid}"}
        found |= {f"unix:path:{self.path}"} if self.path else set()
        found |= {f"unix:sha256:{self.sha256}"} if self.sha256 else set()
        return frozenset(found)

    def __str__(self) -> str:
        path, digest = self.path and f",path:{self.path}", self.sha256 and f",sha256:{self.sha256}"
        return f"unix:uid:{self.uid},gid:{self.gid}{path}{digest}"


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
    """An identity that a peer may have, and what its certificate is to be."""

    spiffe_id: SpiffeId
    ttl_seconds: float = SVID_TTL_SECONDS
    dns: tuple[str, ...] = ()
    federates_with: tuple[TrustDomain, ...] = ()
    """Trust domains whose bundles the holder may fetch besides its own."""
    jwt_ttl_seconds: float = field(default=JWT_SVID_TTL_SECONDS, compare=False)
    """Of a JWT-SVID; a change of it is no reason to renew the certificate."""


@dataclass(frozen=True, slots=True)
class RegistrationEntry:
    """Either ``selectors`` (who is local) or ``parent_id`` (an SVID holder who may fetch this identity too)."""

    grant: Grant
    selectors: frozenset[str] = frozenset()
    parent_id: SpiffeId | None = None

    def is_for(self, evidence: Evidence) -> bool:
        """Whether the evidence gives a right to this identity."""
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


def binary_selectors(entries: Iterable[RegistrationEntry]) -> frozenset[str]:
    """What some entry asks about a process's binary: ``path``, ``sha256``, both or nothing."""
    asked = (selector.split(":", 2)[1] for entry in entries for selector in entry.selectors)
    return frozenset(asked) & {"path", "sha256"}


FIELDS = ("spiffeID", "parentID", "selectors", "x509SVIDTTL", "jwtSVIDTTL", "dns", "federatesWith")
CODE = "ID-2"
"""Code of every problem of an entry; text that is not YAML has the reader's own."""


def read_entries(
    file: str, data: bytes, trust_domain: TrustDomain
) -> tuple[tuple[RegistrationEntry, ...], tuple[Problem, ...]]:
    """Read registration entries from YAML or JSON. Never raises on content; any problem is an error."""
    problems: list[Problem] = []
    notes = read_one_document(file, data, CODE, "entries", problems)
    entries = _Reader(notes, trust_domain).entries(notes.document.root) if notes is not None else ()
    return entries, sort_problems(problems)


_SELECTORS = (
    ("unix:uid:", _NUMBER, "`unix:uid:1000`"),
    ("unix:gid:", _NUMBER, "`unix:gid:1000`"),
    ("unix:path:", _PATH, "the whole path of a binary, `unix:path:/usr/bin/reviews`"),
    ("unix:sha256:", _DIGEST, "64 hexadecimal digits in lower case, as `sha256sum` prints them"),
)


class _Reader(ListReader):
    """Collects every problem; an entry with one is left out."""

    code = CODE

    def entries(self, node: Node) -> tuple[RegistrationEntry, ...]:
        read = [self._entry(item) for item in self.listed(node, "entries")]
        return tuple(entry for entry in read if entry is not None)

    def _entry(self, node: Node) -> RegistrationEntry | None:
        before = len(self.notes.problems)
        fields = self.mapping(node, FIELDS)
        if not isinstance(node, documents.Mapping):
            return None
        spiffe_id = self.spiffe_id(fields, "spiffeID")
        if "spiffeID" not in fields:
            self.note(node, "`spiffeID` is missing")
        if spiffe_id is not None and not spiffe_id.path:
            self.note(fields["spiffeID"], f"`{spiffe_id}` has no path")
        if spiffe_id is not None and spiffe_id.trust_domain != self.trust_domain:
            self.note(fields["spiffeID"], f"`{spiffe_id}` is not in the trust domain `{self.trust_domain}`")
        parent_id = self.spiffe_id(fields, "parentID")
        selectors = frozenset(self._selector(text, at) for text, at in self.texts(fields, "selectors"))
        if ("parentID" in fields) == ("selectors" in fields):
            message = "exactly one of `selectors` (local processes) and `parentID` (a holder of that SVID) is needed"
            self.note(node, message)
        grant = Grant(
            spiffe_id or SpiffeId(self.trust_domain),
            self._ttl(fields, "x509SVIDTTL", SVID_TTL_SECONDS, MAX_TTL_SECONDS),
            tuple(self._dns_name(text, at) for text, at in self.texts(fields, "dns")),
            tuple(self._domains(fields)),
            self._ttl(fields, "jwtSVIDTTL", JWT_SVID_TTL_SECONDS, MAX_JWT_SVID_TTL_SECONDS),
        )
        return RegistrationEntry(grant, selectors, parent_id) if len(self.notes.problems) == before else None

    def _selector(self, text: str, node: Node) -> str:
        shape, help_text = None, ""
        for kind, known, hint in _SELECTORS:
            if text.startswith(kind):
                shape, help_text = known, hint
        if shape is None:
            help_text = ", ".join(f"`{kind}…`" for kind, _, _ in _SELECTORS)
            self.note(node, f"`{text}` is not a selector known here", f"there are {help_text}")
        elif not shape.fullmatch(text.split(":", 2)[2]):
            self.note(node, f"`{text}` is not a selector known here", f"write {help_text}")
        return text

    def _dns_name(self, text: str, node: Node) -> str:
        if reason := judge_dns_name(text):
            self.note(node, reason)
        return text

    def _ttl(self, fields: Mapping[str, Node], name: str, default: float, most: int) -> float:
        node = fields.get(name)
        if node is None:
            return default
        text = node.value if isinstance(node, Scalar) else ""
        if not (_NUMBER.fullmatch(text) and 0 < int(text) <= most):
            self.note(node, f"expected whole seconds from 1 to {most}")
            return default
        return float(text)

    def _domains(self, fields: Mapping[str, Node]) -> Iterable[TrustDomain]:
        for text, node in self.texts(fields, "federatesWith"):
            try:
                yield TrustDomain(text.removeprefix("spiffe://"))
            except ValueError as error:
                self.note(node, str(error))
