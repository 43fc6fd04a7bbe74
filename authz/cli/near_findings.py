"""The traps in the one rule that an answer is about: what ``authz analyze`` would say of it, without asking twice."""

from collections.abc import Iterator

from authz.analysis.traps.findings import find
from authz.cli.question import Explained
from authz.core.compiler import compile_engine
from authz.core.decision import RuleReference
from authz.core.errors import Problem, Severity
from authz.core.resources import Resources

_NOT_OF_A_MATCH = frozenset({"AN-1", "AN-2", "AN-3", "AN-4", "AN-5", "AN-8", "VA-32"})
"""Findings that say how a rule is evaded, what else it meets or that it is needless, which no single request shows."""

_OF_ITS_POLICY = frozenset({"VA-8"})
"""A dry run that is none concerns every rule of a policy."""
_OF_ITS_FILE = frozenset({"file"})
"""So do variables that nobody replaced, and templates."""


def near_findings(answer: Explained) -> Iterator[Problem]:
    """Yield the findings and warnings of the rule that decided or came closest, of no other."""
    nearest = answer.explanation.nearest
    rule = nearest.reference if nearest is not None else answer.explanation.decision.rule
    if rule is None:
        return
    resource, path = f"AuthorizationPolicy {rule.namespace}/{rule.policy}", f"spec.rules[{rule.index}]"
    seen: set[str] = set()
    for problem in (*_findings(answer, rule), *answer.problems):
        is_here = problem.code in _OF_ITS_FILE and problem.location.file == rule.location.file
        is_here |= problem.resource == resource and (
            problem.code in _OF_ITS_POLICY or f"{problem.path}.".startswith((f"{path}.", f"{path}["))
        )
        if is_here and problem.severity is Severity.WARNING and problem.code not in _NOT_OF_A_MATCH:
            if problem.message not in seen:
                yield problem
            seen.add(problem.message)


def _findings(answer: Explained, rule: RuleReference) -> tuple[Problem, ...]:
    """Find traps in the smallest set that shows them: the policy, and what it must be seen beside."""
    resources, mesh = answer.engine.resources, answer.engine.mesh
    namespaces = {rule.namespace, answer.before.destination.workload.namespace, mesh.root_namespace}
    beside = Resources(
        tuple(
            policy
            for policy in resources.authorization_policies
            if (policy.metadata.namespace, policy.metadata.name) == (rule.namespace, rule.policy)
        ),
        tuple(a for a in resources.request_authentications if a.metadata.namespace in namespaces),
        tuple(p for p in resources.peer_authentications if p.metadata.namespace in namespaces),
    )
    return find(compile_engine(beside, mesh))
