"""AuthorizationPolicy as written: its tables of fields, and the checks that look at more than one field."""

from collections.abc import Callable
from typing import Any

from authz.core.resources import (
    DRY_RUN_ANNOTATION,
    Action,
    AuthorizationPolicy,
    Condition,
    Metadata,
    Operation,
    Rule,
    Source,
)
from authz.policy import documents, values
from authz.policy.documents import Node
from authz.policy.schema import (
    Check,
    Field,
    Notes,
    Shape,
    choice,
    elements,
    filled,
    given,
    key_of,
    objects,
    read_text,
    text,
    text_of,
    texts,
)
from authz.policy.targets import TARGET_FIELDS, annotation, check_target, target

MAX_RULES = 512
MAX_SOURCES = 512
MAX_ACCOUNTS = 16
_ACTIONS = {action.value: action for action in Action}
_TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])
_not_empty = values.not_empty("VA-20")
_domain_stars = values.trust_domain_stars("VA-22")

_SOURCE_CHECKS: dict[str, tuple[Check, ...]] = {
    "principals": (_not_empty, values.principal),
    "requestPrincipals": (_not_empty, values.request_principal),
    "namespaces": (_not_empty,),
    "serviceAccounts": (values.service_account,),
    "trustDomains": (_not_empty, _domain_stars, values.trust_domain_slash),
    "ipBlocks": (_not_empty, values.ip_block),
    "remoteIpBlocks": (_not_empty, values.ip_block),
}
_OPERATION_CHECKS: dict[str, tuple[Check, ...]] = {
    "hosts": (_not_empty, values.middle_star),
    "ports": (_not_empty, values.port),
    "methods": (_not_empty, values.method),
    "paths": (_not_empty, values.path),
}
_VALUE_CHECKS: dict[str, tuple[Check, ...]] = {
    "source.principal": (values.principal,),
    "source.serviceAccount": (values.service_account,),
    "source.trustDomain": (values.trust_domain_stars("VA-23"),),
    "source.ip": (values.ip_block,),
    "remote.ip": (values.ip_block,),
    "destination.ip": (values.ip_block,),
    "destination.port": (values.port,),
    "connection.sni": (values.server_name,),
    "request.auth.principal": (values.request_principal,),
    "request.auth.audiences": (values.middle_star,),
    "request.auth.presenter": (values.middle_star,),
}
"""By key; the other keys take any value (AP-56)."""

_NOT_FOR_CUSTOM = (
    *("namespaces", "principals", "requestPrincipals", "serviceAccounts", "trustDomains"),
    *("notNamespaces", "notPrincipals", "notRequestPrincipals", "notServiceAccounts", "notTrustDomains"),
)
_KEYS_NOT_FOR_CUSTOM = ("source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal")
_WITH_ACCOUNTS = ("principals", "notPrincipals", "namespaces", "notNamespaces")


def _negated(name: str) -> str:
    """``paths`` and its negation ``notPaths`` (AP-13)."""
    return "not" + name[0].upper() + name[1:]


_TCP_SOURCES = tuple(
    name
    for field in ("principals", "namespaces", "serviceAccounts", "ipBlocks", "remoteIpBlocks")
    for name in (field, _negated(field))
)
_TCP_OPERATIONS = ("ports", "notPorts")


def _attribute(name: str) -> str:
    """``notRemoteIpBlocks`` as Python spells it."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def _twins(checks: dict[str, tuple[Check, ...]]) -> dict[str, Field]:
    """Every field with its negation (AP-13)."""
    fields = {}
    for name, own in checks.items():
        decode = texts(*own, most=MAX_ACCOUNTS, most_code="VA-19") if name == "serviceAccounts" else texts(*own)
        for written in (name, _negated(name)):
            fields[written] = Field(_attribute(written), decode)
    return fields


# --- one field after the other ---------------------------------------------------------------------------------------


def _check_source(node: documents.Mapping, notes: Notes) -> None:
    _check_contradiction(node, _SOURCE_CHECKS, notes)
    accounts = filled(node, "serviceAccounts", "notServiceAccounts")
    others = filled(node, *_WITH_ACCOUNTS)
    if accounts and others:
        message = f"`{accounts[0]}` and `{others[0]}` cannot be combined in one source"
        notes.error("VA-18", key_of(node, accounts[0]), message, "write two entries under `from`")


def _check_operation(node: documents.Mapping, notes: Notes) -> None:
    _check_contradiction(node, _OPERATION_CHECKS, notes)


def _check_contradiction(node: documents.Mapping, names: dict[str, tuple[Check, ...]], notes: Notes) -> None:
    """VA-47: every value of a field is excluded by its negation."""
    entries = node.entries
    for name in names:
        if name in entries and _negated(name) in entries:
            _compare_twins(node, name, _negated(name), notes)


def _compare_twins(node: documents.Mapping, name: str, negated: str, notes: Notes) -> None:
    wanted = {text_of(item) for item in elements(given(node, name))}
    if wanted and wanted <= {text_of(item) for item in elements(given(node, negated))}:
        message = f"never matches: every value of `{name}` is also in `{negated}`"
        notes.warn("VA-47", key_of(node, negated), message)


_SOURCE: Shape[Source] = Shape("a source", _twins(_SOURCE_CHECKS), Source, _check_source)
_OPERATION: Shape[Operation] = Shape("an operation", _twins(_OPERATION_CHECKS), Operation, _check_operation)


def _only(inner: str, what: str, code: str) -> Callable[[documents.Mapping, Notes], None]:
    """VA-17 and VA-21: the one member is there and says something."""

    def check(node: documents.Mapping, notes: Notes) -> None:
        member = given(node, inner)
        if member is None:
            if set(node.entries) <= {inner}:
                notes.error(code, node, f"{what} without `{inner}` would match everything", "remove the whole entry")
        elif isinstance(member, documents.Mapping) and not filled(member):
            notes.error(code, member, f"an empty {inner} would match everything", f"give the {inner} a field")

    return check


_FROM: Shape[Source] = Shape(
    "an entry of `from`",
    {"source": Field("source", _SOURCE.decode)},
    lambda source=Source(): source,  # noqa: B008  # a frozen value
    _only("source", "an entry of `from`", "VA-17"),
)
_TO: Shape[Operation] = Shape(
    "an entry of `to`",
    {"operation": Field("operation", _OPERATION.decode)},
    lambda operation=Operation(): operation,  # noqa: B008  # a frozen value
    _only("operation", "an entry of `to`", "VA-21"),
)


def _check_condition(node: documents.Mapping, notes: Notes) -> None:
    key_node = given(node, "key")
    key = text_of(key_node) if key_node is not None else None
    if key_node is None:
        notes.error("VA-28", node, "a condition without a key", "name the attribute, for example `source.ip`")
    if not filled(node, "values", "notValues"):
        notes.error("VA-29", node, "a condition needs `values` or `notValues`")
    _check_contradiction(node, {"values": ()}, notes)
    checks = _VALUE_CHECKS.get(key or "", ())
    for name in ("values", "notValues"):
        listed = elements(given(node, name))
        if key == "source.serviceAccount" and len(listed) > MAX_ACCOUNTS:
            message = f"has {len(listed)} values, at most {MAX_ACCOUNTS} are allowed"
            notes.error("VA-19", node.entries[name], message)
        for item in listed:
            value = text_of(item)
            for check in checks if value else ():
                fault = check(value or "")
                if fault is not None:
                    notes.fault(item, fault)
                    break


_VALUES = texts(values.not_empty("VA-29"))
_CONDITION: Shape[Condition] = Shape(
    "a condition",
    {
        "key": Field("key", text(values.condition_key)),
        "values": Field("values", _VALUES),
        "notValues": Field("not_values", _VALUES),
    },
    lambda key="", **others: Condition(key, **others),
    _check_condition,
    is_located=True,
)
_RULE: Shape[Rule] = Shape(
    "a rule",
    {
        "from": Field("sources", objects(_FROM, null_code="VA-15", most=MAX_SOURCES, most_code="VA-10")),
        "to": Field("operations", objects(_TO, null_code="VA-15")),
        "when": Field("conditions", objects(_CONDITION, null_code="VA-15")),
    },
    Rule,
    is_located=True,
)


# --- the policy as a whole -------------------------------------------------------------------------------------------


def _check_spec(node: documents.Mapping, notes: Notes) -> None:
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


def _action(node: documents.Mapping) -> Action | None:
    """The action, None when what is written is none."""
    written = given(node, "action")
    if written is None:
        return Action.ALLOW
    return _ACTIONS.get(text_of(written) or "")


def _check_provider(node: documents.Mapping, action: Action, has_rules: bool, notes: Notes) -> None:
    """VA-13."""
    provider = given(node, "provider")
    name = given(provider, "name") if isinstance(provider, documents.Mapping) else None
    if action is not Action.CUSTOM:
        if provider is not None:
            message = f"`provider` is given with the action {action}"
            notes.error("VA-13", key_of(node, "provider"), message, "it is only for CUSTOM")
    elif has_rules and (provider is None or (isinstance(provider, documents.Mapping) and name is None)):
        advice = "give `provider.name`, one of the mesh's `extensionProviders`"
        notes.error("VA-13", provider or given(node, "action") or node, "a CUSTOM policy without a provider", advice)
    elif has_rules and text_of(name) == "":
        notes.error("VA-13", name or node, "the name of the provider is empty")


def _check_custom_rule(rule: Node, notes: Notes) -> None:
    """VA-14: what is known only after CUSTOM has run, or is not sent to it."""
    if not isinstance(rule, documents.Mapping):
        return
    advice = "put the condition into a DENY or ALLOW policy beside this one"
    for source in _members(rule, "from", "source"):
        for name in filled(source, *_NOT_FOR_CUSTOM):
            notes.error("VA-14", key_of(source, name), f"a CUSTOM rule cannot use `{name}`", advice)
    for condition in elements(given(rule, "when")):
        key_node = given(condition, "key") if isinstance(condition, documents.Mapping) else None
        key = text_of(key_node) or ""
        if key_node is not None and (key in _KEYS_NOT_FOR_CUSTOM or key.startswith("request.auth.")):
            notes.error("VA-14", key_node, f"a CUSTOM rule cannot use `{key}`", advice)


def _check_tcp(rule: Node, notes: Notes) -> None:
    """VA-32: HTTP fields do not exist on TCP, so that the rest of a DENY rule refuses more than is written (AP-70)."""
    if not isinstance(rule, documents.Mapping):
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


def _members(rule: documents.Mapping, name: str, inner: str) -> list[documents.Mapping]:
    found = []
    for entry in elements(given(rule, name)):
        member = given(entry, inner) if isinstance(entry, documents.Mapping) else None
        if isinstance(member, documents.Mapping):
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
    """What a node says, as a value that can be compared."""
    if isinstance(node, documents.Mapping):
        return tuple(sorted((name, _shape_of(child)) for name, child in node.entries.items()))
    if isinstance(node, documents.Sequence):
        return ("[]", *map(_shape_of, node.items))
    return ("", node.value)


def _check_dry_run(root: documents.Mapping, action: Action | None, notes: Notes) -> bool:
    """VA-8; answers whether the policy is a dry run (AP-86)."""
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
        "rules": Field("rules", objects(_RULE, null_code="VA-15", most=MAX_RULES, most_code="VA-10")),
        "provider": Field("provider", _PROVIDER.decode),
    },
    _spec,
    _check_spec,
)


def build_authorization_policy(
    root: documents.Mapping, metadata: Metadata, spec: dict[str, Any], notes: Notes
) -> AuthorizationPolicy:
    """Put the decoded parts together."""
    written = given(root, "spec")
    action = _action(written) if isinstance(written, documents.Mapping) else Action.ALLOW
    dry_run = _check_dry_run(root, action, notes)
    places = {name: spec.pop(name) for name in ("selector", "target_ref", "target_refs") if name in spec}
    if "target_ref" in places or "target_refs" in places:
        notes.info("RE-16", root, "target references are for gateways; no sidecar obeys this policy")
    return AuthorizationPolicy(metadata, target(**places), dry_run=dry_run, **spec)
