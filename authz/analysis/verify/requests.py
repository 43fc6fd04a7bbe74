"""
Requests for a workload's rules: one that fires each alternative of a rule, and for each value what lies beside it.

The engine's predicates choose among candidate values; Envoy then says whether the choice was right.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from authz.analysis.offline.request import OfflineWorkload
from authz.analysis.verify import edges
from authz.analysis.verify.facts import Facts
from authz.core.attributes import Authentication, AuthenticationOutcome, Json, Token
from authz.core.catalog import claim_path
from authz.core.engine import WorkloadPolicies
from authz.core.resources import MtlsMode
from authz.core.rules import CompiledPolicy, CompiledRule, Predicate, Predicates

MAX_ALTERNATIVES = 64
"""Pairs of ``from`` and ``to`` of one rule that are tried."""
_IDENTITY = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
_FIELDS = {
    "source.ip": "source_ip", "remote.ip": "remote_ip", "destination.ip": "destination_ip",
    "destination.port": "port", "connection.sni": "sni", "hosts": "host", "methods": "method", "paths": "path",
    "request.auth.principal": "principal", "request.auth.audiences": "claim:aud",
    "request.auth.presenter": "claim:azp", "request.headers[:authority]": "host", "request.headers[host]": "host",
    "request.headers[:method]": "method", "request.headers[:path]": "path",
}  # fmt: skip
_OF_ENVOY = re.compile(r"x-envoy-|x-forwarded-|:|(connection|content-length|transfer-encoding|upgrade|te|expect|"
                       r"keep-alive|proxy-connection|x-request-id)$")  # fmt: skip


@dataclass(slots=True)
class Tried:
    """One rule and what is to be sent for it."""

    policy: CompiledPolicy
    rule: CompiledRule
    witnesses: list[Facts] = field(default_factory=list)
    beside: list[Facts] = field(default_factory=list)
    unsendable: list[str] = field(default_factory=list)
    """The demands that cannot be met, one line each: a field of the rule, and why."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The clients that a trial can play."""

    policies: WorkloadPolicies
    port: int
    gateway: bool

    @property
    def someone(self) -> str:
        """A caller whom no rule names."""
        return f"spiffe://{self.policies.mesh.trust_domain}/ns/authz-verify/sa/someone"

    def base(self) -> Facts:
        """A request that asks for nothing particular."""
        return self.admitted(Facts(self.port)) or Facts(self.port)

    def admitted(self, facts: Facts, *, keep: frozenset[str] = frozenset()) -> Facts | None:
        """The request as PeerAuthentication lets it in; None where a part in ``keep`` stands against it."""
        mode = MtlsMode.PERMISSIVE if self.gateway else self.policies.mtls_mode(facts.port)
        if not facts.identity and (mode is MtlsMode.STRICT or facts.sni):
            return None if "identity" in keep else replace(facts, identity=self.someone)
        if facts.identity and mode is MtlsMode.DISABLE:
            return None if keep & {"identity", "sni"} else replace(facts, identity="", sni="")
        return facts

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose tokens are accepted."""
        return tuple(dict.fromkeys(rule.issuer or "https://issuer.test" for rule in self.policies.jwt_rules))


def requests_of(sender: Sender) -> Iterator[Tried]:
    """Every rule of a workload with its requests, in the order of the policies."""
    for policy in sender.policies.policies:
        for rule in policy.http_rules:
            yield _Rule(sender, policy, rule).tried()


def part_of(key: str) -> str:
    """The part of a request that an attribute is read from; empty where no client chooses it."""
    if key in _IDENTITY:
        return "identity"
    if key in _FIELDS:
        return _FIELDS[key]
    if key.startswith("request.headers["):
        name = key[len("request.headers[") : -1]
        return "" if _OF_ENVOY.match(name) else f"header:{name}"
    if key.startswith("request.auth.claims["):
        return "claim:" + "\0".join(claim_path(key))
    return ""


class _Rule:
    def __init__(self, sender: Sender, policy: CompiledPolicy, rule: CompiledRule) -> None:
        self._sender = sender
        self._found = Tried(policy, rule)
        self._target = OfflineWorkload(sender.policies.workload, sender.port)

    def tried(self) -> Tried:
        rule = self._found.rule
        pairs = [(one, other) for one in rule.sources or ((),) for other in rule.operations or ((),)]
        for source, operation in pairs[:MAX_ALTERNATIVES]:
            self._alternative((*source, *operation, *rule.conditions))
        if len(pairs) > MAX_ALTERNATIVES:
            self._found.unsendable.append(f"{len(pairs) - MAX_ALTERNATIVES} more pairs of `from` and `to`: too many")
        return self._found

    def _alternative(self, entry: Predicates) -> None:
        """A witness for one ``from`` with one ``to``, and what lies beside each of its values."""
        parts: dict[str, list[Predicate]] = {}
        for predicate in entry:
            part = part_of(predicate.attribute.key)
            if not part:
                if predicate.any_of is not None:
                    self._found.unsendable.append(f"{predicate.path}: no client chooses `{predicate.attribute.key}`")
                    return
                continue  # absent satisfies what is excluded
            parts.setdefault(part, []).append(predicate)
        witness: Facts | None = self._sender.base()
        candidates = {part: self._candidates(part, predicates) for part, predicates in parts.items()}
        for part in sorted(parts, key=lambda one: one == "identity"):  # a port may say who is admitted
            assert witness is not None
            witness = self._met(witness, part, parts[part], candidates[part])
            if witness is None:
                return
        assert witness is not None
        self._found.witnesses.append(witness)
        for part, found in candidates.items():
            for value in found:
                changed = self._sender.admitted(witness.put(part, value), keep=frozenset({part}))
                if changed is not None:
                    self._found.beside.append(changed)

    def _met(self, facts: Facts, part: str, predicates: Sequence[Predicate], found: Sequence[object]) -> Facts | None:
        for value in found:
            changed = self._sender.admitted(facts.put(part, value), keep=frozenset({part}))
            if changed is not None and all(self._holds(one, changed) for one in predicates):
                return changed
        self._found.unsendable.append(f"{predicates[0].path}: {self._why(part, predicates)}")
        return None

    def _why(self, part: str, predicates: Sequence[Predicate]) -> str:
        wanted = " and ".join(_said(predicates)[:4])
        if part == "source_ip":
            return f"no client of this machine has a direct address that is {wanted}"
        if part.startswith(("claim", "principal")) and not self._sender.policies.jwt_rules:
            return "no RequestAuthentication accepts a token here, so no request has one"
        if part == "identity":
            return f"no certificate was found that is {wanted} and that PeerAuthentication lets in"
        return f"no value of `{predicates[0].attribute.key}` was found that is {wanted}"

    def _holds(self, predicate: Predicate, facts: Facts) -> bool:
        sender = self._sender
        attributes = facts.attributes(self._target, sender.policies.mesh, None, gateway=sender.gateway)
        if facts.claims is not None:
            claims = _split(facts.claims)
            if claims.get("iss") is not None and claims["iss"] not in sender.issuers:
                return False  # such a token is refused before any rule
            token = Token(claims, str(claims.get("iss", "")), str(claims.get("sub", "")))
            attributes = replace(attributes, authentication=Authentication(AuthenticationOutcome.ACCEPTED, token))
        return predicate.holds(attributes)

    def _candidates(self, part: str, predicates: Sequence[Predicate]) -> list[object]:
        written = _written(predicates)
        kind = part.partition(":")[0]
        found: list[object] = []
        if kind == "identity":
            keys = {one.attribute.key for one in predicates}
            by_key = {key: tuple(_written([p for p in predicates if p.attribute.key == key])) for key in keys}
            found += edges.identities(by_key, self._sender.policies.mesh.trust_domains, self._found.policy.namespace)
            found = [*found[: 8 * len(written) + 8], *(one for one in found if self._is_needed(predicates, str(one)))]
        elif kind == "principal":
            if self._sender.policies.jwt_rules:
                for one in written:
                    found += edges.request_principals(one, self._sender.issuers)
        elif kind == "claim":
            if self._sender.policies.jwt_rules:
                found += [value for one in written for value in edges.claims(one)]
        else:
            for one in written:
                found += list(_NEAR[kind](one))
            found += _DEFAULTS.get(kind, ())
        unique: dict[str, object] = {repr(one): one for one in found}
        return list(unique.values())

    def _is_needed(self, predicates: Sequence[Predicate], identity: str) -> bool:
        """Whether an identity meets everything at once: it may be far down in the list of combinations."""
        facts = replace(self._sender.base(), identity=identity)
        return bool(identity) and all(self._holds(one, facts) for one in predicates)


_NEAR: Mapping[str, Callable[[str], Iterable[object]]] = {
    "source_ip": edges.loopback, "remote_ip": edges.addresses, "destination_ip": edges.addresses,
    "port": edges.ports, "sni": edges.strings, "host": edges.hosts, "method": edges.methods,
    "path": edges.paths, "header": edges.headers,
}  # fmt: skip
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "source_ip": ("127.0.0.1", "127.77.7.7"), "remote_ip": ("192.0.2.7", "127.0.0.1"), "destination_ip": ("10.1.0.5",),
    "port": (9,), "host": ("verify.test",), "method": ("GET", "POST", "DELETE"), "path": ("/", "/verify"),
    "header": ((),), "sni": ("",),
}  # fmt: skip


def _written(predicates: Sequence[Predicate]) -> list[str]:
    found = [
        value for one in predicates for matcher in (one.any_of, one.none_of) if matcher for value in matcher.written
    ]
    return list(dict.fromkeys(found))


def _said(predicates: Sequence[Predicate]) -> list[str]:
    found = [f"one of {', '.join(one.any_of.written[:4])}" for one in predicates if one.any_of]
    return found + [f"none of {', '.join(one.none_of.written[:4])}" for one in predicates if one.none_of]


@cache
def _words(value: str) -> tuple[str, ...]:
    return tuple(value.split(" "))


def _split(claims: Mapping[str, Json]) -> dict[str, Json]:
    """``scope`` and ``permission`` are lists of words whatever a rule says (RA-33)."""
    return {
        name: list(_words(value)) if name in ("scope", "permission") and isinstance(value, str) else value
        for name, value in claims.items()
    }
