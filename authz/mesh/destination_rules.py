"""
Which DestinationRule a proxy heeds for a host: Istio's merging, ``exportTo``, and order of namespaces.

The proxy's own namespace is asked first, then the service's, then the mesh's root namespace; the first of them that has
a rule for the host decides, the most specific host first. A proxy of the root namespace begins with the service's,
unless the root namespace has a rule for itself alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from authz.mesh.traffic_policy import ClientTls, DestinationRule, Subset

_PRIVATE, _PUBLIC = ".", "*"


@dataclass(slots=True)
class _Hosts:
    """Rules of one namespace by host, those of the same host merged as far as Istio merges them."""

    exact: dict[str, list[DestinationRule]] = field(default_factory=dict)
    wildcard: dict[str, list[DestinationRule]] = field(default_factory=dict)

    def add(self, rule: DestinationRule) -> None:
        """Merge a rule into those of its host that are for the same proxies, or put it beside them."""
        found = (self.wildcard if rule.is_wildcard else self.exact).setdefault(rule.host, [])
        beside = True
        for i, other in enumerate(found):
            if rule.export_to != other.export_to and not (other.export_to and rule.export_to >= other.export_to):
                beside = True
                continue
            beside = rule.export_to != other.export_to
            if rule.selector is not None and other.selector is not None and rule.selector != other.selector:
                beside = True
                continue
            if (rule.selector is None) == (other.selector is None):
                beside = False
            found[i] = _merged(other, rule)
        if beside:
            found.append(rule)

    def most_specific(self, host: str) -> list[DestinationRule]:
        """The rules of the host itself, or of the longest name with ``*`` that fits."""
        if host in self.exact:
            return self.exact[host]
        if not self.wildcard:
            return []
        if host in self.wildcard:
            return self.wildcard[host]
        for start in range(1 if host.startswith("*") else 0, len(host) + 1):
            found = self.wildcard.get("*" + host[start:])
            if found is not None:
                return found
        return []


def _merged(first: DestinationRule, second: DestinationRule) -> DestinationRule:
    """The first's policy and subsets count; the second adds what the first does not name."""
    subsets: dict[str, Subset] = {}
    for subset in (*first.subsets, *second.subsets):
        subsets.setdefault(subset.name, subset)
    return replace(first, policy=first.policy or second.policy, subsets=tuple(subsets.values()))


@dataclass(frozen=True)
class DestinationRules:
    """Every DestinationRule of a mesh, in any order."""

    rules: tuple[DestinationRule, ...] = ()
    root_namespace: str = "istio-system"

    def in_force(self, namespace: str, labels: Mapping[str, str], host: str, owner: str) -> DestinationRule | None:
        """
        What a proxy of ``namespace`` with these labels heeds for a host whose service is of the namespace ``owner``.

        None when nothing is said. Its rules with a selector come first, and only for a proxy of their namespace.
        """
        rest = None
        for rule in self._listed(namespace, host, owner):
            if rule.selector is None:
                rest = rule
            elif rule.namespace == namespace and rule.selector.items() <= labels.items():
                return rule
        return rest

    def for_service(self, host: str) -> tuple[DestinationRule, ...]:
        """Every rule as written whose host covers this one."""
        found = [*self._by_host.get(host, ())]
        found += [rule for rule in self._wildcards if host.endswith(rule.host[1:])]
        return tuple(found)

    @property
    def client_tls(self) -> tuple[ClientTls, ...]:
        """Every TLS setting of every rule, wherever it stands."""
        policies = [p for rule in self.rules for p in (rule.policy, *(s.policy for s in rule.subsets)) if p is not None]
        found = (one.tls for policy in policies for one in (policy, *policy.ports.values()))
        return tuple(tls for tls in found if tls is not None)

    @cached_property
    def _by_host(self) -> dict[str, list[DestinationRule]]:
        found: dict[str, list[DestinationRule]] = {}
        for rule in self.rules:
            if not rule.is_wildcard:
                found.setdefault(rule.host, []).append(rule)
        return found

    @cached_property
    def _wildcards(self) -> tuple[DestinationRule, ...]:
        return tuple(rule for rule in self.rules if rule.is_wildcard)

    def _listed(self, namespace: str, host: str, owner: str) -> list[DestinationRule]:
        if namespace != self.root_namespace:
            if found := self._hosts(self._local, namespace, host):
                return found
        elif found := self._root_private.most_specific(host):
            return found
        for exporting in (owner, self.root_namespace):
            visible = [
                rule
                for rule in self._hosts(self._exported, exporting, host)
                if not rule.export_to or _PUBLIC in rule.export_to or namespace in rule.export_to
            ]
            if visible:
                return visible
        return []

    @staticmethod
    def _hosts(by_namespace: Mapping[str, _Hosts], namespace: str, host: str) -> list[DestinationRule]:
        hosts = by_namespace.get(namespace)
        return hosts.most_specific(host) if hosts else []

    @cached_property
    def _local(self) -> dict[str, _Hosts]:
        """What each namespace's own proxies see of their namespace."""
        own = (r for r in self._sorted if not r.export_to or r.export_to & {_PUBLIC, _PRIVATE, r.namespace})
        return _by_namespace(own)

    @cached_property
    def _exported(self) -> dict[str, _Hosts]:
        return _by_namespace(rule for rule in self._sorted if not _is_private(rule))

    @cached_property
    def _root_private(self) -> _Hosts:
        root = (r for r in self._sorted if r.namespace == self.root_namespace and _is_private(r))
        return _by_namespace(root).get(self.root_namespace, _Hosts())

    @cached_property
    def _sorted(self) -> tuple[DestinationRule, ...]:
        """Rules with a selector first, then the oldest, then by name, as Istio merges them."""
        return tuple(sorted(self.rules, key=lambda r: (r.selector is None, r.created, r.name, r.namespace)))


def _is_private(rule: DestinationRule) -> bool:
    return rule.export_to in ({_PRIVATE}, {rule.namespace})


def _by_namespace(rules: Iterable[DestinationRule]) -> dict[str, _Hosts]:
    found: dict[str, _Hosts] = {}
    for rule in rules:
        found.setdefault(rule.namespace, _Hosts()).add(rule)
    return found
