"""A set of policies as the checks for traps see it: its rules, what they ask about, and how a trap is told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from authz.core.attributes import Workload
from authz.core.catalog import OPERATION_FIELDS, SOURCE_FIELDS, Attribute, condition_attribute
from authz.core.engine import Engine
from authz.core.errors import Location, Problem, Severity
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    Operation,
    RequestAuthentication,
    Rule,
    Source,
)

HEADER = "request.headers["


@dataclass(frozen=True, slots=True)
class PolicySet:
    """What is looked at. Without ``workloads`` nothing is said about selectors that select nobody."""

    engine: Engine
    workloads: tuple[Workload, ...] = ()
    output_headers: frozenset[str] = field(default_factory=frozenset)
    """Lower-case headers that hold verified claims: forged ones are removed (RA-49)."""

    @property
    def policies(self) -> tuple[AuthorizationPolicy, ...]:
        """Every AuthorizationPolicy, in the order they were read."""
        return self.engine.resources.authorization_policies

    @property
    def root(self) -> str:
        """The namespace whose policies apply to the whole mesh (RE-15)."""
        return self.engine.mesh.root_namespace


def finding(
    code: str,
    policy: AuthorizationPolicy | RequestAuthentication,
    message: str,
    advice: str,
    *,
    location: Location | None = None,
    path: str = "",
    severity: Severity = Severity.WARNING,
) -> Problem:
    """Make a finding about a policy, at ``location`` within it or at its head; ``advice`` says what to do."""
    metadata = policy.metadata
    resource = f"{type(policy).__name__} {metadata.namespace}/{metadata.name}"
    place = location or metadata.location
    return Problem(severity, code, message, place, resource=resource, path=path, help=advice)


def rules_of(whole: PolicySet, *actions: Action) -> Iterator[tuple[AuthorizationPolicy, int, Rule]]:
    """Every rule of the policies with one of these actions, as (policy, index, rule)."""
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
