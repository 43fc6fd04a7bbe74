"""``authz check``: decide one request."""

from collections.abc import Iterator
from typing import Any

import click

from authz.analysis.offline.as_json import decision_json, rule_note_json
from authz.analysis.offline.passed_over import passed_over
from authz.analysis.offline.request import UNUSABLE_PATH
from authz.cli import terminal as out
from authz.cli.beside import asks_for_token, fired, form_of, notes_of
from authz.cli.near_findings import near_findings
from authz.cli.question import Explained, ask
from authz.cli.request_options import request_options
from authz.core.attributes import AttributeContext, Json, Unknown
from authz.core.catalog import Voucher
from authz.core.decision import Decision, DryRunResult, Effect, RuleReference, Stage
from authz.core.resources import Action
from authz.core.uncollected import WithoutCollector


@click.command("check", short_help="Decide one request.")
@request_options
@out.answer_form("text", "json")
def command(output: str, **options: Any) -> None:
    """
    Decide one request as the running service would (exit 0: allowed, 3: denied).

    \b
    authz check -p policies/ -n shop -l app=cart --method POST --path /cart \\
        --source-principal cluster.local/ns/shop/sa/web
    authz check -p policies/ --mesh mesh.yaml --to cart-v1 --from web-v1 --path /cart
    authz check -p policies/ -n shop --path /cart --claims '{"iss": "https://idp", "sub": "ann"}'
    authz check -p policies/ -f request.yaml -o json
    """
    with WithoutCollector(for_good=True):
        answer = ask(options, every_rule=False)
    decision = answer.explanation.decision
    if output == "json":
        out.print_json(as_json(answer))
    else:
        print_decision(answer)
    raise SystemExit(out.Exit.YES if decision.is_allowed else out.Exit.NO)


def as_json(answer: Explained) -> dict[str, Json]:
    """The decision with the documented fields (docs/cli.md)."""
    nearest = answer.explanation.nearest
    found = decision_json(answer.explanation.decision)
    found["nearest"] = rule_note_json(nearest) if nearest is not None else None
    return {**found, **help_json(answer)}


def help_json(answer: Explained) -> dict[str, Json]:
    """What people are told beside the decision, as text for each field; empty lists where there is nothing to tell."""
    decision = answer.explanation.decision
    told: dict[str, list[Json]] = {}
    about = ""
    for name, text in notes_of(answer, decision):
        about = name or about
        told.setdefault(about, []).append(text)
    return {
        "because": list(_because(answer, decision)) if decision.rule is not None else [],
        "findings": [out.problem_json(problem) for problem in near_findings(answer)],
        "not_here": list(_not_here(answer, decision)),
        "notes": dict(told),
    }


def print_decision(answer: Explained) -> None:
    """Print the decision for people: the answer first, then what it rests on."""
    decision = answer.explanation.decision
    status = f" ({decision.status})" if decision.status else ""
    style = "bold green" if decision.is_allowed else "bold red"
    out.say(f"{decision.effect}{status} at stage {decision.stage}: {decision.reason}", style)
    for name, text in (*_facts(answer, decision), *_context(answer, decision)):
        out.say(f"  {name + ':' if name else '':<10}{text}")
    if decision.stage is Stage.PEER_AUTHENTICATION and not answer.before.source.identities:
        out.remark("help: the request has no identity; name the caller with --source-principal, or --from with --mesh")


def _facts(answer: Explained, decision: Decision) -> list[tuple[str, str]]:
    facts = [("request", describe(answer.before)), ("workload", describe_workload(answer))]
    if decision.rule is not None:
        facts.append(("rule", out.place(decision.rule)))
        facts.extend(("because" if at == 0 else "", text) for at, text in enumerate(_because(answer, decision)))
    nearest = answer.explanation.nearest
    if nearest is not None:
        facts.append(("closest", out.place(nearest.reference)))
        facts.extend(("", str(note)) for note in nearest.failed)
    elif decision.stage is Stage.ALLOW and not decision.is_allowed:
        facts.append(("closest", _no_rules(answer)))
    token = answer.explanation.attributes.authentication.token
    if token is not None:
        facts.append(("token", f"{token.issuer}/{token.subject}, accepted by {token.rule}"))
    duties = decision.obligations
    changes = [f"set {name}{form_of(name, answer)}" for name, _ in duties.headers_to_set]
    changes += [f"remove {name}" for name in duties.headers_to_remove]
    changes += [f"remove parameter {name}" for name in duties.query_parameters_to_remove]
    if changes and decision.is_allowed:
        facts.append(("forward", ", ".join(changes)))
    if decision.audit is not None:
        facts.append(("audit", f"{str(decision.audit).lower()}{_by(decision.audit_rule)}"))
    for name, result in (("ALLOW", decision.dry_run_allow), ("DENY", decision.dry_run_deny)):
        if result is not None:
            facts.append(("dry run", f"{name} policies would have {_dry_run(result)}"))
    return facts


def _no_rules(answer: Explained) -> str:
    """Why there is no rule to be close to."""
    if answer.before.http is None:
        return "none: on TCP an ALLOW rule with any HTTP condition is left out (AP-69)"
    allow = [policy for policy in answer.policies.policies if policy.action is Action.ALLOW and not policy.dry_run]
    names = ", ".join(f"{policy.namespace}/{policy.name}" for policy in allow)
    return f"none: {names} has no rules and so allows nothing; only another ALLOW policy admits (AP-4)"


def _context(answer: Explained, decision: Decision) -> Iterator[tuple[str, str]]:
    """What is not in the decision itself but may be its cause: mTLS, a token that nobody wants, absent policies."""
    notes = list(notes_of(answer, decision))
    yield from (note for note in notes if note[0] in ("mTLS", "token"))
    for problem in near_findings(answer):
        yield "finding", f"{problem.message} [{problem.code}]{f'; {problem.help}' if problem.help else ''}"
    yield from (note for note in notes if note[0] not in ("mTLS", "token"))
    over = _not_here(answer, decision)
    for at, text in enumerate(over[:MAX_PASSED_OVER]):
        yield "" if at else "not here", text
    if len(over) > MAX_PASSED_OVER:
        yield "", f"and {len(over) - MAX_PASSED_OVER} more that do not apply"


def _not_here(answer: Explained, decision: Decision) -> list[str]:
    """Objects that do not apply, where that may explain the decision; nearest first."""
    policies, workload = answer.policies, answer.before.destination.workload
    if decision.stage is Stage.DEFAULT or not policies.policies:
        return passed_over(answer.engine, workload)
    if not policies.jwt_rules and asks_for_token(answer, decision):
        return passed_over(answer.engine, workload, only_tokens=True)
    return []


MAX_PASSED_OVER = 5
"""Objects that do not apply and are named."""


def _because(answer: Explained, decision: Decision) -> Iterator[str]:
    """What a DENY rule found, or one with alternatives; of others only what held by absence (AP-16) or by
    one of several values, of which some people want all (AP-12)."""
    explains_all = decision.stage is Stage.DENY or _has_alternatives(answer, decision.rule)
    for note in fired(answer, decision):
        is_one_of_several = note.voucher == Voucher.TOKEN.value and len(note.expected) > 1
        if explains_all or is_one_of_several or note.absence or not note.expected:
            yield str(note)


def _has_alternatives(answer: Explained, rule: RuleReference | None) -> bool:
    """Whether the rule has several entries under `from` or `to`, so that one does not see at once which held."""
    return any(
        len(compiled.sources) > 1 or len(compiled.operations) > 1
        for policy in answer.policies.policies
        for compiled in policy.http_rules
        if rule is not None and compiled.reference == rule
    )


def _dry_run(result: DryRunResult) -> str:
    return f"{'allowed' if result.effect is Effect.ALLOW else 'denied'}{_by(result.rule)}"


def _by(rule: RuleReference | None) -> str:
    return f" by {out.place(rule)}" if rule is not None else ""


def describe(attributes: AttributeContext) -> str:
    """One line about what was asked; the query is not shown, since it may hold a token."""
    destination, http = attributes.destination, attributes.http
    who = attributes.source.principal or "no identity"
    port = "an unknown port" if isinstance(destination.port, Unknown) else f"port {destination.port}"
    if http is None:
        return f"TCP connection to {port}, from {who}"
    path = " with a path that Envoy refuses" if http.path == UNUSABLE_PATH else http.url_path
    return f"{http.method} {http.host}{path} to {port}, from {who}"


def describe_workload(answer: Explained) -> str:
    """One line about the workload and how many policies apply to it."""
    workload = answer.before.destination.workload
    labels = ",".join(f"{name}={value}" for name, value in sorted(workload.labels)) or "no labels"
    applying = out.count(len(answer.policies.policies), "AuthorizationPolicy", "AuthorizationPolicies")
    jwt_rules = out.count(len(answer.policies.jwt_rules), "JWT rule")
    return f"{workload.namespace} ({labels}), for which {applying} and {jwt_rules} apply"
