"""AuthorizationPolicy as written: its table of fields, and the checks that look at the policy as a whole."""

from typing import Any

from authz.core.resources import DRY_RUN_ANNOTATION, Action, AuthorizationPolicy, Metadata
from authz.documents import reading
from authz.documents.decoders import choice, objects, read_text
from authz.documents.reading import Node
from authz.documents.schema import Field, Notes, Shape, elements, filled, given, key_of, text_of
from authz.policy.targets import TARGET_FIELDS, annotation, check_target, target
from authz.policy.written_rules import IN_RULES, RULE, negated_name

MAX_RULES = 512
_ACTIONS = {action.value: action for action in Action}
_TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])
_NOT_FOR_CUSTOM = (
    *("namespaces", "principals", "requestPrincipals", "serviceAccounts", "trustDomains"),
    *("notNamespaces", "notPrincipals", "notRequestPrincipals", "notServiceAccounts", "notTrustDomains"),
)
_KEYS_NOT_FOR_CUSTOM = ("source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal")
_TCP_SOURCES = tuple(
    name
    for field in ("principals", "namespaces", "serviceAccounts", "ipBlocks", "remoteIpBlocks")
    for name in (field, negated_name(field))
)
_TCP_OPERATIONS = ("ports", "notPorts")


def _check_spec(node: reading.Mapping, notes: Notes) -> None:
    check_target(node, notes)
    rules = elements(given(node, "rules"))
    action = _action(node)
    if action is None:
        return
    if not rules and action in (Action.DENY, Action.CUSTOM) and not filled(node, "rules"):
        code = "VA-11" if action is Action.DENY else "VA-12"
        advice = "write `rules: [{}]` to match every request"
        notes.error(code, given(node, "action") or node, f"a {action} policy without rules matches nothing", advice)
    _check_provider(node, action, bool(rules), notes)
    for rule in rules:
        if action is Action.CUSTOM:
            _check_custom_rule(rule, notes)
        elif action is Action.DENY:
            _check_tcp(rule, notes)
    _check_repetition(rules, notes)


def _action(node: reading.Mapping) -> Action | None:
    """The action; None if what is written is not one."""
    written = given(node, "action")
    if written is None:
        return Action.ALLOW
    return _ACTIONS.get(text_of(written) or "")


def _check_provider(node: reading.Mapping, action: Action, has_rules: bool, notes: Notes) -> None:
    """Check that a provider is named where the action is CUSTOM, and nowhere else (VA-13)."""
    provider = given(node, "provider")
    name = given(provider, "name") if isinstance(provider, reading.Mapping) else None
    if action is not Action.CUSTOM:
        if provider is not None:
            message = f"`provider` is given with the action {action}"
            notes.error("VA-13", key_of(node, "provider"), message, "it is only for CUSTOM")
    elif has_rules and (provider is None or (isinstance(provider, reading.Mapping) and name is None)):
        advice = "give `provider.name`, one of the mesh's `extensionProviders`"
        notes.error("VA-13", provider or given(node, "action") or node, "a CUSTOM policy without a provider", advice)
    elif has_rules and text_of(name) == "":
        notes.error("VA-13", name or node, "the name of the provider is empty")


def _check_custom_rule(rule: Node, notes: Notes) -> None:
    """VA-14: a CUSTOM rule cannot use what is known only after CUSTOM has run, or is not sent to it."""
    if not isinstance(rule, reading.Mapping):
        return
    advice = "put the condition into a DENY or ALLOW policy beside this one"
    for source in _members(rule, "from", "source"):
        for name in filled(source, *_NOT_FOR_CUSTOM):
            notes.error("VA-14", key_of(source, name), f"a CUSTOM rule cannot use `{name}`", advice)
    for condition in elements(given(rule, "when")):
        key_node = given(condition, "key") if isinstance(condition, reading.Mapping) else None
        key = text_of(key_node) or ""
        if key_node is not None and (key in _KEYS_NOT_FOR_CUSTOM or key.startswith("request.auth.")):
            notes.error("VA-14", key_node, f"a CUSTOM rule cannot use `{key}`", advice)


def _check_tcp(rule: Node, notes: Notes) -> None:
    """VA-32: HTTP fields do not exist on TCP, so the rest of a DENY rule refuses more than is written (AP-70)."""
    if not isinstance(rule, reading.Mapping):
        return
    sources, operations = _members(rule, "from", "source"), _members(rule, "to", "operation")
    advice = "limit the rule with `ports`, or accept that plain TCP is refused"
    if operations:
        if not any(filled(operation, *_TCP_OPERATIONS) for operation in operations):
            notes.warn(
                "VA-32", key_of(rule, "to"), "without `ports` this DENY rule refuses all TCP traffic too", advice
            )
    elif sources and not filled(rule, "to") and not any(filled(source, *_TCP_SOURCES) for source in sources):
        message = "without a field that exists on TCP this DENY rule refuses all TCP traffic too"
        notes.warn("VA-32", key_of(rule, "from"), message, advice)


def _members(rule: reading.Mapping, name: str, inner: str) -> list[reading.Mapping]:
    found = []
    for entry in elements(given(rule, name)):
        member = given(entry, inner) if isinstance(entry, reading.Mapping) else None
        if isinstance(member, reading.Mapping):
            found.append(member)
    return found


def _check_repetition(rules: list[Node], notes: Notes) -> None:
    """VA-47: the same rule twice."""
    if len(rules) < 2:
        return
    first: dict[object, int] = {}
    for index, rule in enumerate(rules):
        before = first.setdefault(_shape_of(rule), index)
        if before != index:
            notes.warn("VA-47", rule, f"the same as rules[{before}]", "remove one of the two")


def _shape_of(node: Node) -> object:
    """Turn a node into a value that can be compared."""
    if isinstance(node, reading.Mapping):
        return tuple(sorted((name, _shape_of(child)) for name, child in node.entries.items()))
    if isinstance(node, reading.Sequence):
        return ("[]", *map(_shape_of, node.items))
    return ("", node.value)


def _check_dry_run(root: reading.Mapping, action: Action | None, notes: Notes) -> bool:
    """VA-8; returns whether the policy is a dry run (AP-86)."""
    found = annotation(root, DRY_RUN_ANNOTATION)
    if found is None:
        return False
    node, value = found
    if action in (Action.AUDIT, Action.CUSTOM):
        message = f"`{DRY_RUN_ANNOTATION}` is not supported with the action {action}"
        notes.error("VA-8", node, message, "remove the annotation")
    elif text_of(node) is not None and value not in _TRUE | _FALSE:
        notes.error("VA-8", node, f"`{value}` is neither true nor false", 'write `"true"` or `"false"`')
    return value in _TRUE


def _spec(**decoded: Any) -> dict[str, Any]:
    return decoded


_PROVIDER: Shape[str] = Shape("a provider", {"name": Field("name", read_text)}, lambda name="": name)
SPEC: Shape[dict[str, Any]] = Shape(
    "a spec",
    {
        **TARGET_FIELDS,
        "action": Field("action", choice(Action, "an action", "VA-9", Action.ALLOW)),
        "rules": Field("rules", objects(RULE, null_code="VA-15", most=MAX_RULES, most_code="VA-10")),
        "provider": Field("provider", _PROVIDER.decode),
    },
    _spec,
    _check_spec,
    negation="there is no negation of a whole policy; write the opposite `action`",
    elsewhere=IN_RULES,
)


def build_authorization_policy(
    root: reading.Mapping, metadata: Metadata, spec: dict[str, Any], notes: Notes
) -> AuthorizationPolicy:
    """Put the decoded parts together."""
    written = given(root, "spec")
    action = _action(written) if isinstance(written, reading.Mapping) else Action.ALLOW
    dry_run = _check_dry_run(root, action, notes)
    places = {name: spec.pop(name) for name in ("selector", "target_ref", "target_refs") if name in spec}
    if "target_ref" in places or "target_refs" in places:
        message = "target references are for gateways; no sidecar obeys this policy"
        if action is Action.DENY and not dry_run:
            advice = "select workloads with `selector`, unless the policy is for an Envoy of the Gateway API"
            notes.warn("RE-16", root, f"{message}, and nothing is denied by it", advice)
        else:
            notes.info("RE-16", root, message)
    return AuthorizationPolicy(metadata, target(**places), dry_run=dry_run, **spec)
