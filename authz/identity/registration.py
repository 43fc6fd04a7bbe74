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
from difflib import get_close_matches
from math import inf

import yaml

from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.template import SVID_TTL_SECONDS, judge_dns_name

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
    """The holder of a valid SVID: the handshake proved the key, ``validate`` the chain."""

    spiffe_id: SpiffeId
    serial: int
    expires_at: float = field(default=inf, compare=False)
    """Of the proof, seconds since the epoch: a stream may live longer than the certificate it began with."""

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


def read_entries(
    file: str, data: bytes, trust_domain: TrustDomain
) -> tuple[tuple[RegistrationEntry, ...], tuple[Problem, ...]]:
    """Read registration entries from YAML or JSON. Never raises on content; any problem is an error."""
    reader = _Reader(file, trust_domain)
    try:
        node = yaml.compose(data, Loader=yaml.SafeLoader)
    except RecursionError:
        reader.note(None, "", "not readable as YAML: nested too deeply")
        return (), tuple(reader.problems)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "the file is not UTF-8"
        reader.note(mark, "", f"not readable as YAML: {what}")
        return (), tuple(reader.problems)
    entries = reader.entries(node) if node is not None else ()
    return entries, sort_problems(reader.problems)


class _Reader:
    """Collects every problem; what is wrong is left out of the entry."""

    def __init__(self, file: str, trust_domain: TrustDomain) -> None:
        self.file = file
        self.trust_domain = trust_domain
        self.problems: list[Problem] = []

    def note(self, mark: "yaml.Mark | None", path: str, message: str, help_text: str = "") -> None:
        place = Location(self.file, mark.line + 1, mark.column + 1) if mark is not None else Location(self.file)
        self.problems.append(Problem(Severity.ERROR, "ID-2", message, place, path=path, help=help_text))

    def entries(self, node: yaml.Node) -> tuple[RegistrationEntry, ...]:
        root = self._mapping(node, "", ("entries",))
        items = root.get("entries")
        if items is None:
            if not self.problems:
                self.note(node.start_mark, "", "there is no list `entries`")
            return ()
        if not isinstance(items, yaml.SequenceNode):
            self.note(items.start_mark, "entries", "expected a list")
            return ()
        read = [self._entry(item, f"entries[{i}]") for i, item in enumerate(items.value)]
        return tuple(entry for entry in read if entry is not None)

    def _entry(self, node: yaml.Node, path: str) -> RegistrationEntry | None:
        before = len(self.problems)
        fields = self._mapping(node, path, FIELDS)
        if not isinstance(node, yaml.MappingNode):
            return None
        spiffe_id = self._spiffe_id(fields, "spiffeID", path)
        if "spiffeID" not in fields:
            self.note(node.start_mark, path, "`spiffeID` is missing")
        if spiffe_id is not None and not spiffe_id.path:
            self.note(fields["spiffeID"].start_mark, f"{path}.spiffeID", f"`{spiffe_id}` has no path")
        if spiffe_id is not None and spiffe_id.trust_domain != self.trust_domain:
            message = f"`{spiffe_id}` is not of the trust domain `{self.trust_domain}`"
            self.note(fields["spiffeID"].start_mark, f"{path}.spiffeID", message)
        parent_id = self._spiffe_id(fields, "parentID", path)
        selectors = frozenset(self._selector(text, at, path) for text, at in self._texts(fields, "selectors", path))
        if ("parentID" in fields) == ("selectors" in fields):
            message = "exactly one of `selectors` (local processes) and `parentID` (a holder of that SVID) is needed"
            self.note(node.start_mark, path, message)
        grant = Grant(
            spiffe_id or SpiffeId(self.trust_domain),
            self._ttl(fields, path),
            tuple(self._dns_name(text, at, path) for text, at in self._texts(fields, "dns", path)),
            tuple(self._domains(fields, path)),
        )
        return RegistrationEntry(grant, selectors, parent_id) if len(self.problems) == before else None

    def _mapping(self, node: yaml.Node, path: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.note(node.start_mark, path, "expected a mapping")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                self.note(key.start_mark, path, f"unknown field `{name}`{hint}")
            elif name in found:
                self.note(key.start_mark, path, f"`{name}` is given twice")
            else:
                found[name] = value
        return found

    def _texts(self, fields: Mapping[str, yaml.Node], name: str, path: str) -> list[tuple[str, yaml.Node]]:
        node = fields.get(name)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode) or not all(isinstance(i, yaml.ScalarNode) for i in node.value):
            self.note(node.start_mark, f"{path}.{name}", "expected a list of strings")
            return []
        if name == "selectors" and not node.value:
            self.note(node.start_mark, f"{path}.{name}", "an empty list would be for nobody")
        return [(item.value, item) for item in node.value]

    def _spiffe_id(self, fields: Mapping[str, yaml.Node], name: str, path: str) -> SpiffeId | None:
        node = fields.get(name)
        if node is None:
            return None
        try:
            return SpiffeId.parse(str(node.value) if isinstance(node, yaml.ScalarNode) else "")
        except ValueError as error:
            self.note(node.start_mark, f"{path}.{name}", str(error))
            return None

    def _selector(self, text: str, node: yaml.Node, path: str) -> str:
        kind, _, value = text.rpartition(":")
        if kind not in ("unix:uid", "unix:gid") or not (value.isascii() and value.isdigit()):
            help_text = "write `unix:uid:1000` or `unix:gid:1000`"
            self.note(node.start_mark, f"{path}.selectors", f"`{text}` is not a selector known here", help_text)
        return text

    def _dns_name(self, text: str, node: yaml.Node, path: str) -> str:
        if reason := judge_dns_name(text):
            self.note(node.start_mark, f"{path}.dns", reason)
        return text

    def _ttl(self, fields: Mapping[str, yaml.Node], path: str) -> float:
        node = fields.get("x509SVIDTTL")
        if node is None:
            return SVID_TTL_SECONDS
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_TTL_SECONDS):
            message = f"expected whole seconds from 1 to {MAX_TTL_SECONDS}"
            self.note(node.start_mark, f"{path}.x509SVIDTTL", message)
            return SVID_TTL_SECONDS
        return float(text)

    def _domains(self, fields: Mapping[str, yaml.Node], path: str) -> Iterable[TrustDomain]:
        for text, node in self._texts(fields, "federatesWith", path):
            try:
                yield TrustDomain(text.removeprefix("spiffe://"))
            except ValueError as error:
                self.note(node.start_mark, f"{path}.federatesWith", str(error))
