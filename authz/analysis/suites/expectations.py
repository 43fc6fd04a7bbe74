"""Compare what a case expects with what came of it, key by key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from authz.analysis.offline.request import UNUSABLE_PATH
from authz.analysis.suites.placeholders import substitute_tokens
from authz.analysis.suites.suite import Case, Upstream
from authz.core.attributes import AttributeContext, Json
from authz.core.decision import Decision, DryRunResult, Effect


@dataclass(frozen=True, slots=True)
class Comparison:
    """One expected key. Values are JSON; ``actual`` of a header that is not there is None."""

    key: str
    expected: Json
    actual: Json

    @property
    def agrees(self) -> bool:
        """Whether what came is what was expected."""
        return self.expected == self.actual


def compare(
    case: Case, decision: Decision, before: AttributeContext, tokens: Mapping[str, str]
) -> Iterator[Comparison]:
    """Compare every key that the case expects; ``before`` is the request as Envoy would ask about it."""
    for key, expected in case.expect.items():
        yield Comparison(key, expected, _actual(key, expected, decision, before))
    if case.upstream is not None:
        yield from _upstream(case.upstream, decision, before, tokens)


def _actual(key: str, expected: Json, decision: Decision, before: AttributeContext) -> Json:
    """The value of one key of ``expect``."""
    match key:
        case "decision":
            return decision.effect.value
        case "status":
            return decision.status
        case "stage":
            return decision.stage.value
        case "by":
            return decision.rule.short if decision.rule else None
        case "reported":
            return decision.rule.name if decision.rule else None
        case "body":
            return decision.body
        case "wwwAuthenticate":
            return dict(decision.headers).get("www-authenticate")
        case "audit":
            return decision.audit
        case "dryRunAllow":
            return _dry_run(decision.dry_run_allow, expected)
        case "dryRunDeny":
            return _dry_run(decision.dry_run_deny, expected)
        case "normalizedPath":
            path = before.http.path if before.http is not None else None
            return None if path == UNUSABLE_PATH else path
        case _:
            raise AssertionError(f"unknown key of expect: {key}")


def _dry_run(result: DryRunResult | None, expected: Json) -> Json:
    """AP-88; only the members that are expected."""
    if result is None:
        return None
    actual: dict[str, Json] = {
        "result": "allowed" if result.effect is Effect.ALLOW else "denied",
        "by": result.rule.short if result.rule else None,
    }
    return {name: actual[name] for name in expected} if isinstance(expected, dict) and expected else actual


def _upstream(
    upstream: Upstream, decision: Decision, before: AttributeContext, tokens: Mapping[str, str]
) -> Iterator[Comparison]:
    """Compare what Envoy would forward, made from the request and the obligations as Envoy applies them."""
    seen = forwarded_headers(decision, before)
    for name, value in upstream.present.items():
        expected = substitute_tokens(value, tokens)
        values = seen.get(name)
        yield Comparison(f"upstream.present.{name}", expected, ",".join(values) if values is not None else None)
    for name in upstream.absent:
        values = seen.get(name)
        yield Comparison(f"upstream.absent.{name}", None, ",".join(values) if values is not None else None)


def forwarded_headers(decision: Decision, before: AttributeContext) -> dict[str, tuple[str, ...]]:
    """The headers the upstream sees: obligations applied to the request; nothing is forwarded on a denial."""
    if before.http is None or not decision.is_allowed:
        return {}
    duties = decision.obligations
    headers = dict(before.http.headers)
    for name, value in duties.headers_to_set:
        headers[name] = (value,)
    for name in duties.headers_to_remove:
        headers.pop(name, None)
    if duties.rewritten_path is not None:
        headers[":path"] = (duties.rewritten_path,)
    return headers
