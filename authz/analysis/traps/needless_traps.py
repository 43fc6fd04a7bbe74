"""
Rules that decide nothing, and ALLOW rules that are open to all: what is proved of them, as findings.

Without a proof, only rules that another one covers are told, as they are written.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from authz.analysis.needless.verdict import RuleId, RuleVerdict, VerdictKind
from authz.analysis.traps.cover import covered_rules
from authz.analysis.traps.policy_set import PolicySet, Trap, finding, rules_of, uses_of
from authz.core.catalog import SOURCE_FIELDS
from authz.core.decision import RuleReference
from authz.core.errors import Problem, Severity
from authz.core.resources import Action, AuthorizationPolicy, Rule

MAX_NAMED = 4
"""Rules that one finding names."""
_SAYS_WHY = frozenset({"AN-6", "AN-10", "AN-12", "AN-13", "AN-14", "AN-15", "AN-16", "AN-24"})
"""Findings of one value that say why no request matches a rule."""
_PRINCIPALS, _TRUST_DOMAINS = SOURCE_FIELDS["principals"], SOURCE_FIELDS["trustDomains"]


def _proved(whole: PolicySet, *kinds: VerdictKind) -> Iterator[tuple[AuthorizationPolicy, int, Rule, RuleVerdict]]:
    if whole.needless is not None:
        for policy, index, rule in rules_of(whole, *Action):
            verdict = whole.needless.verdicts.get((policy.metadata.namespace, policy.metadata.name, index))
            if verdict is not None and verdict.kind in kinds:
                yield policy, index, rule, verdict


def _told(
    code: str, policy: AuthorizationPolicy, index: int, rule: Rule, message: str, advice: str, field: str = ""
) -> Trap:
    path = f"spec.rules[{index}]" + (f".{field}" if field else "")
    return finding(code, policy, message, advice, location=rule.location, path=path, proved=True)


def _named(rules: Sequence[RuleReference]) -> str:
    """``rule shop/reads/0 at a.yaml:7:5``, or several."""
    texts = [f"{rule.short} at {rule.location}" for rule in rules[:MAX_NAMED]]
    if len(rules) > MAX_NAMED:
        texts.append(f"{len(rules) - MAX_NAMED} more")
    if len(texts) == 1:
        return f"rule {texts[0]}"
    return f"rules {', '.join(texts[:-1])} and {texts[-1]}"


def _covered(whole: PolicySet) -> Iterator[Problem]:
    """AN-4: a rule can be removed, because others of its action match everything that it matches."""
    for policy, index, rule, verdict in _proved(whole, VerdictKind.COVERED):
        together = "together match" if len(verdict.by) > 1 else "matches"
        message = f"{_named(verdict.by)} {together} everything that this rule matches (proved)"
        yield _told("AN-4", policy, index, rule, message, "remove this rule, or narrow the other")
    for policy, index, other, other_index in covered_rules(whole.policies, whole.root):
        metadata = other.metadata
        if not _is_judged(whole, policy, index) and not _is_needless(whole, other, other_index):
            yield finding(
                "AN-4",
                policy,
                f"rule {metadata.namespace}/{metadata.name}/{other_index} at {other.rules[other_index].location} "
                "matches everything that this rule matches",
                "remove this rule, or narrow the other",
                location=policy.rules[index].location,
                path=f"spec.rules[{index}]",
            )


def _id(policy: AuthorizationPolicy, index: int) -> RuleId:
    return policy.metadata.namespace, policy.metadata.name, index


def _is_judged(whole: PolicySet, policy: AuthorizationPolicy, index: int) -> bool:
    return whole.needless is not None and _id(policy, index) in whole.needless.judged


def _is_needless(whole: PolicySet, policy: AuthorizationPolicy, index: int) -> bool:
    return whole.needless is not None and _id(policy, index) in whole.needless.verdicts


def _contradictory(whole: PolicySet) -> Iterator[Problem]:
    """AN-28: no request matches a rule."""
    for policy, index, rule, verdict in _proved(whole, VerdictKind.IMPOSSIBLE):
        if verdict.has_no_caller:
            continue
        fields = verdict.fields
        field = fields[0] if len(fields) == 1 else ""
        if len(fields) > 1:
            names = [f"`{name}`" for name in fields]
            message = (
                f"no request matches this rule: {', '.join(names[:-1])} and {names[-1]} exclude each other (proved)"
            )
        elif fields and _has_both(rule, field):
            message = "no request matches this rule: what is asked for here is excluded here, too (proved)"
        else:
            message = "no request matches this rule: none has what is asked for here (proved)"
        yield _told("AN-28", policy, index, rule, message, "correct the values, or remove this rule", field)


def _has_both(rule: Rule, field: str) -> bool:
    return any(use.path == field and use.values and use.not_values for use in uses_of(rule))


def _no_such_caller(whole: PolicySet) -> Iterator[Problem]:
    """AN-29: a rule asks for callers that cannot be."""
    for policy, index, rule, verdict in _proved(whole, VerdictKind.IMPOSSIBLE):
        if verdict.has_no_caller:
            message = "mTLS is DISABLE where this rule applies: no caller has an identity, and it matches none (proved)"
            advice = "let a PeerAuthentication make mTLS PERMISSIVE or STRICT there, or remove this rule"
            yield _told("AN-29", policy, index, rule, message, advice, verdict.fields[0])
    if "trust_domain" not in whole.engine.mesh.written or whole.engine.mesh.skip_validate_trust_domain:
        return
    for policy, index, rule in rules_of(whole, *Action):
        for use in uses_of(rule):
            if use.attribute not in (_PRINCIPALS, _TRUST_DOMAINS):
                continue
            for value in use.values:
                domain, is_identity, _ = value.partition("/ns/")
                is_domain = use.attribute is _TRUST_DOMAINS or bool(is_identity)
                if is_domain and domain and "*" not in domain and domain not in _trusted(whole):
                    yield finding(
                        "AN-29",
                        policy,
                        f"`{domain}` is neither the mesh's trust domain nor an alias of it: proxies take callers of it "
                        "only if they are federated with it (PA-13)",
                        f"write `{whole.engine.mesh.trust_domain}`, or name it in `trustDomainAliases`",
                        location=rule.location,
                        path=f"spec.rules[{index}].{use.path}",
                    )


def _trusted(whole: PolicySet) -> tuple[str, ...]:
    return ("cluster.local", *whole.engine.mesh.trust_domains)  # which stands for the mesh's own (AP-27)


def _never_decides(whole: PolicySet) -> Iterator[Problem]:
    """AN-30: what comes before a rule takes all of its requests."""
    for policy, index, rule, verdict in _proved(whole, VerdictKind.TAKEN, VerdictKind.CLOSED):
        if verdict.kind is VerdictKind.CLOSED:
            what = "mTLS that is STRICT, or a required token, refuses all that it matches before any rule is asked"
            advice = "remove this rule, or let such callers come so far if it is meant for them"
        else:
            takes = "take" if len(verdict.by) > 1 else "takes"
            what = f"{_named(verdict.by)} {takes} all that it matches"
            advice = "remove this rule, or narrow the other"
        yield _told("AN-30", policy, index, rule, f"this {policy.action} rule never decides: {what} (proved)", advice)


def _takes_nothing_away(whole: PolicySet) -> Iterator[Problem]:
    """AN-31: a DENY rule refuses only what no ALLOW rule lets through."""
    for policy, index, rule, _ in _proved(whole, VerdictKind.UNNEEDED):
        message = "no ALLOW rule lets through what this DENY rule matches: without it the answers are the same (proved)"
        advice = "keep it against ALLOW rules to come, or remove it"
        yield replace(_told("AN-31", policy, index, rule, message, advice), severity=Severity.INFO)


def _open_to_all(whole: PolicySet) -> Iterator[Problem]:
    """AN-32: ALLOW rules let every HTTP request through, though none says so."""
    by_id = {_id(policy, index): (policy, index, rule) for policy, index, rule in rules_of(whole, Action.ALLOW)}
    told: set[RuleId] = set()
    for rules in whole.needless.open if whole.needless is not None else ():
        first, *others = sorted(rules, key=lambda one: one.location)
        found = by_id[first.namespace, first.policy, first.index]
        if _id(found[0], found[1]) in told:
            continue
        told.add(_id(found[0], found[1]))
        who = f"this rule and {_named(others)} together allow" if others else "this rule allows"
        message = f"{who} every HTTP request of every caller (proved)"
        advice = "say who may do what, or write `rules: [{}]` if everything is meant to be allowed"
        yield _told("AN-32", *found, message, advice)


NEEDLESS_CHECKS: dict[str, Callable[[PolicySet], Iterator[Problem]]] = {
    "AN-28": _contradictory,
    "AN-29": _no_such_caller,
    "AN-30": _never_decides,
    "AN-31": _takes_nothing_away,
    "AN-32": _open_to_all,
}
COVERED_CHECK = _covered


def told_once(whole: PolicySet, problems: Iterable[Problem], warned: Iterable[Problem]) -> Iterator[Problem]:
    """
    Leave out what says the cause of another finding again.

    A finding of a value that says why no request matches its rule is told as proved, in place of AN-28; so is a warning
    of validation. Rules that are open to all together need not be told to admit strangers, too.
    """
    problems = list(problems)
    impossible = {
        (f"AuthorizationPolicy {policy.metadata.namespace}/{policy.metadata.name}", f"spec.rules[{index}].{field}")
        for policy, index, _, verdict in _proved(whole, VerdictKind.IMPOSSIBLE)
        for field in verdict.fields
    }
    opened = whole.needless.open if whole.needless is not None else ()
    open_rules = {
        (f"AuthorizationPolicy {one.namespace}/{one.policy}", f"spec.rules[{one.index}]")
        for rules in opened
        for one in rules
    }
    explained = {
        (problem.resource, rule_path)
        for problem in (*(one for one in problems if one.code in _SAYS_WHY), *warned)
        for resource, field in impossible
        if problem.resource == resource and f"{problem.path}.".startswith((f"{field}.", f"{field}["))
        for rule_path in (_rule_path(field),)
    }
    for problem in problems:
        rule = (problem.resource, _rule_path(problem.path))
        if problem.code in ("AN-28", "AN-29") and isinstance(problem, Trap) and problem.proved and rule in explained:
            continue
        if problem.code == "AN-7" and rule in open_rules:
            continue
        if problem.code in _SAYS_WHY and (problem.resource, problem.path) in impossible:
            assert isinstance(problem, Trap)
            yield replace(problem, message=f"{problem.message}: no request matches this rule (proved)", proved=True)
        else:
            yield problem


def _rule_path(path: str) -> str:
    return path[: path.find("]") + 1]
