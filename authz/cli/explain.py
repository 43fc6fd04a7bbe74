"""``authz explain``: decide one request, and say why."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from authz.analysis.offline.as_json import explanation_json
from authz.analysis.offline.request import OfflineRequest
from authz.cli import terminal as out
from authz.cli.check import help_json, print_decision
from authz.cli.question import Explained, ask
from authz.cli.request_options import request_options
from authz.cli.route_taken import asked_at, route_taken, way_json, way_lines
from authz.core.attributes import Json
from authz.core.explain import Explanation, PredicateNote, RuleNote, StageNote
from authz.core.uncollected import WithoutCollector

if TYPE_CHECKING:
    from authz.mesh.route_following import FollowedRoute


@click.command("explain", short_help="Decide one request, and say why.")
@request_options
@out.answer_form("text", "json")
def command(output: str, **options: Any) -> None:
    """
    Decide one request and show every stage and every rule that was considered.

    For a denial the rule that came closest is named, with the fields that failed, what they expected and what
    was there. The exit code is that of check.

    \b
    authz explain -p policies/ -n shop -l app=cart --method PUT --path /cart
    authz explain -p policies/ -f request.yaml -o json | jq .nearest
    authz explain -p policies/ --mesh mesh.yaml --from productpage-v1 --to reviews --path /reviews/0
    """
    with WithoutCollector(for_good=True):
        taken = route_taken(options)
        if taken is not None:
            raise SystemExit(_explain_way(*taken, output, options))
        answer = ask(options)
        if output == "json":
            out.print_json({**explanation_json(answer.explanation), **help_json(answer)})
        else:
            print_decision(answer)
            print_stages(answer)
    raise SystemExit(out.Exit.YES if answer.explanation.decision.is_allowed else out.Exit.NO)


def _explain_way(way: "FollowedRoute", request: OfflineRequest, output: str, options: dict[str, Any]) -> int:
    """Follow the route, then decide at every workload that it can reach; all of them must allow."""
    ends = [(end, reached) for end in way.ends for reached in end.reached]
    answers = [
        (
            reached.workload.name,
            ask(
                {**options, "to": reached.workload.name, "port": reached.port}, arriving=asked_at(request, end.request)
            ),
        )
        for end, reached in ends
    ]
    if output == "json":
        judged: list[Json] = [
            {"workload": name, **explanation_json(answer.explanation), **help_json(answer)} for name, answer in answers
        ]
        out.print_json({"route": way_json(way), "workloads": judged})
    else:
        for name, text in way_lines(way, options["from"]):
            out.say(f"{name + ':':<9}{text}")
        for name, answer in answers:
            out.say()
            out.say(f"at {name}:", "bold")
            print_decision(answer)
            print_stages(answer)
    is_answered = way.route is not None and not way.route.destinations
    outside = any(not end.reached for end in way.ends)
    allowed = all(answer.explanation.decision.is_allowed for _, answer in answers)
    return out.Exit.YES if allowed and (answers or is_answered or outside) else out.Exit.NO


def print_stages(answer: Explained) -> None:
    """Print the stages in their order, each with its rules and their predicates."""
    console = out.answers()
    out.say(console=console)
    out.print_lines(stage_lines(answer.explanation), console)


def stage_lines(explanation: Explanation) -> Iterator[Text]:
    """The stages, their rules and their predicates, a line each."""
    for stage in explanation.stages:
        yield _stage_line(stage)
        for note in stage.rules:
            yield _rule_line(note)
            for part in note.parts:
                for predicate in part:
                    yield _predicate_line(predicate)


def _stage_line(stage: StageNote) -> Text:
    text = Text(f"{stage.name}: ", style="bold" if stage.reached else "dim")
    return text.append(out.clean(stage.outcome if stage.reached else "not reached"), style="not bold")


def _rule_line(note: RuleNote) -> Text:
    text = Text("  ")
    text.append("fired    " if note.fired else "no match ", style="green" if note.fired else "dim")
    return text.append(out.clean(out.place(note.reference)))


def _predicate_line(note: PredicateNote) -> Text:
    text = Text("    ")
    text.append("yes " if note.holds else "no  ", style="green" if note.holds else "red")
    return text.append(out.clean(str(note)))
