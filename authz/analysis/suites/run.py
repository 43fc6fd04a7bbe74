"""
Run suites: every case through the reader, the compiler, the token stage and the one evaluator of the house.

``prepare`` makes keys, tokens and an engine of a group; ``run_case`` compares every key that is expected.
The time is an argument: tokens are made and judged at one ``now``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from authz.analysis.offline.request import passed_through, to_attributes
from authz.analysis.offline.stubs import stub_answer
from authz.analysis.suites.coverage import Coverage
from authz.analysis.suites.expectations import Comparison, compare
from authz.analysis.suites.placeholders import substitute_keys, substitute_tokens
from authz.analysis.suites.suite import Case, DocumentCase, Group, PolicyText, Suite
from authz.core.attributes import AttributeContext, Authentication
from authz.core.compiler import compile_engine
from authz.core.decision import Decision
from authz.core.engine import Engine
from authz.core.errors import LoadError, Location, Problem, sort_problems
from authz.core.explain import Explanation, explain
from authz.core.pipeline import Authenticate, decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule, MeshConfig
from authz.policy.reader import read_policies
from authz.tokens.authenticate import authenticate
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySets, KeySetState
from authz.tokens.signing import KeyPool, jwks_text, make_keys, make_tokens

URI_DOWN = "https://down.jwks.invalid/"
ISTIO_WARNINGS = frozenset({"VA-2", "VA-32", "VA-39"})
"""Warnings that Istio's own validation gives; ``expect: ok`` leaves room for our lints only."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One request or document, compared. ``error``: it could not be run, and proves nothing."""

    file: str
    group: str
    """Group of a request; ``documents`` for a document."""
    case: str
    location: Location
    clauses: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    error: str = ""
    problems: tuple[Problem, ...] = ()
    """The reason of an error, or what validation said of a document."""
    decision: Decision | None = None
    explanation: Explanation | None = None
    """The way to the decision of a request that failed."""

    @property
    def name(self) -> str:
        """The case as it is selected and printed: ``group/case``."""
        return f"{self.group}/{self.case}"

    @property
    def is_document(self) -> bool:
        """Whether a document was validated instead of a request decided."""
        return self.decision is None and self.group == "documents"

    @property
    def passed(self) -> bool:
        """Whether everything that was expected came."""
        return not self.error and all(comparison.agrees for comparison in self.comparisons)


@dataclass(frozen=True, slots=True)
class PreparedGroup:
    """A group ready to run: policies compiled, keys and tokens made."""

    group: Group
    engine: Engine
    tokens: Mapping[str, str]
    key_sets: KeySets
    now: float

    def authenticator(self) -> Authenticate:
        """The token stage with the group's keys, at its time."""

        def judge(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
            return authenticate(attributes, rules, self.key_sets, self.now)

        return judge

    def with_engine(self, engine: Engine) -> "PreparedGroup":
        """The same group with other policies; keys and tokens stay."""
        return replace(self, engine=engine)

    def ask(self, question: ProviderQuestion) -> ProviderAnswer:
        """Answer as ``customStub`` says; a provider without an answer is unusable (AP-85)."""
        return stub_answer(self.group.stubs, question)


class Select:
    """Chooses cases by a regular expression on ``file/group/case``."""

    def __init__(self, pattern: str) -> None:
        """Raises ``re.error`` for a pattern that is none."""
        self._pattern = re.compile(pattern)

    def __call__(self, file: str, group: str, case: str) -> bool:
        return self._pattern.search(f"{file}/{group}/{case}") is not None


def run_suite(
    suite: Suite,
    now: float,
    pool: KeyPool | None = None,
    *,
    select: Select | None = None,
    coverage: Coverage | None = None,
) -> Iterator[CaseResult]:
    """
    Run the cases of a suite in their order.

    Args:
        now: seconds since the epoch, the time of every token and its verification.
        pool: keys to reuse between suites.
        select: which cases to run; all by default. A group without any is not even prepared.
        coverage: counts the rules that were considered and fired; costs more.
    """
    pool = pool or KeyPool()
    for group in suite.groups:
        cases = [case for case in group.cases if select is None or select(suite.file, group.id, case.id)]
        if not cases:
            continue
        prepared = prepare(group, now, pool)
        if coverage is not None and isinstance(prepared, PreparedGroup):
            coverage.expect(prepared.engine)
        for case in cases:
            if isinstance(prepared, PreparedGroup):
                yield run_case(suite.file, prepared, case, coverage)
            else:
                yield _not_run(suite.file, group.id, case, "the group cannot be prepared", prepared)
    for document in suite.documents:
        if select is None or select(suite.file, "documents", document.id):
            yield run_document(suite.file, document)


def prepare(group: Group, now: float, pool: KeyPool) -> PreparedGroup | tuple[Problem, ...]:
    """Make a group ready, or answer why that is impossible."""
    if group.problems:
        return group.problems
    keys = make_keys(group.keys, pool)
    tokens = make_tokens(group.tokens, keys, now)
    documents: dict[str, str] = {}
    files = []
    for policies in group.policies:
        text = policies.text
        if policies.file == group.location.file:
            replaced = substitute_keys(text, keys, uri_down=URI_DOWN)
            documents |= replaced.documents
            text = replaced.text
        files.append(replace(policies, text=text))
    compiled = compile_texts(files, group.mesh)
    if not isinstance(compiled, Engine):
        return compiled
    key_sets = {f"uri:{uri}": KeySetState(read_key_set(text), now) for uri, text in documents.items()}
    key_sets[f"uri:{URI_DOWN}"] = KeySetState(None, None, "the stand-in for an unreachable key set")
    for source, names in group.key_sets.items():
        state = KeySetState(read_key_set(jwks_text(keys[name] for name in names)), now)
        key_sets |= {f"uri:{source}": state, f"oidc:{source}": state}
    return PreparedGroup(group, compiled, tokens, key_sets, now)


def compile_texts(texts: list[PolicyText], mesh: MeshConfig) -> Engine | tuple[Problem, ...]:
    """Compile policies written inside another file; places are those of that file."""
    result = read_policies([_padded(policies) for policies in texts], mesh, allow_empty=True)
    problems = _placed(result.problems, texts)
    if result.has_errors:
        return problems
    try:
        return compile_engine(result.resources, mesh)
    except LoadError as error:
        return _placed(error.problems, texts)


def _padded(policies: PolicyText) -> tuple[str, bytes]:
    """Empty lines in front give every place the line of the file around it."""
    return policies.file, ("\n" * (policies.line - 1) + policies.text).encode()


def _placed(problems: tuple[Problem, ...], texts: list[PolicyText]) -> tuple[Problem, ...]:
    indents = {policies.file: policies.indent for policies in texts}
    moved = (
        replace(problem, location=replace(place, column=place.column + indents.get(place.file, 0)))
        if (place := problem.location).column
        else problem
        for problem in problems
    )
    return sort_problems(moved)


def run_case(file: str, prepared: PreparedGroup, case: Case, coverage: Coverage | None = None) -> CaseResult:
    """Run one request and compare. Raises nothing because of the case."""
    group = prepared.group
    if case.problems:
        return _not_run(file, group.id, case, "the case is malformed", case.problems)
    request = case.request.substituted(lambda text: substitute_tokens(text, prepared.tokens))
    before = to_attributes(request, case.target, prepared.engine.mesh, gateway=group.is_gateway)
    policies = prepared.engine.for_workload(case.target.workload)
    before = passed_through(request, before, policies)
    decision = decide(policies, before, prepared.authenticator(), prepared.ask)[1]
    comparisons = tuple(compare(case, decision, before, prepared.tokens))
    explanation = None
    if coverage is not None or not all(comparison.agrees for comparison in comparisons):
        explanation = explain(policies, before, prepared.authenticator(), prepared.ask)
        if coverage is not None:
            coverage.note(explanation.stages)
    return CaseResult(
        file, group.id, case.id, case.location, case.clauses, comparisons, decision=decision, explanation=explanation
    )


def run_document(file: str, document: DocumentCase) -> CaseResult:
    """Validate one document as ``authz validate`` would, and compare the result."""
    if document.problems:
        return _not_run(file, "documents", document, "the document is malformed", document.problems)
    texts = [document.policies]
    result = read_policies([_padded(document.policies)], allow_empty=True)
    problems = _placed(result.problems, texts)
    if not result.has_errors:
        try:
            compile_engine(result.resources, MeshConfig())
        except LoadError as error:
            problems = _placed(error.problems, texts)
    actual = _validation(problems, document.expect)
    comparison = Comparison("expect", document.expect, actual)
    return CaseResult(
        file, "documents", document.id, document.location, document.clauses, (comparison,), problems=problems
    )


def _validation(problems: tuple[Problem, ...], expected: str) -> str:
    """``ok`` is kept where only lints of ours speak: "a project-specific lint is free to say more"."""
    if any(problem.is_error for problem in problems):
        return "error"
    warnings = [problem for problem in problems if problem.severity == "warning"]
    if expected == "ok":
        warnings = [problem for problem in warnings if problem.code in ISTIO_WARNINGS]
    return "warning" if warnings else "ok"


def _not_run(file: str, group: str, case: Case | DocumentCase, error: str, problems: tuple[Problem, ...]) -> CaseResult:
    return CaseResult(file, group, case.id, case.location, case.clauses, error=error, problems=problems)
