"""
Federation: where the bundles of other trust domains come from, in the words of ``spire-server federation create``.

    federatesWith:
    - trustDomain: partner.example
      bundleEndpointURL: https://bundle.partner.example/
      bundleEndpointProfile: https_spiffe
      endpointSpiffeID: spiffe://partner.example/spire/server
      trustDomainBundlePath: partner.json      # the first bundle, brought by hand
    - trustDomain: other.example
      bundleEndpointURL: https://other.example/bundle.json
      bundleEndpointProfile: https_web         # the server's certificate is judged as a browser would
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from authz.core.errors import Problem, sort_problems
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents import nodes as documents
from authz.documents.nodes import Node, Scalar
from authz.identity.listed import ListReader, read_one_document

LIST = "federatesWith"
CODE = "ID-3"
FIELDS = (
    "trustDomain",
    "bundleEndpointURL",
    "bundleEndpointProfile",
    "endpointSpiffeID",
    "trustDomainBundlePath",
    "caBundlePath",
)


class Profile(StrEnum):
    """How the endpoint proves who it is (SPIFFE Federation 5.2)."""

    WEB = "https_web"
    SPIFFE = "https_spiffe"


@dataclass(frozen=True, slots=True)
class Relationship:
    """One trust domain whose bundle is fetched."""

    trust_domain: TrustDomain
    url: str
    profile: Profile
    endpoint_id: SpiffeId | None = None
    """Whose SVID the endpoint shows; with https_spiffe only."""
    first_bundle: Path | None = None
    """The bundle to begin with, until one has been fetched."""
    ca_bundle: Path | None = None
    """PEM of the authorities that may vouch for an https_web endpoint; None: those of this system."""


def read_relationships(
    file: str, data: bytes, own: TrustDomain | None
) -> tuple[tuple[Relationship, ...], tuple[Problem, ...]]:
    """
    Read relationships from YAML or JSON. Never raises on content; any problem is an error.

    Paths are relative to the file. ``own``: the trust domain whose bundle is never taken from elsewhere.
    """
    problems: list[Problem] = []
    notes = read_one_document(file, data, CODE, LIST, problems)
    if notes is None:
        return (), sort_problems(problems)
    reader = _Reader(notes, own or TrustDomain("unknown"))
    reader.folder, reader.own = Path(file).parent, own
    return reader.relationships(notes.document.root), sort_problems(problems)


class _Reader(ListReader):
    code = CODE
    folder = Path()
    own: TrustDomain | None = None

    def relationships(self, root: Node) -> tuple[Relationship, ...]:
        found: dict[TrustDomain, Relationship] = {}
        for item in self.listed(root, LIST):
            read = self._relationship(item)
            if read is not None and read.trust_domain in found:
                self.note(item, f"`{read.trust_domain}` is listed twice")
            elif read is not None:
                found[read.trust_domain] = read
        return tuple(found.values())

    def _relationship(self, node: Node) -> Relationship | None:
        before = len(self.notes.problems)
        fields = self.mapping(node, FIELDS)
        if not isinstance(node, documents.Mapping):
            return None
        domain, url = self._domain(node, fields), self._url(node, fields)
        profile = self._profile(node, fields)
        endpoint_id = self.spiffe_id(fields, "endpointSpiffeID")
        if (profile is Profile.SPIFFE) != ("endpointSpiffeID" in fields) and profile is not None:
            self.note(node, f"`endpointSpiffeID` belongs to the profile {Profile.SPIFFE}, and is needed there")
        if profile is Profile.SPIFFE and "caBundlePath" in fields:
            self.note(fields["caBundlePath"], f"`caBundlePath` belongs to the profile {Profile.WEB}")
        if len(self.notes.problems) > before or domain is None or profile is None:
            return None
        first, authorities = (self._path(fields, name) for name in ("trustDomainBundlePath", "caBundlePath"))
        return Relationship(domain, url, profile, endpoint_id, first, authorities)

    def _text(self, node: Node, fields: dict[str, Node], name: str) -> str:
        found = fields.get(name)
        if found is None:
            self.note(node, f"`{name}` is missing")
            return ""
        if not isinstance(found, Scalar):
            self.note(found, "expected a string")
            return ""
        return found.value

    def _domain(self, node: Node, fields: dict[str, Node]) -> TrustDomain | None:
        text = self._text(node, fields, "trustDomain")
        if not text:
            return None
        try:
            domain = TrustDomain(text.removeprefix("spiffe://"))
        except ValueError as error:
            self.note(fields["trustDomain"], str(error))
            return None
        if domain == self.own:
            self.note(fields["trustDomain"], f"`{domain}` is our own trust domain, whose bundle comes from nobody else")
        return domain

    def _url(self, node: Node, fields: dict[str, Node]) -> str:
        text = self._text(node, fields, "bundleEndpointURL")
        try:
            parts = urlsplit(text)
            is_good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
            _ = parts.port
        except ValueError:
            is_good = False
        if text and not is_good:
            self.note(fields["bundleEndpointURL"], f"`{text}` is not an https URL without a user part")
        return text

    def _profile(self, node: Node, fields: dict[str, Node]) -> Profile | None:
        text = self._text(node, fields, "bundleEndpointProfile")
        if text in tuple(Profile):
            return Profile(text)
        if text:
            self.note(fields["bundleEndpointProfile"], f"`{text}` is neither {Profile.WEB} nor {Profile.SPIFFE}")
        return None

    def _path(self, fields: dict[str, Node], name: str) -> Path | None:
        node = fields.get(name)
        return self.folder / node.value if isinstance(node, Scalar) else None
