"""Reports of a test run: for people, as JSON, as JUnit XML."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as Xml  # only written, nothing is parsed

from rich.text import Text

from authz.analysis.suites.coverage import Coverage
from authz.analysis.suites.expectations import Comparison
from authz.analysis.suites.run import CaseResult
from authz.cli import terminal
from authz.core.attributes import Json
from authz.core.errors import Problem


@dataclass(slots=True)
class Run:
    """Everything a run has brought. Durations are seconds, one a result."""

    results: list[CaseResult] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    """Everything that is wrong with the suites."""
    coverage: Coverage | None = None

    def tally(self, results: Sequence[CaseResult] | None = None) -> dict[str, int]:
        """Passed, failed, errors, total."""
        of = self.results if results is None else results
        passed, errors = sum(result.passed for result in of), sum(bool(result.error) for result in of)
        return {"passed": passed, "failed": len(of) - passed - errors, "errors": errors, "total": len(of)}

    @property
    def requests(self) -> list[CaseResult]:
        """Results of cases that decide a request."""
        return [result for result in self.results if not result.is_document]

    @property
    def documents(self) -> list[CaseResult]:
        """Results of cases that validate a document."""
        return [result for result in self.results if result.is_document]


def outcome(result: CaseResult) -> str:
    """``pass``, ``fail`` or ``error``."""
    return "error" if result.error else "pass" if result.passed else "fail"


def differences(result: CaseResult) -> Iterator[Comparison]:
    """The keys in which a result differs from what is expected."""
    return (comparison for comparison in result.comparisons if not comparison.agrees)


def _shown(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(member)}" for name, member in value.items())
    return "nothing" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def lines(result: CaseResult, known: Collection[Problem] = ()) -> Iterator[str]:
    """Say what is wrong with one result, a line each; problems that are ``known`` already are not said again."""
    if result.error:
        yield result.error
    for problem in result.problems if result.error or result.is_document else ():
        if problem not in known:
            yield from str(problem).splitlines()
    for different in differences(result):
        yield f"{different.key}: expected {_shown(different.expected)}, got {_shown(different.actual)}"
    if result.explanation is not None and result.decision is not None:
        yield f"because: {result.decision.reason}"
        if result.decision.rule is not None:
            yield f"by: {terminal.place(result.decision.rule)}"
        nearest = result.explanation.nearest
        if nearest is not None:
            yield f"closest: {terminal.place(nearest.reference)}"
            yield from (f"  {note}" for note in nearest.failed)


# --- for people ------------------------------------------------------------------------------------------------------

_MARKS = {"pass": ("PASS", "green"), "fail": ("FAIL", "bold red"), "error": ("ERROR", "bold red")}


def print_result(result: CaseResult, known: Collection[Problem] = ()) -> None:
    """Print one result with everything that is wrong with it, but for the problems that are ``known`` already."""
    mark, style = _MARKS[outcome(result)]
    head = Text(f"{mark} ", style=style)
    head.append(terminal.clean(f"{result.name}"), style="bold")
    head.append(terminal.clean(f"  {result.location.file}:{result.location.line}"), style="dim not bold")
    console = terminal.answers()
    console.print(head)
    if not result.passed:
        for line in lines(result, known):
            terminal.say(f"  {line}", console=console)


def print_file(file: str, results: Sequence[CaseResult]) -> None:
    """Print the line of one suite."""
    tally = Run().tally(results)
    parts = [f"{tally[name]} {word}" for name, word in _WORDS if tally[name]]
    terminal.say(f"{file}: {', '.join(parts)}")


_WORDS = (("passed", "passed"), ("failed", "failed"), ("errors", "could not be run"))


def print_summary(run: Run) -> None:
    """Print how many cases passed, failed or could not be run."""
    parts = []
    for results, noun in ((run.requests, "request"), (run.documents, "document")):
        if results:
            tally = run.tally(results)
            parts.append(f"{tally['passed']} of {terminal.count(tally['total'], noun)} passed")
    tally = run.tally()
    is_good = tally["passed"] == tally["total"] and not any(problem.is_error for problem in run.problems)
    terminal.say("; ".join(parts) or "no case was run", "bold green" if is_good and parts else "bold red")


def print_coverage(coverage: Coverage, *, verbose: bool) -> None:
    """Print the share of rules that fired, and those that did not."""
    shown = [rule for rule in coverage.rules if verbose or not rule.fired]
    terminal.say(
        f"coverage: {coverage.fired} of {terminal.count(len(coverage.rules), 'rule')} fired ({coverage.percent:.1f} %)"
    )
    if shown:
        rows = [
            (
                rule.rule,
                f"{rule.action}{' (dry run)' if rule.is_dry_run else ''}",
                str(rule.considered),
                str(rule.fired) if rule.fired else "never",
                f"{rule.location.file}:{rule.location.line}",
            )
            for rule in shown
        ]
        terminal.print_table(("RULE", "ACTION", "CONSIDERED", "FIRED", "PLACE"), rows)


# --- for machines ----------------------------------------------------------------------------------------------------


def as_json(run: Run) -> dict[str, Json]:
    """The run with the documented fields (docs/testing-policies.md)."""
    return {
        "format": 1,
        "requests": dict(run.tally(run.requests)),
        "documents": dict(run.tally(run.documents)),
        "cases": [_case_json(result) for result in run.results],
        "problems": [terminal.problem_json(problem) for problem in run.problems],
        "coverage": _coverage_json(run.coverage) if run.coverage is not None else None,
    }


def _case_json(result: CaseResult) -> Json:
    found: dict[str, Json] = {
        "file": result.file,
        "line": result.location.line,
        "group": result.group,
        "case": result.case,
        "clauses": list(result.clauses),
        "result": outcome(result),
    }
    if not result.passed:
        found["error"] = result.error or None
        found["differences"] = [
            {"key": different.key, "expected": different.expected, "actual": different.actual}
            for different in differences(result)
        ]
        found["lines"] = [terminal.clean(line) for line in lines(result)]
    return found


def _coverage_json(coverage: Coverage) -> Json:
    return {
        "rules": len(coverage.rules),
        "fired": coverage.fired,
        "percent": round(coverage.percent, 1),
        "by_rule": [
            {
                "rule": rule.rule,
                "action": rule.action.value,
                "dry_run": rule.is_dry_run,
                "considered": rule.considered,
                "fired": rule.fired,
                "file": rule.location.file,
                "line": rule.location.line,
            }
            for rule in coverage.rules
        ],
    }


def as_junit(run: Run) -> str:
    """JUnit XML: a ``testsuite`` for each file, a ``testcase`` for each case."""
    tally = run.tally()
    counts = {"tests": str(tally["total"]), "failures": str(tally["failed"]), "errors": str(tally["errors"])}
    root = Xml.Element("testsuites", {"name": "authz test", **counts})
    by_file: dict[str, list[tuple[CaseResult, float]]] = {}
    for result, duration in zip(run.results, run.durations, strict=True):
        by_file.setdefault(result.file, []).append((result, duration))
    for file, found in by_file.items():
        tally = run.tally([result for result, _ in found])
        suite = Xml.SubElement(
            root,
            "testsuite",
            name=terminal.clean(file),
            tests=str(tally["total"]),
            failures=str(tally["failed"]),
            errors=str(tally["errors"]),
            time=f"{sum(duration for _, duration in found):.6f}",
        )
        for result, duration in found:
            _junit_case(suite, result, duration)
    _junit_problems(root, run.problems)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode")


def _junit_case(suite: Xml.Element, result: CaseResult, duration: float) -> None:
    case = Xml.SubElement(
        suite,
        "testcase",
        classname=terminal.clean(result.group),
        name=terminal.clean(result.case),
        file=terminal.clean(result.location.file),
        line=str(result.location.line),
        time=f"{duration:.6f}",
    )
    if not result.passed:
        said = [terminal.clean(line) for line in lines(result)]
        element = Xml.SubElement(case, "error" if result.error else "failure", message=said[0] if said else "")
        element.text = "\n".join(said)


def _junit_problems(root: Xml.Element, problems: Sequence[Problem]) -> None:
    """A malformed suite is an error of its own, so that no reader of the report takes it for passed."""
    found = [problem for problem in problems if problem.is_error]
    if found:
        suite = Xml.SubElement(root, "testsuite", name="suites", tests="1", failures="0", errors="1")
        case = Xml.SubElement(suite, "testcase", classname="suites", name="well-formed")
        element = Xml.SubElement(case, "error", message=terminal.count(len(found), "problem"))
        element.text = "\n".join(terminal.clean(str(problem)) for problem in found)
