"""
Who can do something, as the policies say it: sources, operations and conditions of the rules that let requests through,
without the values that never do, and what other rules take away from them.
"""

from dataclasses import dataclass
from typing import NamedTuple

from authz.analysis.sets.witness import Witness
from authz.core.decision import Decision, RuleReference
from authz.core.resources import Action

_NOUNS = {
    "source.principal": "principal", "source.namespace": "namespace", "source.serviceAccount": "service account",
    "source.trustDomain": "trust domain", "source.ip": "address", "remote.ip": "client address",
    "destination.ip": "destination address", "destination.port": "port", "connection.sni": "server name",
    "request.auth.principal": "token of", "request.auth.audiences": "audience", "request.auth.presenter": "presenter",
    "methods": "method", "hosts": "host", "paths": "path",
}  # fmt: skip
_NAMED = {"request.headers[": "header", "request.auth.claims[": "claim"}


class SaidValues(NamedTuple):
    """One attribute, with the values of which it has one and those of which it has none, as policies write them."""

    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]

    def __str__(self) -> str:
        """``path /cart* or /health``, ``not method PUT``, ``no claim role``, ``path /cart* but not /cart/admin``."""
        noun = _NOUNS.get(self.key, self.key)
        for start, word in _NAMED.items():
            if self.key.startswith(start):
                noun = f"{word} {self.key[len(start) : -1].replace('][', '.')}"
        if not self.values and self.not_values == ("*",):
            return f"no {noun}"
        if not self.values:
            return f"not {noun} {' or '.join(self.not_values)}"
        text = f"any {noun}" if self.values == ("*",) else f"{noun} {' or '.join(self.values)}"
        return f"{text} but not {' or '.join(self.not_values)}" if self.not_values else text


Phrase = tuple[SaidValues, ...]
"""All of them hold; empty: whatever it is."""


class Way(NamedTuple):
    """How requests arrive, as the proxy of the workload sees them."""

    is_http: bool
    has_identity: bool
    has_token: bool = False
    """Whether an accepted token is needed, be it for a claim or because tokens are required."""
    ports: tuple[str, ...] = ()
    """Only to these; empty: to any. Ports differ in their mode of mutual TLS (PA-9)."""
    other_ports: tuple[str, ...] = ()
    """To any but these."""
    has_path: bool = True
    """Without: CONNECT, which has none; no rule that asks for paths holds for it."""

    def __str__(self) -> str:
        """``HTTP over mutual TLS with a token``, ``TCP without identity to port 8080``."""
        protocol = "TCP" if not self.is_http else "HTTP" if self.has_path else "CONNECT without a path"
        text = f"{protocol} {'over mutual TLS' if self.has_identity else 'without identity'}"
        if self.has_token:
            text += " with a token"
        if self.ports:
            text += f" to port {' or '.join(self.ports)}"
        if self.other_ports:
            text += f" to ports other than {' and '.join(self.other_ports)}"
        return text


@dataclass(frozen=True, slots=True)
class Excepted:
    """What a rule of another action takes away from a grant."""

    action: Action
    """DENY, or CUSTOM: then its provider is asked, and lets through what it allows."""
    rule: RuleReference
    provider: str
    """Empty: a DENY, or a CUSTOM rule of a provider that the mesh does not know, which refuses (AP-80)."""
    fails_open: bool
    """Whether a provider that cannot be asked lets through."""
    source: Phrase
    operation: Phrase
    conditions: Phrase

    @property
    def phrase(self) -> Phrase:
        """Everything it asks for that does not hold of the whole grant."""
        return (*self.source, *self.operation, *self.conditions)


@dataclass(frozen=True, slots=True)
class RuleGrant:
    """Requests that one rule lets through: of one of the sources, for one of the operations, under every condition."""

    rule: RuleReference | None
    """None: no ALLOW policy applies, so nothing has to allow (EV-4)."""
    sources: tuple[Phrase, ...]
    operations: tuple[Phrase, ...]
    conditions: Phrase
    ways: tuple[Way, ...]
    exceptions: tuple[Excepted, ...]
    witness: Witness
    """One of the requests, which the engine allows."""
    decision: Decision


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer for one workload; with neither grants nor reasons it is proved that nobody can."""

    grants: tuple[RuleGrant, ...] = ()
    is_whole: bool = False
    """Whether every such request is let through, but for those with a bad token."""
    undecided: tuple[str, ...] = ()
    """Why it is not known whether there are other requests."""
    unconfirmed: Witness | None = None
    """A request that the engine decides otherwise: a fault of this program."""

    @property
    def answer(self) -> str:
        """``yes``, ``with conditions``, ``no`` or ``not decided``."""
        if self.undecided or self.unconfirmed is not None:
            return "not decided"
        if not self.grants:
            return "no"
        return "yes" if self.is_whole else "with conditions"
