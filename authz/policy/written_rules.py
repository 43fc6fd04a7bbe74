"""A rule of an AuthorizationPolicy as written: `from`, `to` and `when`, field after field."""

from collections.abc import Callable, Iterable

from authz.core.resources import Condition, Operation, Rule, Source
from authz.documents import reading
from authz.documents.decoders import objects, text, texts
from authz.documents.schema import Check, Field, Notes, Shape, elements, filled, given, key_of, text_of
from authz.policy import value_checks

MAX_SOURCES = 512
MAX_ACCOUNTS = 16
_not_empty = value_checks.not_empty("VA-20")
_domain_stars = value_checks.trust_domain_stars("VA-22")

_SOURCE_CHECKS: dict[str, tuple[Check, ...]] = {
    "principals": (_not_empty, value_checks.principal),
    "requestPrincipals": (_not_empty, value_checks.request_principal),
    "namespaces": (_not_empty,),
    "serviceAccounts": (value_checks.service_account,),
    "trustDomains": (_not_empty, _domain_stars, value_checks.trust_domain_slash),
    "ipBlocks": (_not_empty, value_checks.ip_block),
    "remoteIpBlocks": (_not_empty, value_checks.ip_block),
}
_OPERATION_CHECKS: dict[str, tuple[Check, ...]] = {
    "hosts": (_not_empty, value_checks.middle_star),
    "ports": (_not_empty, value_checks.port),
    "methods": (_not_empty, value_checks.method),
    "paths": (_not_empty, value_checks.path),
}
_VALUE_CHECKS: dict[str, tuple[Check, ...]] = {
    "source.principal": (value_checks.principal,),
    "source.serviceAccount": (value_checks.service_account,),
    "source.trustDomain": (value_checks.trust_domain_stars("VA-23"),),
    "source.ip": (value_checks.ip_block,),
    "remote.ip": (value_checks.ip_block,),
    "destination.ip": (value_checks.ip_block,),
    "destination.port": (value_checks.port,),
    "connection.sni": (value_checks.server_name,),
    "request.auth.principal": (value_checks.request_principal,),
    "request.auth.audiences": (value_checks.middle_star,),
    "request.auth.presenter": (value_checks.middle_star,),
}
"""Checks by key; the other keys take any value (AP-56)."""

_WITH_ACCOUNTS = ("principals", "notPrincipals", "namespaces", "notNamespaces")


def negated_name(name: str) -> str:
    """``paths`` and its negation ``notPaths`` (AP-13)."""
    return "not" + name[0].upper() + name[1:]


def _attribute(name: str) -> str:
    """``notRemoteIpBlocks`` as Python spells it."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def _twins(checks: dict[str, tuple[Check, ...]]) -> dict[str, Field]:
    """Every field with its negation (AP-13)."""
    fields = {}
    for name, own in checks.items():
        decode = texts(*own, most=MAX_ACCOUNTS, most_code="VA-19") if name == "serviceAccounts" else texts(*own)
        for written in (name, negated_name(name)):
            fields[written] = Field(_attribute(written), decode)
    return fields


def _check_source(node: reading.Mapping, notes: Notes) -> None:
    _check_contradiction(node, _SOURCE_CHECKS, notes)
    # Presence counts, as in the CRD's rule: an empty list is present.
    accounts = [name for name in ("serviceAccounts", "notServiceAccounts") if given(node, name) is not None]
    others = [name for name in _WITH_ACCOUNTS if given(node, name) is not None]
    if accounts and others:
        message = f"`{accounts[0]}` and `{others[0]}` cannot be combined in one source"
        notes.error("VA-18", key_of(node, accounts[0]), message, "write two entries under `from`")


def _check_operation(node: reading.Mapping, notes: Notes) -> None:
    _check_contradiction(node, _OPERATION_CHECKS, notes)


def _check_contradiction(node: reading.Mapping, names: dict[str, tuple[Check, ...]], notes: Notes) -> None:
    """VA-47: every value of a field is excluded by its negation."""
    entries = node.entries
    for name in names:
        if name in entries and negated_name(name) in entries:
            _compare_twins(node, name, negated_name(name), notes)


def _compare_twins(node: reading.Mapping, name: str, negated: str, notes: Notes) -> None:
    wanted = {text_of(item) for item in elements(given(node, name))}
    if wanted and wanted <= {text_of(item) for item in elements(given(node, negated))}:
        message = f"never matches: every value of `{name}` is also in `{negated}`"
        notes.warn("VA-47", key_of(node, negated), message)


_NEGATED_FIELDS = "every field has its negation, for example `notPrincipals` or `notPaths`"
_NEGATED_SOURCE = "to negate write `source: {notPrincipals: …}`, or another field that begins with `not`"
_NEGATED_OPERATION = "to negate write `operation: {notPaths: …}`, or another field that begins with `not`"
_NEGATED_RULE = "to negate write `notPrincipals`, `notPaths` or `notValues` inside `from`, `to` or `when`"
_NEGATED_CONDITION = "to negate write `notValues`"


def _belongs(checks: Iterable[str], where: str) -> dict[str, str]:
    """Where each of some fields, and its negation, is written."""
    names = [name for check in checks for name in (check, negated_name(check))]
    return {name: f"it belongs to `{where.format(name)}`" for name in names}


_IN_FROM = _belongs(_SOURCE_CHECKS, "from: [{{source: {{{}: …}}}}]")
_IN_TO = _belongs(_OPERATION_CHECKS, "to: [{{operation: {{{}: …}}}}]")
_IN_WHEN = dict.fromkeys(("key", "values", "notValues"), "it belongs to `when: [{key: …, values: …}]`")
_IN_SPEC = dict.fromkeys(
    ("selector", "action", "provider", "targetRef", "targetRefs"), "it belongs to `spec`, beside `rules`"
)
_SOURCE: Shape[Source] = Shape(
    "a source", _twins(_SOURCE_CHECKS), Source, _check_source, negation=_NEGATED_FIELDS, elsewhere=_IN_TO | _IN_WHEN
)
_OPERATION: Shape[Operation] = Shape(
    "an operation",
    _twins(_OPERATION_CHECKS),
    Operation,
    _check_operation,
    negation=_NEGATED_FIELDS,
    elsewhere=_IN_FROM | _IN_WHEN,
)


def _only(inner: str, what: str, code: str) -> Callable[[reading.Mapping, Notes], None]:
    """VA-17 and VA-21: the one member is there and is not empty."""

    def check(node: reading.Mapping, notes: Notes) -> None:
        member = given(node, inner)
        if member is None:
            if set(node.entries) <= {inner}:
                notes.error(code, node, f"{what} without `{inner}` would match everything", "remove the whole entry")
        elif isinstance(member, reading.Mapping) and not filled(member):
            notes.error(code, member, f"an empty {inner} would match everything", f"give the {inner} a field")

    return check


_FROM: Shape[Source] = Shape(
    "an entry of `from`",
    {"source": Field("source", _SOURCE.decode)},
    lambda source=Source(): source,  # noqa: B008  # a frozen value
    _only("source", "an entry of `from`", "VA-17"),
    negation=_NEGATED_SOURCE,
    elsewhere=_IN_TO | _IN_FROM | _IN_WHEN,
)
_TO: Shape[Operation] = Shape(
    "an entry of `to`",
    {"operation": Field("operation", _OPERATION.decode)},
    lambda operation=Operation(): operation,  # noqa: B008  # a frozen value
    _only("operation", "an entry of `to`", "VA-21"),
    negation=_NEGATED_OPERATION,
    elsewhere=_IN_TO | _IN_FROM | _IN_WHEN,
)


def _check_condition(node: reading.Mapping, notes: Notes) -> None:
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
            notes.passed(item, checks)
            for check in checks if value else ():
                fault = check(value or "")
                if fault is not None:
                    notes.fault(item, fault)
                    break


_VALUES = texts(value_checks.not_empty("VA-29"))
_CONDITION: Shape[Condition] = Shape(
    "a condition",
    {
        "key": Field("key", text(value_checks.condition_key)),
        "values": Field("values", _VALUES),
        "notValues": Field("not_values", _VALUES),
    },
    lambda key="", **others: Condition(key, **others),
    _check_condition,
    is_located=True,
    negation=_NEGATED_CONDITION,
)
RULE: Shape[Rule] = Shape(
    "a rule",
    {
        "from": Field("sources", objects(_FROM, null_code="VA-15", most=MAX_SOURCES, most_code="VA-10")),
        "to": Field("operations", objects(_TO, null_code="VA-15")),
        "when": Field("conditions", objects(_CONDITION, null_code="VA-15")),
    },
    Rule,
    is_located=True,
    negation=_NEGATED_RULE,
    elsewhere=_IN_TO | _IN_FROM | _IN_WHEN | _IN_SPEC,
)
IN_RULES = dict.fromkeys((*_IN_TO, *_IN_FROM, *_IN_WHEN, "from", "to", "when"), "it belongs to an element of `rules`")
"""Fields that may be written beside `rules` by mistake."""
