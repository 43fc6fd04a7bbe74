"""Two answers to one request, Envoy's and the engine's: what the engine says now, and whether they are the same."""

from dataclasses import dataclass

from authz.core.asked import blind_rules, header_of, keys_of, rules_of
from authz.core.attributes import AttributeContext, Authentication
from authz.core.decision import Decision, DryRunResult, Effect, RuleReference, Stage
from authz.core.engine import WorkloadPolicies
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule
from authz.wire.access_log import LogEntry
from authz.wire.enforced import Enforced


@dataclass(slots=True)
class PreparedWorkload:
    """What is prepared for the policies of one workload."""

    policies: WorkloadPolicies
    names: dict[str, RuleReference]
    allow: frozenset[str]
    asks_for_own: bool
    """Whether a rule asks for a header in which entries that are alike may still differ."""
    version: str = ""
    """What filters compiled from them report as their version (``filters_version``)."""
    _blind: frozenset[str] | None = None

    @property
    def blind(self) -> frozenset[str]:
        """Rules that ask for what no entry has. Found when first needed, which is when answers disagree."""
        if self._blind is None:
            self._blind = blind_rules(self.policies)
        return self._blind


def again(policies: WorkloadPolicies, attributes: AttributeContext, enforced: Enforced) -> Decision:
    """The engine's decision by what Envoy had: its token, and its provider's answer."""

    def authenticate(seen: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return attributes.authentication

    def ask(question: ProviderQuestion) -> ProviderAnswer:
        return ProviderAnswer(enforced.denied_by != "custom", enforced.status or 403)

    return decide(policies, attributes, authenticate, ask)[1]


def agree(told: Decision, engine: Decision, entry: LogEntry) -> bool:
    """Whether effect, stage, rule, AUDIT and dry-run results are Envoy's, as far as it reported them."""
    if told.effect is not engine.effect or told.stage is not engine.stage:
        return False
    is_named = told.rule is not None or told.effect is Effect.DENY
    if is_named and told.stage is not Stage.CUSTOM and _name(told.rule) != _name(engine.rule):
        return False
    if entry.attributes.http is None or not entry.enforced.results:  # the metadata says nothing about these
        return True
    return (
        (told.audit is None or told.audit == engine.audit)
        and _same(told.dry_run_deny, engine.dry_run_deny)
        and _same(told.dry_run_allow, engine.dry_run_allow)
    )


def may_agree(known: PreparedWorkload, attributes: AttributeContext, entry: LogEntry, told: Decision) -> bool:
    """Whether the engine agrees if a claim was the other thing it may have been: a line has only a claim's text."""
    otherwise = entry.alike.otherwise if entry.alike is not None else None
    if otherwise is None:
        return False
    return agree(told, again(known.policies, attributes.after(otherwise), entry.enforced), entry)


def _same(told: DryRunResult | None, engine: DryRunResult | None) -> bool:
    if told is None or engine is None:
        return True  # not every form of the filters writes both
    return told.effect is engine.effect and _name(told.rule) == _name(engine.rule)


def _name(rule: RuleReference | None) -> str:
    return rule.name if rule is not None else ""


def is_blind(known: PreparedWorkload, entry: LogEntry, told: Decision, engine: Decision) -> bool:
    """Whether a rule that either side names, or would have to, asks for what the entry does not hold."""
    http = entry.attributes.http
    doubtful = {
        name
        for name, values in (http.headers if http is not None else {}).items()
        if not name.startswith(":") and any("," in value or not value.isascii() for value in values)
    }  # occurrences of a repeated header are joined, and bytes beyond ASCII are not told apart
    named = {
        _name(rule)
        for decision in (told, engine)
        for rule in (
            decision.rule,
            decision.audit_rule,
            decision.dry_run_allow.rule if decision.dry_run_allow is not None else None,
            decision.dry_run_deny.rule if decision.dry_run_deny is not None else None,
        )
    }
    if named & known.blind:
        return True
    if not doubtful:
        return False
    sets = known.policies.http
    return any(
        rule.reference.name in named and any(header_of(key) in doubtful for key in keys_of(rule))
        for rule in rules_of(sets)
    )
