"""A recorded decision, explained by the policies that were in force then, out of the archive."""

from dataclasses import dataclass, replace

from authz.analysis.offline.as_json import explanation_json
from authz.analysis.replay.bounds import BoundedPolicies
from authz.analysis.replay.recorded_request import OUTSIDE, RecordedRequest, read_recorded
from authz.analysis.replay.redecide import DecidedAgain, Then, attributes_with_token, decide_again
from authz.analysis.replay.replay import answer_json
from authz.cli import terminal as out
from authz.cli.explain import stage_lines
from authz.core.attributes import AttributeContext, Authentication, AuthenticationOutcome, Json
from authz.core.decided import Record
from authz.core.engine import WorkloadPolicies
from authz.core.explain import Explanation, explain
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule
from authz.service.loading.archive import Archive


@dataclass(frozen=True, slots=True)
class AsOf:
    """What the archive says of one record; ``problem`` where it says nothing."""

    version: str
    problem: str = ""
    again: DecidedAgain | None = None
    is_same: bool = False
    """Whether what is decided again is what was recorded, rule included."""
    explanation: Explanation | None = None
    lacking: tuple[str, ...] = ()
    """Facts that the policies ask for and the record lacks."""

    def as_json(self) -> dict[str, Json]:
        """With the documented fields (docs/replay.md)."""
        stages = explanation_json(self.explanation)["stages"] if self.explanation is not None else None
        return {
            "policy_version": self.version,
            "problem": self.problem or None,
            "same": self.is_same if self.again is not None and self.again.answer is not None else None,
            "answer": answer_json(self.again.answer) if self.again is not None else None,
            "lacking": list(self.lacking),
            "stages": stages,
        }


def explained_again(record: Record, archive: Archive) -> AsOf:
    """
    Decide a record again and explain it.

    Raises:
        LoadError: this program refuses the policies of then.
        OSError: they cannot be read.
    """
    request = read_recorded(record, {})
    version = str(record.get("policy_version") or "")
    if request is None:
        return AsOf(version, "the record is not whole")
    if request.answer.stage in OUTSIDE:
        return AsOf(version, f"no policy decides at the stage {request.answer.stage}")
    snapshot = archive.snapshot(version)
    if snapshot is None:
        return AsOf(version, f"version {version or 'none'} is not in {archive.directory}")
    policies = snapshot.engine.for_workload(request.attributes.destination.workload)
    bounded = BoundedPolicies(policies)
    again = decide_again(bounded, request, Then(is_same=True))
    answer = again.answer
    is_same = answer is not None and (answer.effect, answer.rule) == (request.answer.effect, request.answer.rule)
    lacking = tuple(sorted(key for key in bounded.asked if request.lacks(key)))
    told = _explained(policies, request)
    return AsOf(version, "", again, is_same, told, lacking)


def _explained(policies: WorkloadPolicies, request: RecordedRequest) -> Explanation:
    def judged(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        if request.answer.stage == "jwt":
            return Authentication(AuthenticationOutcome.REJECTED, status=request.answer.status, reason="refused then")
        return attributes.authentication

    def answered(question: ProviderQuestion) -> ProviderAnswer:
        return ProviderAnswer(allowed=question.provider.name != request.provider)

    return explain(policies, _shown(request, has_custom=bool(policies.http.custom)), judged, answered)


def print_again(found: AsOf) -> None:
    """Print what was decided again, and every stage and rule of it."""
    out.say()
    if found.problem:
        out.say(f"cannot be decided again: {found.problem}", "bold")
        return
    again = found.again
    assert again is not None, "without a problem there is an answer"
    if again.answer is None:
        lacking = ", ".join(again.facts)
        out.say(f"by policy version {found.version} it cannot be said: the record lacks {lacking}", "bold")
    else:
        verdict = "as recorded" if found.is_same else "NOT as recorded: a fault of ours, or a fact that is in no record"
        out.say(f"decided again by policy version {found.version}: {again.answer}; {verdict}", "bold")
    if found.lacking:
        out.say(f"  not in the record, and below as if it had not been there: {', '.join(found.lacking)}")
    if found.explanation is not None:
        console = out.answers()
        out.print_lines(stage_lines(found.explanation), console)


def _shown(request: RecordedRequest, *, has_custom: bool) -> AttributeContext:
    """The request with headers that are unknown and not absent, where that refuses no question to a provider."""
    attributes = attributes_with_token(request)
    if attributes.http is None or has_custom:
        return attributes
    return replace(attributes, http=replace(attributes.http, is_partial=True))
