"""What came of a replay, as text, as Markdown for a review, and as JSON."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from authz.analysis.offline.command import check_command
from authz.analysis.replay.recorded_request import RecordedRequest
from authz.analysis.replay.redecide import attributes_with_token
from authz.analysis.replay.replay import CHANGES, ReplayGroup, ReplayOutcome, ReplayReport, group_json
from authz.audit.query import STDIN
from authz.cli import terminal as out
from authz.cli.trail_option import TrailPlace
from authz.core.attributes import AttributeContext, Json
from authz.core.engine import Engine

SHOWN = 40
"""Groups of a kind that are shown to people; JSON has all of them."""
_STYLES = {
    ReplayOutcome.NEWLY_DENIED: "bold red",
    ReplayOutcome.NEWLY_ALLOWED: "bold yellow",
    ReplayOutcome.OTHER_STATUS: "bold cyan",
}


@dataclass(slots=True)
class ReplayQuestion:
    """What the command was asked, for the commands that it names."""

    audit: tuple[TrailPlace, ...]
    policies: tuple[str, ...]
    mesh: str | None
    is_as_of: bool
    version: str = ""
    engine: Engine | None = None
    """The new policies; None for those of then."""


def print_text(report: ReplayReport, asked: ReplayQuestion) -> None:
    """Print the numbers, then every change with an example, then what cannot be said."""
    out.say(_head(report, asked), "bold")
    for line in _numbers(report, asked):
        out.say(f"  {line}")
    for outcome in (*CHANGES, *([ReplayOutcome.OTHER_RULE] if asked.is_as_of else [])):
        groups = report.of(outcome)
        if groups:
            out.say()
            title = f"recorded otherwise, {outcome}" if asked.is_as_of else outcome.value
            out.say(f"{title}: {_number(groups)}", _STYLES.get(outcome, "bold"))
        for group in groups[:SHOWN]:
            out.say(f"  {group.key.workload}, called by {group.key.caller}: {out.count(group.count, 'record')}")
            out.say(f"    {_old(asked)} {group.key.then}")
            out.say(f"    {_new(asked)} {group.key.now}")
            out.say(f"    {_span(group)}, for example {group.example}")
            for told in commands(group, asked):
                out.say(f"    {told}")
        _rest(groups)
    _print_unsaid(report)


def print_markdown(report: ReplayReport, asked: ReplayQuestion) -> None:
    """Print the same as Markdown, for a comment of a review."""
    out.say(f"### {_head(report, asked)}")
    out.say()
    for line in _numbers(report, asked):
        out.say(f"- {line}")
    for outcome in (*CHANGES, *([ReplayOutcome.OTHER_RULE] if asked.is_as_of else [])):
        groups = report.of(outcome)
        if not groups:
            continue
        out.say()
        out.say(f"#### {outcome.value.capitalize()}: {_number(groups)}")
        out.say()
        out.say(f"| workload | caller | {_old(asked)} | {_new(asked)} | records | first | last | example |")
        out.say("|---|---|---|---|---|---|---|---|")
        for group in groups[:SHOWN]:
            key = group.key
            cells = (
                key.workload, key.caller, str(key.then), str(key.now),
                str(group.count), group.first if group.last else "", group.last, group.example,
            )  # fmt: skip
            out.say(f"| {' | '.join(map(_cell, cells))} |")
        _rest(groups)
    unsaid = report.of(ReplayOutcome.UNSAID, ReplayOutcome.NOT_KEPT)
    if unsaid:
        out.say()
        out.say(f"#### Cannot be said: {_number(unsaid)}")
        out.say()
        out.say("| lacking | asked for by | workload | records | example |")
        out.say("|---|---|---|---|---|")
        for group in unsaid[:SHOWN]:
            lacking = (_facts(group), ", ".join(group.key.rules), group.key.workload, str(group.count), group.example)
            out.say(f"| {' | '.join(map(_cell, lacking))} |")
        _rest(unsaid)


def report_json(report: ReplayReport, asked: ReplayQuestion, skipped: int) -> dict[str, Json]:
    """The report with the documented fields (docs/replay.md)."""
    first, last = _bounds(report)
    return {
        "records": report.records,
        "first": first,
        "last": last,
        "skipped_lines": skipped,
        "policy_version": asked.version or None,
        "as_of": asked.is_as_of,
        "counts": {outcome.value: report.count(outcome) for outcome in ReplayOutcome},
        "assumed": report.assumed,
        "groups": [{**group_json(group), "commands": list(commands(group, asked))} for group in report.groups],
    }


def commands(group: ReplayGroup, asked: ReplayQuestion) -> Iterator[str]:
    """The commands that show an example of a change: its record, and the decision by the new policies."""
    if group.key.outcome in (ReplayOutcome.SAME, ReplayOutcome.OUTSIDE, ReplayOutcome.NOT_KEPT):
        return
    files = [path for path in asked.audit if path != STDIN]
    if files:
        yield f"authz audit show {shlex.quote(group.example)} --log {shlex.quote(str(files[0]))}"
    if asked.engine is None or group.request is None or group.key.now is None:
        return
    policies = asked.engine.for_workload(group.request.attributes.destination.workload)
    custom = policies.http.custom if group.request.attributes.http is not None else policies.tcp.custom
    names = [one.provider.name for one in custom if one.provider is not None]
    command = check_command(
        policies,
        _with_audience(group.request, asked.engine),
        policy_paths=asked.policies,
        mesh_path=asked.mesh or "",
        answers={name: "deny" if name == group.request.provider else "allow" for name in names},
    )
    yield command.replace(" \\\n  ", " ")


def _with_audience(request: RecordedRequest, engine: Engine) -> AttributeContext:
    """A token that is to be accepted again needs an audience that the rule takes."""
    attributes = attributes_with_token(request)
    token = attributes.authentication.token
    rules = engine.for_workload(attributes.destination.workload).jwt_rules
    audiences = [rule.audiences[0] for rule in rules if token and rule.issuer == token.issuer and rule.audiences]
    if token is None or not audiences:
        return attributes
    named = replace(token, claims={**token.claims, "aud": audiences[0]})
    return attributes.after(replace(attributes.authentication, token=named))


def _head(report: ReplayReport, asked: ReplayQuestion) -> str:
    first, last = _bounds(report)
    by = "the policies of then" if asked.is_as_of else f"{', '.join(asked.policies)} (version {asked.version})"
    return f"{out.count(report.records, 'record')} of {first} to {last}, decided again by {by}"


def _numbers(report: ReplayReport, asked: ReplayQuestion) -> Iterator[str]:
    changed = report.count(*CHANGES)
    other = report.count(ReplayOutcome.OTHER_RULE)
    if asked.is_as_of:
        yield f"{report.count(ReplayOutcome.SAME)} as recorded"
        yield f"{changed + other} not as recorded: a fault of ours, or a fact that is in no record"
    else:
        by_other = f", {other} by another rule" if other else ""
        yield f"{report.count(ReplayOutcome.SAME) + other} with the same answer{by_other}"
        kinds = ", ".join(f"{report.count(one)} {one}" for one in CHANGES if report.count(one))
        yield f"{changed} with another answer{f': {kinds}' if kinds else ''}"
    for outcome, words in (
        (ReplayOutcome.UNSAID, "of which it cannot be said"),
        (ReplayOutcome.NOT_KEPT, "whose policies are not in the archive"),
        (ReplayOutcome.OUTSIDE, "refused before any policy decides, which stays so"),
    ):
        if report.count(outcome):
            yield f"{report.count(outcome)} {words}"
    if report.assumed:
        yield (
            f"{report.assumed} of these assume that the token rules are those of then; --archive would show whether"
            " they are"
        )


def _print_unsaid(report: ReplayReport) -> None:
    groups = report.of(ReplayOutcome.UNSAID, ReplayOutcome.NOT_KEPT)
    if not groups:
        return
    out.say()
    out.say(f"cannot be said: {_number(groups)}", "bold")
    for group in groups[:SHOWN]:
        rules = f", which {', '.join(group.key.rules)} asks for" if group.key.rules else ""
        place = f" at {group.key.workload}" if group.key.workload else ""
        out.say(f"  {_facts(group)}{rules}{place}: {out.count(group.count, 'record')}, for example {group.example}")
    _rest(groups)


def _facts(group: ReplayGroup) -> str:
    if group.key.outcome is ReplayOutcome.NOT_KEPT:
        return f"the policies of version {group.key.facts[0]}"
    return ", ".join(group.key.facts)


def _rest(groups: tuple[ReplayGroup, ...]) -> None:
    if len(groups) > SHOWN:
        out.say(f"  and {len(groups) - SHOWN} more groups of {_number(groups[SHOWN:])}: `-o json` has all")


def _number(groups: Iterable[ReplayGroup]) -> str:
    return out.count(sum(group.count for group in groups), "record")


def _span(group: ReplayGroup) -> str:
    if not group.last:
        return "at no time that is recorded"
    return group.first if group.first == group.last else f"{group.first} to {group.last}"


def _bounds(report: ReplayReport) -> tuple[str, str]:
    timed = [group for group in report.groups if group.last]
    return min((group.first for group in timed), default="?"), max((group.last for group in timed), default="?")


def _old(asked: ReplayQuestion) -> str:
    return "recorded:" if asked.is_as_of else "then:"


def _new(asked: ReplayQuestion) -> str:
    return "as of then:" if asked.is_as_of else "now:"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") or "–"
