"""``authz check``: decide one request."""

from typing import Any

import click

from authz.analysis.offline.render import decision_json, rule_note_json
from authz.analysis.offline.request import UNUSABLE_PATH
from authz.cli import output as out
from authz.cli.question import Answer, ask
from authz.cli.report import place
from authz.cli.request_options import request_options
from authz.core.attributes import AttributeContext, Json, Unknown
from authz.core.decision import Decision, DryRunResult, Effect, RuleReference, Stage
from authz.service.loading.garbage import without_collector


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
    with without_collector():
        answer = ask(options)
    decision = answer.explanation.decision
    if output == "json":
        out.print_json(as_json(answer))
    else:
        print_decision(answer)
    raise SystemExit(out.Exit.YES if decision.is_allowed else out.Exit.NO)


def as_json(answer: Answer) -> dict[str, Json]:
    """The decision with the documented fields (docs/cli.md)."""
    nearest = answer.explanation.nearest
    found = decision_json(answer.explanation.decision)
    found["nearest"] = rule_note_json(nearest) if nearest is not None else None
    return found


def print_decision(answer: Answer) -> None:
    """Print the decision for people: the answer first, then what it rests on."""
    decision = answer.explanation.decision
    status = f" ({decision.status})" if decision.status else ""
    style = "bold green" if decision.is_allowed else "bold red"
    out.say(f"{decision.effect}{status} at stage {decision.stage}: {decision.reason}", style)
    for name, text in _facts(answer, decision):
        out.say(f"  {name + ':' if name else '':<10}{text}")
    if decision.stage is Stage.PEER_AUTHENTICATION and not answer.before.source.identities:
        out.remark("help: the request has no identity; say who asks with --source-principal, or --from with --mesh")


def _facts(answer: Answer, decision: Decision) -> list[tuple[str, str]]:
    facts = [("request", describe(answer.before)), ("workload", describe_workload(answer))]
    if decision.rule is not None:
        facts.append(("rule", place(decision.rule)))
    nearest = answer.explanation.nearest
    if nearest is not None:
        facts.append(("closest", place(nearest.reference)))
        facts.extend(("", str(note)) for note in nearest.failed)
    token = answer.explanation.attributes.authentication.token
    if token is not None:
        facts.append(("token", f"{token.issuer}/{token.subject}, accepted by {token.rule}"))
    duties = decision.obligations
    changes = [f"set {name}" for name, _ in duties.headers_to_set]
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


def _dry_run(result: DryRunResult) -> str:
    return f"{'allowed' if result.effect is Effect.ALLOW else 'denied'}{_by(result.rule)}"


def _by(rule: RuleReference | None) -> str:
    return f" by {place(rule)}" if rule is not None else ""


def describe(attributes: AttributeContext) -> str:
    """One line about what was asked; the query is not shown, since it may hold a token."""
    destination, http = attributes.destination, attributes.http
    who = attributes.source.principal or "no identity"
    port = "an unknown port" if isinstance(destination.port, Unknown) else f"port {destination.port}"
    if http is None:
        return f"TCP connection to {port}, from {who}"
    path = " with a path that Envoy refuses" if http.path == UNUSABLE_PATH else http.url_path
    return f"{http.method} {http.host}{path} to {port}, from {who}"


def describe_workload(answer: Answer) -> str:
    """One line about the workload and how many policies apply to it."""
    workload = answer.before.destination.workload
    labels = ",".join(f"{name}={value}" for name, value in sorted(workload.labels)) or "no labels"
    applying = out.count(len(answer.policies.policies), "AuthorizationPolicy", "AuthorizationPolicies")
    jwt_rules = out.count(len(answer.policies.jwt_rules), "JWT rule")
    return f"{workload.namespace} ({labels}), for which {applying} and {jwt_rules} apply"
