"""What is said beside a decision: mTLS, tokens, ports, rules that nearly fired, what a header of claims holds."""

from collections.abc import Iterator

from authz.analysis.traps.intents import opens_some, parted
from authz.cli.question import Explained
from authz.cli.terminal import place
from authz.core.attributes import Json, Unknown
from authz.core.catalog import Voucher
from authz.core.decision import Decision, Stage
from authz.core.explain import PredicateNote, RuleNote, nearest_miss
from authz.core.resources import Action
from authz.core.stage_words import mtls_in_words, token_in_words


def notes_of(answer: Explained, decision: Decision) -> Iterator[tuple[str, str]]:
    """What to know about mTLS, tokens, ports and paths, each by its name."""
    policies, before = answer.policies, answer.before
    if policies.port_modes or decision.stage is Stage.PEER_AUTHENTICATION:
        yield "mTLS", mtls_in_words(policies, before)
    if policies.jwt_rules and before.http is not None and answer.explanation.attributes.authentication.token is None:
        yield from (("token", text) for text in _without_token(answer, decision))
    asked = {note.key for note in (answer.explanation.nearest.failed if answer.explanation.nearest else ())}
    if isinstance(before.destination.port, Unknown) and ("destination.port" in asked or policies.port_modes):
        yield "port", "not given, and unknown is not absent; say which with --port"
    yield from _alternatives(answer, decision)
    yield from _missed(answer, decision)
    if decision.stage is Stage.ALLOW and not decision.is_allowed and answer.explanation.nearest is None:
        yield "arrival", "policies are asked where a request arrives; what the workload itself calls is not (EV-9)"
    if decision.stage is Stage.NORMALIZATION:
        yield "path", "Envoy answers 400 to a raw blank, a control character or text that is not ASCII; encode it"
    if not decision.is_allowed and (wide := _mesh_wide(answer, decision)):
        yield "scope", f"{wide} is in the root namespace and has no selector, so it applies to every workload (RE-15)"
    if decision.stage is Stage.DEFAULT and decision.audit:
        yield "AUDIT", "it only marks the request; refusing takes a DENY policy"
    if decision.stage is Stage.DENY and before.http is None:
        yield "TCP", "on TCP the HTTP conditions of a DENY rule are left out, and the rest of it stands (AP-70)"


def _mesh_wide(answer: Explained, decision: Decision) -> str:
    """The policy that decided or came closest, if it is mesh-wide and the workload is in another namespace."""
    nearest, root = answer.explanation.nearest, answer.engine.mesh.root_namespace
    rule = decision.rule or (nearest.reference if nearest is not None else None)
    if answer.before.destination.workload.namespace == root or (rule is not None and rule.namespace != root):
        return ""
    for policy in answer.engine.resources.authorization_policies:
        name, target = policy.metadata.name, policy.target
        is_it = policy.action is Action.ALLOW and not policy.rules if rule is None else name == rule.policy
        if policy.metadata.namespace == root and is_it and not (target.match_labels or target.target_refs):
            return f"{root}/{name}"
    return ""


def _without_token(answer: Explained, decision: Decision) -> Iterator[str]:
    """What came of tokens, where none was accepted."""
    policies, seen = answer.policies, answer.explanation.attributes
    sought = token_in_words(policies, seen)
    if decision.stage is Stage.DEFAULT:
        sent = f"; {sought}" if seen.header("authorization") else ""
        yield f"none, and none is required: RequestAuthentication alone admits requests without one (RA-3){sent}"
    elif decision.stage is Stage.CUSTOM and seen.header("authorization"):
        yield "not verified: CUSTOM policies are asked before tokens are (EV-2)"
    elif decision.stage is Stage.JWT and policies.policies:
        yield "a bad one is refused before any AuthorizationPolicy is asked, whatever the path (EV-3)"
    elif asks_for_token(answer, decision):
        is_missing = not decision.is_allowed and sought.startswith("no token at ") and not seen.header("authorization")
        yield sought + (": a missing one is refused by policies with 403, a bad one with 401" if is_missing else "")


def _alternatives(answer: Explained, decision: Decision) -> Iterator[tuple[str, str]]:
    """A rule that asks nothing of the caller decided, beside one that asks only who the caller is (AP-9)."""
    rule = decision.rule
    if rule is None:
        return
    for policy in answer.engine.resources.authorization_policies:
        is_its = (policy.metadata.namespace, policy.metadata.name) == (rule.namespace, rule.policy)
        is_found = policy.action is Action.ALLOW and is_its and not opens_some(policy.rules[rule.index])  # AN-25
        if is_its and not is_found and rule.index in parted(policy.rules):
            yield "rules", "each dash begins a rule, and one is enough: this one asks nothing of the caller (AP-9)"


def _missed(answer: Explained, decision: Decision) -> Iterator[tuple[str, str]]:
    """The DENY rule that nearly fired, where there is more to say than that values differ."""
    nearest: RuleNote | None = None
    if decision.is_allowed:
        nearest = nearest_miss(answer.policies, answer.explanation.attributes, Action.DENY)
    if nearest is not None and any(note.note for note in nearest.failed):
        yield "no DENY", place(nearest.reference)
        yield from (("", str(note)) for note in nearest.failed)


def form_of(header: str, answer: Explained) -> str:
    """How a claim is written to a header that is set, where that is not the claim's own text (RA-47, RA-48)."""
    token = answer.explanation.attributes.authentication.token
    if token is None:
        return ""
    for rule in answer.policies.jwt_rules:
        if rule.output_payload_to_header.lower() == header.lower():
            return " (base64 of the claims)"
        for output in rule.output_claim_to_headers:
            value: Json = dict(token.claims)
            for step in output.claim.split("."):
                value = value.get(step) if isinstance(value, dict) else None
            if output.header.lower() == header.lower() and isinstance(value, dict | list):
                return f" (base64 of JSON: `{output.claim}` is {'a list' if isinstance(value, list) else 'an object'})"
    return ""


def asks_for_token(answer: Explained, decision: Decision) -> bool:
    """Whether the rule that decided or came closest asks for something of a token."""
    nearest = answer.explanation.nearest
    asked = nearest.failed if nearest is not None else fired(answer, decision)
    return any(note.voucher == Voucher.TOKEN.value for note in asked)


def fired(answer: Explained, decision: Decision) -> tuple[PredicateNote, ...]:
    """What held in the rule that decided."""
    notes = [note for stage in answer.explanation.stages for note in stage.rules]
    found = next((note for note in notes if note.fired and note.reference == decision.rule), None)
    return found.held if found is not None else ()
