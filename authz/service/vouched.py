"""
What a proxy that asks in plain HTTP vouches for: less than an Envoy that sends a CheckRequest.

What it cannot vouch for is unknown, never absent: a DENY that asks for it fires, an ALLOW does not (CS-7, CS-8). A
request to which the proxy would have to do something that it cannot do is refused.
"""

from dataclasses import dataclass, replace

from authz.core.attributes import UNKNOWN, AttributeContext, Unknown
from authz.core.decision import Obligations
from authz.core.normalize import normalize_path
from authz.core.resources import MeshConfig


@dataclass(frozen=True, slots=True)
class Vouched:
    """The limits of one kind of proxy, as its door is configured. Names of headers are lower-case."""

    hidden: frozenset[str] = frozenset()
    """Headers that it writes itself or keeps back: what the client sent there is unknown."""
    is_partial: bool = True
    """It passes on only a part of the other headers, or nobody said that it passes on all."""
    told: tuple[str, ...] = ()
    """Headers that it always passes on: where one of them is missing, it is absent."""
    has_raw_path: bool = True
    """It asks about the path as the client sent it, and forwards that too; an Envoy has normalised it (PN-13)."""
    sets: frozenset[str] = frozenset()
    """Headers that it takes from the answer for the request that it forwards, and removes where the answer has none."""
    removes_any: bool = False
    """It removes every header that the answer names."""

    def limit(self, attributes: AttributeContext, trusted_proxies: int) -> AttributeContext:
        """
        The request with everything unknown that the proxy cannot vouch for: identity, SNI, metadata, hidden headers.

        Args:
            trusted_proxies: ``numTrustedProxies``; without them the direct peer of a gateway is the client (AP-41).
        """
        source, http = replace(attributes.source, identities=(), is_unproven=True), attributes.http
        if isinstance(source.remote_ip, Unknown) and attributes.destination.is_gateway and trusted_proxies == 0:
            source = replace(source, remote_ip=source.ip)
        if http is not None:
            absent = {name: () for name in self.told if name not in http.headers}
            http = replace(http, headers={**http.headers, **absent}, hidden=self.hidden, is_partial=self.is_partial)
        return replace(attributes, source=source, http=http, sni=UNKNOWN, metadata=UNKNOWN, certificate="")

    def path_problem(self, path: str, mesh: MeshConfig) -> str:
        """
        Why the path must not be forwarded as it is; empty when it may.

        An Envoy would forward the normal form and is asked about that. Another proxy forwards what it asks about, so an
        application could take it for a path other than the one the policies judged (PN-1).
        """
        if not self.has_raw_path or normalize_path(path, mesh.path_normalization) == path:
            return ""
        return f"the path is not in normal form ({mesh.path_normalization.value}), and the proxy forwards it as it is"

    def undoable(self, obligations: Obligations) -> str:
        """What the proxy cannot do to the accepted request, as the reason of a refusal; empty when it can do all."""
        if obligations.rewritten_path is not None or obligations.query_parameters_to_remove:
            return "the token must be taken out of the query, which the proxy cannot do"
        if obligations.response_headers_to_add:
            return "headers must be added to the response, which the proxy cannot do"
        names = {name for name, _ in obligations.headers_to_set}
        names.update(() if self.removes_any else obligations.headers_to_remove)
        if missing := sorted(names - self.sets):
            return f"the proxy must set or remove {', '.join(missing)}: add them to `upstream_headers` of the door"
        return ""
