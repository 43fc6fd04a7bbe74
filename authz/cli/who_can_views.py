"""Who can do something, for people and for programs: grants in words, the matrix as a table, JSON, CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from authz.analysis.access.grant import Excepted, Granted, Phrase, RuleGrant
from authz.analysis.offline.as_json import decision_json
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.witness import command_of
from authz.cli import terminal as out
from authz.cli.diff_report import describe
from authz.core.attributes import Json
from authz.core.decision import RuleReference

_SHORT = {"with conditions": "if", "not decided": "?"}


@dataclass(frozen=True, slots=True)
class AskedCaller:
    """Who is asked about."""

    name: str
    """For people."""
    spiffe_id: str | None
    """With ``spiffe://``; empty: without identity; None: everybody."""


@dataclass(frozen=True, slots=True)
class AskedAccess:
    """The answer for one caller, or all of them, and one workload."""

    caller: AskedCaller
    asked: AskedWorkload
    pair: PolicyPair
    access: Granted


@dataclass(frozen=True, slots=True)
class WhoCan:
    """All answers."""

    policy_paths: tuple[str, ...]
    mesh_path: str
    policy_version: str
    callers: Sequence[AskedCaller]
    workloads: Sequence[AskedWorkload]
    answers: Iterable[AskedAccess]
    """For each workload those of all callers; found as they are asked for, once."""
    left_out: tuple[str, ...]
    """Workloads that are not asked about, with the reason."""

    def command(self, answer: AskedAccess, grant: RuleGrant) -> str:
        """The command that decides the request of a grant."""
        return command_of(answer.pair, grant.witness, self.policy_paths, self.mesh_path)


def exit_code(answers: set[str], left_out: Sequence[str]) -> out.Exit:
    """Yes where somebody can, no where that is proved of nobody, failed where something is not decided."""
    if "not decided" in answers or left_out:
        return out.Exit.FAILED
    return out.Exit.YES if answers - {"no"} else out.Exit.NO


def write(found: WhoCan, form: str, *, matrix: bool) -> out.Exit:
    """Find the answers and print them in one of the forms; returns the exit code."""
    answers = _print_lines(found) if form == "jsonl" else list(found.answers)
    if form == "json":
        out.print_json(_as_json(found, answers))
    elif form == "csv":
        for line in _as_csv(answers):
            out.say(line)
    elif matrix and form == "text":
        _print_matrix(answers)
    elif form == "text":
        _print(answers)
    for reason in found.left_out:
        out.remark(f"not decided: {reason}")
    for one in answers:
        if one.access.unconfirmed is not None:
            said = f"{one.asked.name}: the engine does not confirm {describe(one.access.unconfirmed)}"
            out.remark(f"internal: {said}; please report it")
    return exit_code({one.access.answer for one in answers}, found.left_out)


def phrase(words: Phrase) -> str:
    """``method GET, path /cart*``; nothing for whatever it is."""
    return ", ".join(map(str, words))


def who(grant: RuleGrant) -> str:
    """The sources of a grant: one of them."""
    if () in grant.sources:
        everybody = all(way.has_identity for way in grant.ways)
        return "anyone with an identity" if everybody else "anyone"
    return "; or ".join(map(phrase, grant.sources))


def _what(grant: RuleGrant) -> str:
    return "anything" if () in grant.operations else "; or ".join(map(phrase, grant.operations))


def _excepted(one: Excepted) -> str:
    if one.provider:
        asked = f" for {phrase(one.phrase)}" if one.phrase else ""
        allows = "allows it or cannot be asked" if one.fails_open else "allows it"
        return f"only if the provider {one.provider} {allows}{asked} (CUSTOM rule {out.place(one.rule)})"
    return f"except {phrase(one.phrase)} ({one.action.name} rule {out.place(one.rule)})"


def _by(rule: RuleReference | None) -> str:
    return f"ALLOW rule {out.place(rule)}" if rule is not None else "no ALLOW policy applies"


def _print(answers: Iterable[AskedAccess]) -> None:
    for one in answers:
        access = one.access
        if access.answer == "not decided":
            reasons = "; ".join(access.undecided) or "the engine does not confirm what was found"
            out.say(f"{one.asked.name}: not decided: {reasons}", "bold yellow")
            continue
        if not access.grants:
            out.say(f"{one.asked.name}: {'no' if one.caller.name else 'nobody'} (proved)")
            continue
        out.say(f"{one.asked.name}:", "bold")
        for grant in access.grants:
            out.say(f"  {who(grant)}", "green")
            out.say(f"    {'may:':<9}{_what(grant)}")
            if grant.conditions:
                out.say(f"    {'if:':<9}{phrase(grant.conditions)}")
            for exception in grant.exceptions:
                out.say(f"    {'but:':<9}{_excepted(exception)}")
            out.say(f"    {'over:':<9}{', '.join(map(str, grant.ways))}")
            out.say(f"    {'by:':<9}{_by(grant.rule)}")
            out.say(f"    {'example:':<9}{describe(grant.witness)}")


def _print_matrix(answers: Sequence[AskedAccess]) -> None:
    callers = list(dict.fromkeys(one.caller for one in answers))
    cells = {(one.caller, one.asked.name): one.access.answer for one in answers}
    for number, caller in enumerate(callers, start=1):
        out.say(f"{number:>3}  {caller.name}")
    out.say()
    names = dict.fromkeys(one.asked.name for one in answers)
    rows = [[name, *(_SHORT.get(cells[one, name], cells[one, name]) for one in callers)] for name in names]
    out.print_table(["may call, over what it is:", *(str(number) for number in range(1, len(callers) + 1))], rows)
    out.say()
    out.say("yes: everything   if: with conditions (--from, --to tell which)   no: nothing, proved   ?: not decided")


def _as_csv(answers: Iterable[AskedAccess]) -> Iterator[str]:
    rows: list[Sequence[str]] = [("caller", "identity", "workload", "answer", "grants", "rules", "example")]
    for one in answers:
        grants = one.access.grants
        rows.append(
            (
                one.caller.name or "anyone",
                (one.caller.spiffe_id or "").removeprefix("spiffe://"),
                one.asked.name,
                one.access.answer,
                " | ".join(map(_in_words, grants)) or "; ".join(one.access.undecided),
                " | ".join(grant.rule.short if grant.rule is not None else "no ALLOW policy" for grant in grants),
                describe(grants[0].witness) if grants else "",
            )
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    yield from text.getvalue().splitlines()


def _in_words(grant: RuleGrant) -> str:
    parts = [f"{who(grant)} may {_what(grant)}"]
    if grant.conditions:
        parts.append(f"if {phrase(grant.conditions)}")
    parts += map(_excepted, grant.exceptions)
    return f"{' '.join(parts)}, over {', '.join(map(str, grant.ways))}"


def _as_json(found: WhoCan, answers: Iterable[AskedAccess]) -> dict[str, Json]:
    """The answers with the documented fields (docs/proofs.md)."""
    return {
        "format": 1,
        "policy_version": found.policy_version,
        "left_out": list(found.left_out),
        "answers": [_answer_json(found, one) for one in answers],
    }


def _print_lines(found: WhoCan) -> list[AskedAccess]:
    """What was asked on the first line, then each answer on one of its own as soon as it is known."""
    asked: dict[str, Json] = {
        "format": 1,
        "policy_version": found.policy_version,
        "callers": [{"caller": one.name or None, "identity": one.spiffe_id} for one in found.callers],
        "workloads": [one.name for one in found.workloads],
        "left_out": list(found.left_out),
    }
    out.print_json(asked, indent=None)
    answers = []
    for one in found.answers:
        out.print_json(_answer_json(found, one), indent=None)
        answers.append(one)
    return answers


def _answer_json(found: WhoCan, one: AskedAccess) -> dict[str, Json]:
    return {
        "caller": one.caller.name or None,
        "identity": one.caller.spiffe_id,
        "workload": one.asked.name,
        "namespace": one.asked.workload.namespace,
        "labels": dict(sorted(one.asked.workload.labels)),
        "answer": one.access.answer,
        "grants": [_grant_json(found, one, grant) for grant in one.access.grants],
        "not_decided": list(one.access.undecided),
    }


def _grant_json(found: WhoCan, answer: AskedAccess, grant: RuleGrant) -> dict[str, Json]:
    return {
        "words": _in_words(grant),
        "said": {
            "who": who(grant),
            "may": _what(grant),
            "if": phrase(grant.conditions) or None,
            "but": [_excepted(one) for one in grant.exceptions],
            "by": _by(grant.rule),
        },
        "rule": _rule_json(grant.rule),
        "sources": [_phrase_json(one) for one in grant.sources],
        "operations": [_phrase_json(one) for one in grant.operations],
        "conditions": _phrase_json(grant.conditions),
        "over": [str(way) for way in grant.ways],
        "exceptions": [
            {
                "action": one.action.name,
                "provider": one.provider or None,
                "fails_open": one.fails_open,
                "rule": _rule_json(one.rule),
                "asks": _phrase_json(one.phrase),
            }
            for one in grant.exceptions
        ],
        "request": describe(grant.witness),
        "decision": decision_json(grant.decision),
        "command": found.command(answer, grant),
    }


def _phrase_json(words: Iterable[tuple[str, tuple[str, ...], tuple[str, ...]]]) -> list[Json]:
    return [{"key": key, "values": list(values), "not_values": list(others)} for key, values, others in words]


def _rule_json(rule: RuleReference | None) -> Json:
    if rule is None:
        return None
    return {"name": rule.short, "file": rule.location.file, "line": rule.location.line}
