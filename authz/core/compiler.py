"""
Resources to an ``Engine``. All problems are collected, none is swallowed.

``policy`` has checked the documents before; a value that nevertheless cannot be compiled refuses the whole set,
because dropping it would widen a DENY or empty an ALLOW (RE-24, AP-73, AP-74).
"""

from collections.abc import Callable, Iterator

from authz.core.catalog import (
    OPERATION_FIELDS,
    SOURCE_FIELDS,
    Attribute,
    CompileContext,
    condition_attribute,
)
from authz.core.decision import RuleReference
from authz.core.engine import Engine
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.core.matchers import Matcher
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    Condition,
    MeshConfig,
    Operation,
    Resources,
    Rule,
    Source,
)
from authz.core.rules import CompiledPolicy, CompiledRule, Predicate, Predicates

Fields = tuple[tuple[str, Attribute, Callable[[object], tuple[tuple[str, ...], tuple[str, ...]]]], ...]
"""Istio's name of a field, the attribute it asks for, and the readers of its values and of those of its negation."""
MadePredicates = dict[tuple[object, ...], Predicate]
"""Predicates by everything they are made of except the mesh: ``methods: [GET]`` is one value for all rules with it."""
MAX_KNOWN = 1024


def _pair(name: str, negation: str) -> Callable[[object], tuple[tuple[str, ...], tuple[str, ...]]]:
    return lambda written: (getattr(written, name), getattr(written, negation))


def _fields(attributes: dict[str, Attribute]) -> Fields:
    names = {field: "".join(f"_{c.lower()}" if c.isupper() else c for c in field) for field in attributes}
    return tuple((field, attributes[field], _pair(name, f"not_{name}")) for field, name in names.items())


_SOURCE, _OPERATION = _fields(SOURCE_FIELDS), _fields(OPERATION_FIELDS)


def compile_engine(resources: Resources, mesh: MeshConfig, before: Engine | None = None) -> Engine:
    """
    Compile everything that was read, except for policies that ``before`` has already compiled for the same mesh.

    Raises:
        LoadError: some value cannot be used; carries every problem.
    """
    compiler = _Compiler(mesh, {})
    known = before.compiled_by_id() if before is not None and before.mesh == mesh else {}
    policies = [
        known[id(policy)] if id(policy) in known else compiler.policy(policy)
        for policy in resources.authorization_policies
    ]
    if compiler.problems:
        raise LoadError(compiler.problems)
    return Engine(resources, mesh, _compile_one(mesh), policies)


def compile_as_needed(resources: Resources, mesh: MeshConfig, *, indexed: bool = True) -> Engine:
    """
    Make the same engine from resources that ``compile_engine`` has taken before: each policy is compiled when first
    needed. Use it only for those, because a value that cannot be compiled must refuse the whole set before any of it is
    in force. Without ``indexed`` it is for a single request.
    """
    return Engine(resources, mesh, _compile_one(mesh), indexed=indexed)


def _compile_one(mesh: MeshConfig) -> Callable[[AuthorizationPolicy], CompiledPolicy]:
    predicates: MadePredicates = {}

    def compile_policy(policy: AuthorizationPolicy) -> CompiledPolicy:
        compiler = _Compiler(mesh, predicates)
        compiled = compiler.policy(policy)
        if compiler.problems:
            raise LoadError(compiler.problems)
        return compiled

    return compile_policy


class _Compiler:
    """Collects problems while it walks; one instance per set."""

    def __init__(self, mesh: MeshConfig, known: MadePredicates) -> None:
        self.problems: list[Problem] = []
        self._trust_domains = mesh.trust_domains
        self._known = known
        self._resource = ""

    def policy(self, policy: AuthorizationPolicy) -> CompiledPolicy:
        metadata = policy.metadata
        self._resource = f"AuthorizationPolicy {metadata.namespace}/{metadata.name}"
        http = tuple(self._rule(policy, index, rule) for index, rule in enumerate(policy.rules))
        return CompiledPolicy(
            metadata.namespace,
            metadata.name,
            policy.action,
            policy.provider,
            policy.dry_run,
            http,
            tuple(_for_tcp(http, policy.action)),
        )

    def _rule(self, policy: AuthorizationPolicy, index: int, rule: Rule) -> CompiledRule:
        metadata = policy.metadata
        name = f"ns[{metadata.namespace}]-policy[{metadata.name}]-rule[{index}]"
        context = CompileContext(metadata.namespace, self._trust_domains)
        unknown_holds = policy.action is not Action.ALLOW
        place = f"spec.rules[{index}]"

        def entry(written: Source | Operation, fields: Fields, inside: str, location: Location) -> Predicates:
            predicates = []
            for field, attribute, read in fields:
                values, not_values = read(written)
                if values or not_values:  # of two dozen fields one or two are given
                    path = f"{inside}.{field}"
                    predicates.append(
                        self._predicate(attribute, values, not_values, path, context, unknown_holds, location, place)
                    )
            return tuple(predicate for predicate in predicates if predicate is not None)

        return CompiledRule(
            RuleReference(metadata.namespace, metadata.name, index, name, rule.location),
            tuple(
                entry(source, _SOURCE, f"from[{position}].source", rule.location)
                for position, source in enumerate(rule.sources)
            ),
            tuple(
                entry(operation, _OPERATION, f"to[{position}].operation", rule.location)
                for position, operation in enumerate(rule.operations)
            ),
            tuple(
                predicate
                for position, condition in enumerate(rule.conditions)
                if (predicate := self._condition(condition, position, context, unknown_holds, place)) is not None
            ),
        )

    def _condition(
        self, condition: Condition, position: int, context: CompileContext, unknown_holds: bool, place: str
    ) -> Predicate | None:
        path = f"when[{position}]"
        try:
            attribute = condition_attribute(condition.key)
        except ValueError as error:
            self._problem(str(error), condition.location, f"{place}.{path}.key", "AP-74")
            return None
        return self._predicate(
            attribute,
            condition.values,
            condition.not_values,
            path,
            context,
            unknown_holds,
            condition.location,
            place,
        )

    def _predicate(  # one call site shape for from, to and when; a parameter object would only rename these
        self,
        attribute: Attribute,
        values: tuple[str, ...],
        not_values: tuple[str, ...],
        path: str,
        context: CompileContext,
        unknown_holds: bool,
        location: Location,
        place: str,
    ) -> Predicate | None:
        if not values and not not_values:
            return None
        key = (attribute.key, values, not_values, path, unknown_holds, context.policy_namespace)
        if (known := self._known.get(key)) is not None:
            return known

        def compiled(written: tuple[str, ...]) -> Matcher | None:
            if not written:
                return None
            try:
                return attribute.compile(written, context)
            except ValueError as error:
                self._problem(str(error), location, f"{place}.{path}", "AP-73")
                return None

        problems = len(self.problems)
        predicate = Predicate(attribute, compiled(values), compiled(not_values), path, unknown_holds)
        if len(self.problems) == problems and len(self._known) < MAX_KNOWN:
            self._known[key] = predicate
        return predicate

    def _problem(self, message: str, location: Location, path: str, code: str) -> None:
        self.problems.append(Problem(Severity.ERROR, code, message, location, resource=self._resource, path=path))


def _for_tcp(rules: tuple[CompiledRule, ...], action: Action) -> Iterator[CompiledRule]:
    """
    The rules as they stand for TCP.

    ALLOW: "a rule that mentions any HTTP-only attribute … is dropped as a whole" (AP-69).
    Other actions: "each HTTP-only attribute is removed from the rule and the rest of the rule is kept"; an entry left
    with nothing matches everything, and so does the OR it is part of (AP-70).
    """
    for rule in rules:
        entries = (*rule.sources, *rule.operations, rule.conditions)
        if not any(predicate.attribute.http_only for entry in entries for predicate in entry):
            yield rule
        elif action is not Action.ALLOW:
            yield CompiledRule(
                rule.reference,
                _strip_entries(rule.sources),
                _strip_entries(rule.operations),
                _strip(rule.conditions),
            )


def _strip(entry: Predicates) -> Predicates:
    return tuple(predicate for predicate in entry if not predicate.attribute.http_only)


def _strip_entries(entries: tuple[Predicates, ...]) -> tuple[Predicates, ...]:
    stripped = tuple(_strip(entry) for entry in entries)
    return () if any(not entry for entry in stripped) else stripped
