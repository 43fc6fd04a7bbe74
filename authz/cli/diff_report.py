"""What ``authz diff`` found: for people, as JSON, as Markdown for a comment, as SARIF for code scanning."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from authz.analysis.offline.as_json import decision_json
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.sets.difference import Change, Difference, Direction
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.witness import Witness, command_of
from authz.cli import terminal as out
from authz.core.attributes import Json
from authz.core.decision import Decision
from authz.core.errors import NOWHERE


@dataclass(frozen=True, slots=True)
class Compared:
    """One workload, compared; without a pair nothing of it was touched."""

    asked: AskedWorkload
    pair: PolicyPair | None
    difference: Difference | None

    @property
    def state(self) -> str:
        """``unchanged``, ``equal``, ``changed``, or ``undecided``."""
        if self.difference is None:
            return "unchanged"
        if self.difference.undecided or self.difference.unconfirmed:
            return "undecided"
        return "changed" if self.difference.changes else "equal"

    @property
    def changes(self) -> list[Change]:
        """What changes; nothing where nothing was touched."""
        return self.difference.changes if self.difference is not None else []

    @property
    def moved(self) -> list[Change]:
        """What stays, but is another rule's answer."""
        return self.difference.moved if self.difference is not None else []


@dataclass(frozen=True, slots=True)
class DiffReport:
    """The whole answer."""

    old: str
    new: str
    mesh: str
    compared: Sequence[Compared]
    left_out: Sequence[str]
    """Why there may be workloads that were not asked about."""
    path: str
    """The new policies, for commands."""
    warnings: Sequence[str] = ()
    """What may have been meant otherwise: policies that no workload obeys, tokens that nobody verifies."""
    notes: Sequence[str] = ()
    """What changes beside the answers to requests: another mesh file."""

    def of(self, state: str) -> list[Compared]:
        """The workloads of one state."""
        return [one for one in self.compared if one.state == state]

    @property
    def directions(self) -> Counter[Direction]:
        """How many classes of requests change, by direction."""
        return Counter(change.direction for one in self.compared for change in one.changes)

    def command(self, one: Compared, change: Change) -> str:
        """The command that decides the witness of a change with the new policies."""
        assert one.pair is not None  # where something changes there is one
        return command_of(one.pair, change.witness, [self.path], self.mesh)


def exit_code(report: DiffReport) -> int:
    """Not decided counts first, because then nobody knows the answer."""
    if report.of("undecided") or report.left_out:
        return out.Exit.FAILED
    return out.Exit.NO if report.directions else out.Exit.YES


def write(report: DiffReport, form: str) -> None:
    """Print the answer in a form: ``text``, ``json``, ``markdown`` or ``sarif``."""
    if form == "json":
        out.print_json(as_json(report))
    elif form == "sarif":
        out.print_json(as_sarif(report))
    elif form == "markdown":
        for line in _markdown(report):
            out.say(line)
    else:
        _print(report)
    for one in report.compared:
        for witness in one.difference.unconfirmed[:1] if one.difference is not None else ():
            out.remark(f"internal: {one.asked.name}: the engine does not confirm {describe(witness)}; please report it")


def describe(witness: Witness) -> str:
    """One line about a request."""
    request = witness.request
    who = request.source_principal.removeprefix("spiffe://") or f"no identity ({request.tls})"
    what = f"TCP to port {request.destination_port}"
    if not request.is_tcp:
        what = f"{request.method} {request.host}{request.path or ''} to port {request.destination_port}"
    parts = [f"{what}, from {who}"]
    if witness.claims is not None:
        parts.append(f"token {json.dumps(dict(witness.claims), ensure_ascii=False)}{_signed(witness)}")
    parts += [f"{name}: {value}" for name, value in request.headers]
    parts += [f"{name} {value}" for name, value in witness.answers.items() if value != "allow"]
    return ", ".join(parts)


def _signed(witness: Witness) -> str:
    """Whose key signed a token that one side accepts and the other refuses, which its claims do not say."""
    token = witness.token
    if not token.key or 200 not in (token.old, token.new) or token.old == token.new:
        return ""
    if not token.key.lstrip().startswith("{"):
        return f" signed by a key from {token.key}"
    try:
        name = json.loads(token.key).get("kid")
    except ValueError:
        name = None
    return f" signed by the key `{name}`" if isinstance(name, str) else " signed by a key that is written in one side"


def answer(decision: Decision) -> str:
    """One line about a decision: the answer, and the rule with its place."""
    said = "allowed" if decision.is_allowed else f"denied ({decision.status})"
    rule = f"{decision.stage.name} rule {out.place(decision.rule)}" if decision.rule is not None else decision.reason
    return f"{said}: {rule}"


def summary(report: DiffReport) -> str:
    """One line about all workloads."""
    parts = [f"{number} {direction}" for direction, number in sorted(report.directions.items())]
    if report.of("undecided"):
        parts.append(f"{out.count(len(report.of('undecided')), 'workload')} not decided")
    said = ", ".join(parts) or "no answer changes"
    equal, unchanged = len(report.of("equal")), len(report.of("unchanged"))
    return f"{said} ({out.count(equal, 'workload')} proved equal, {unchanged} unchanged)"


def _print(report: DiffReport) -> None:
    for one in report.compared:
        if one.state == "equal":
            out.say(f"{one.asked.name}: proved equal, though its policies changed", "green")
        for change in one.moved:
            rules = " → ".join(rule.short if rule else "no rule" for rule in (change.old.rule, change.new.rule))
            out.say(f"{one.asked.name}: {change.direction}: {rules}, for example {describe(change.witness)}")
        for change in one.changes:
            out.say(f"{one.asked.name}: {change.direction}", "bold")
            out.say(f"  {'request:':<9}{describe(change.witness)}")
            out.say(f"  {'old:':<9}{answer(change.old)}")
            out.say(f"  {'new:':<9}{answer(change.new)}")
            for text in change.because:
                out.say(f"  {'missing:' if text == change.because[0] else '':<9}{text}")
            for line in report.command(one, change).splitlines():
                out.say(f"    {line}")
        for reason in reasons(one):
            out.say(f"{one.asked.name}: not decided: {reason}", "bold yellow")
    for text in report.notes:
        out.say(f"note: {text}")
    for text in (*report.left_out, *report.warnings):
        out.remark(f"warning: {text}")
    out.say(summary(report), "bold")


def reasons(one: Compared) -> list[str]:
    """Why a workload is not decided."""
    return one.difference.undecided if one.difference is not None else []


# --- for machines ----------------------------------------------------------------------------------------------------


def as_json(report: DiffReport) -> dict[str, Json]:
    """The answer with the documented fields (docs/proofs.md)."""
    return {
        "format": 1,
        "equal": exit_code(report) == out.Exit.YES,
        "totals": {
            direction.value: report.directions[direction] for direction in Direction if direction is not Direction.RULE
        },
        "left_out": list(report.left_out),
        "warnings": list(report.warnings),
        "notes": list(report.notes),
        "workloads": [
            {
                "name": one.asked.name,
                "namespace": one.asked.workload.namespace,
                "labels": dict(sorted(one.asked.workload.labels)),
                "result": one.state,
                "not_decided": list(reasons(one)),
                "changes": [
                    {
                        "direction": change.direction.value,
                        "request": describe(change.witness),
                        "old": decision_json(change.old),
                        "new": decision_json(change.new),
                        "missing": list(change.because),
                        "command": report.command(one, change),
                    }
                    for change in (*one.changes, *one.moved)
                ],
            }
            for one in report.compared
        ],
    }


def _markdown(report: DiffReport) -> Iterator[str]:
    yield f"### {summary(report)}"
    yield ""
    yield f"`{report.old}` → `{report.new}`"
    for text in report.warnings:
        yield ""
        yield f"Warning: {text}"
    for note in report.notes:
        yield ""
        yield f"note: {note}"
    for one in report.compared:
        for change in one.changes:
            yield ""
            yield f"**{one.asked.name}: {change.direction}**"
            yield ""
            yield f"- request: {_code(describe(change.witness))}"
            yield f"- old: {_code(answer(change.old))}"
            yield f"- new: {_code(answer(change.new))}"
            yield from (f"- missing: {_code(text)}" for text in change.because)
            yield ""
            yield "<details><summary>decide it</summary>"
            yield ""
            yield "```sh"
            yield from report.command(one, change).splitlines()
            yield "```"
            yield ""
            yield "</details>"
        for reason in reasons(one):
            yield ""
            yield f"**{one.asked.name}: not decided**: {reason}"


def _code(text: str) -> str:
    ticks = "`" * (max((len(run) for run in _runs(text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if ticks != "`" else f"`{text}`"


def _runs(text: str) -> Iterator[str]:
    for piece in text.replace("`", " ` ").split():
        if piece == "`":
            yield "`"


def as_sarif(report: DiffReport) -> dict[str, Json]:
    """SARIF 2.1.0: a result for each class of requests, at the rule that answers it now, else at the one that did."""
    results: list[Json] = []
    for one in report.compared:
        for change in one.changes:
            text = f"{one.asked.name}: {change.direction}: {describe(change.witness)}. "
            text += f"Old: {answer(change.old)}. New: {answer(change.new)}."
            results.append(_result(change.direction.value, "warning", text, _place(change)))
        results += [
            _result("not decided", "error", f"{one.asked.name}: not decided: {reason}", []) for reason in reasons(one)
        ]
    names = [*(direction.value for direction in Direction), "not decided"]
    driver: dict[str, Json] = {
        "name": "authz diff",
        "rules": [{"id": _id(name), "shortDescription": {"text": name}} for name in names],
    }
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _id(name: str) -> str:
    return name.replace(" ", "-")


def _result(name: str, level: str, text: str, places: list[Json]) -> Json:
    return {"ruleId": _id(name), "level": level, "message": {"text": out.clean(text)}, "locations": places}


def _place(change: Change) -> list[Json]:
    for decision in (change.new, change.old):
        rule = decision.rule
        if rule is not None and rule.location is not NOWHERE:
            line: Json = {"startLine": max(rule.location.line, 1)}
            where: Json = {"artifactLocation": {"uri": rule.location.file}, "region": line}
            return [{"physicalLocation": where}]
    return []
