"""The set of policies that is asked for traps, and how its rules are walked: the common ground of all checks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from authz.analysis.needless.verdict import NeedlessRules
from authz.core.attributes import Workload
from authz.core.catalog import OPERATION_FIELDS, SOURCE_FIELDS, Attribute, condition_attribute
from authz.core.engine import Engine
from authz.core.errors import Location, Problem, Severity
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    Operation,
    PeerAuthentication,
    RequestAuthentication,
    Rule,
    Source,
)

HEADER = "request.headers["


@dataclass(frozen=True, slots=True)
class Trap(Problem):
    """A trap in a set of policies."""

    proved: bool = False
    """Whether it holds for every request, and not only by what is written."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies that are looked at. Without ``workloads``, nothing is said about selectors that select nobody."""

    engine: Engine
    workloads: tuple[Workload, ...] = ()
    output_headers: frozenset[str] = field(default_factory=frozenset)
    """Lower-case headers that hold verified claims: forged ones are removed (RA-49)."""
    needless: NeedlessRules | None = None
    """What is proved of the rules; None: nothing was asked."""
    _authentications: dict[str, list[RequestAuthentication]] = field(default_factory=dict)
    _policies: dict[str, list[AuthorizationPolicy]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for authentication in self.engine.resources.request_authentications:
            self._authentications.setdefault(authentication.metadata.namespace, []).append(authentication)
        for policy in self.policies:
            self._policies.setdefault(policy.metadata.namespace, []).append(policy)

    def authentications_with(self, policy: AuthorizationPolicy) -> Iterator[RequestAuthentication]:
        """The RequestAuthentications that some workload can be under together with the policy."""
        for namespace in self._namespaces(policy.metadata.namespace, self._authentications):
            for one in self._authentications.get(namespace, ()):
                if may_meet(policy, one, self.root):
                    yield one

    def policies_with(self, authentication: RequestAuthentication) -> Iterator[AuthorizationPolicy]:
        """The AuthorizationPolicies that some workload can be under together with the RequestAuthentication."""
        for namespace in self._namespaces(authentication.metadata.namespace, self._policies):
            for policy in self._policies.get(namespace, ()):
                if may_meet(policy, authentication, self.root):
                    yield policy

    def _namespaces(self, own: str, known: Iterable[str]) -> Iterable[str]:
        return known if own == self.root else (own, self.root)

    @property
    def policies(self) -> tuple[AuthorizationPolicy, ...]:
        """All AuthorizationPolicies, as written."""
        return self.engine.resources.authorization_policies

    @property
    def root(self) -> str:
        """The root namespace of the mesh."""
        return self.engine.mesh.root_namespace


def finding(
    code: str,
    policy: AuthorizationPolicy | RequestAuthentication | PeerAuthentication,
    message: str,
    advice: str,
    *,
    location: Location | None = None,
    path: str = "",
    proved: bool = False,
) -> Trap:
    """Build a finding at an object; ``location`` is that of a rule."""
    metadata = policy.metadata
    resource = f"{type(policy).__name__} {metadata.namespace}/{metadata.name}"
    place = location or metadata.location
    return Trap(Severity.WARNING, code, message, place, resource=resource, path=path, help=advice, proved=proved)


def rules_of(whole: PolicySet, *actions: Action) -> Iterator[tuple[AuthorizationPolicy, int, Rule]]:
    """Every rule of the policies with these actions, with its policy and index."""
    for policy in whole.policies:
        if policy.action in actions:
            for index, rule in enumerate(policy.rules):
                yield policy, index, rule


@dataclass(frozen=True, slots=True)
class Use:
    """One field of a rule: the attribute it asks, and its values."""

    attribute: Attribute
    values: tuple[str, ...]
    not_values: tuple[str, ...]
    path: str


def uses_of(rule: Rule) -> Iterator[Use]:
    """Every attribute that a rule asks about."""
    for position, source in enumerate(rule.sources):
        yield from _entry(source, SOURCE_FIELDS, f"from[{position}].source")
    for position, operation in enumerate(rule.operations):
        yield from _entry(operation, OPERATION_FIELDS, f"to[{position}].operation")
    for position, condition in enumerate(rule.conditions):
        yield Use(condition_attribute(condition.key), condition.values, condition.not_values, f"when[{position}]")


def _entry(entry: Source | Operation, names: Mapping[str, Attribute], inside: str) -> Iterator[Use]:
    written = {f.name.replace("_", ""): getattr(entry, f.name) for f in fields(entry)}
    for name, attribute in names.items():
        values, not_values = written[name.lower()], written[f"not{name.lower()}"]
        if values or not_values:
            yield Use(attribute, values, not_values, f"{inside}.{name}")


def may_meet(policy: AuthorizationPolicy, other: RequestAuthentication, root: str) -> bool:
    """Whether some workload can be under both."""
    namespaces = {policy.metadata.namespace, other.metadata.namespace}
    if len(namespaces) > 1 and root not in namespaces:
        return False
    one, two = policy.target.match_labels, other.target.match_labels
    return all(two.get(name, value) == value for name, value in one.items())
