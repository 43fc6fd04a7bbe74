"""
The same predicates, walked with notes taken: which rules were considered, what each asked, and which came closest.

The decision itself comes from ``pipeline``; nothing here matches anything by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from authz.core.attributes import AttributeContext, AuthenticationOutcome, Unknown
from authz.core.catalog import Voucher
from authz.core.decision import Decision, Effect, RuleReference, Stage
from authz.core.engine import WorkloadPolicies
from authz.core.matchers import SCALAR
from authz.core.pipeline import Authenticate, decide, peer_mode
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import Action
from authz.core.rules import Entry, Predicate, RuleSet

HIDDEN = "(hidden)"
_CREDENTIALS = frozenset(
    f"request.headers[{name}]"
    for name in ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", ":path")
)
"""Header values that may hold a credential are never shown; ``:path`` may carry a token in its query."""


_WHOLE = frozenset({Voucher.MTLS.value, Voucher.TOKEN.value})
"""Vouchers that are there with all they say, or not at all."""


@dataclass(frozen=True, slots=True)
class PredicateNote:
    """One predicate of one rule: what was asked, what was there, and whether it held."""

    path: str
    """``from[0].source.principals``."""
    key: str
    """Istio's key of the attribute, ``source.principal``."""
    holds: bool
    expected: tuple[str, ...]
    """Values of which one must match, as compiled (trust domains already rewritten)."""
    excluded: tuple[str, ...]
    """Values of which none may match."""
    actual: tuple[str, ...] | None
    """Values of the request; empty is absent, None is not delivered (CS-8)."""
    voucher: str
    """Who guarantees the actual value."""

    def __str__(self) -> str:
        wanted = []
        if self.expected:
            wanted.append(f"one of {', '.join(f'`{value}`' for value in self.expected)}")
        if self.excluded:
            wanted.append(f"none of {', '.join(f'`{value}`' for value in self.excluded)}")
        if self.actual is None:
            got = "the value is not delivered by this deployment"
        else:
            got = f"got {', '.join(f'`{value}`' for value in self.actual)}" if self.actual else "got no value"
        return f"{self.path} ({self.key}): expected {' and '.join(wanted)}, {got}"


@dataclass(frozen=True, slots=True)
class RuleNote:
    """One rule: whether it fired, and for one that did not the fields that failed."""

    reference: RuleReference
    action: Action
    dry_run: bool
    fired: bool
    parts: tuple[tuple[PredicateNote, ...], ...]
    """For ``from``, ``to`` and ``when`` the entry that held, or came closest."""

    @property
    def failed(self) -> tuple[PredicateNote, ...]:
        """The predicates that kept the rule from firing."""
        return tuple(note for part in self.parts for note in part if not note.holds)

    @property
    def held(self) -> tuple[PredicateNote, ...]:
        """The predicates that held."""
        return tuple(note for part in self.parts for note in part if note.holds)


@dataclass(frozen=True, slots=True)
class StageNote:
    """One stage of the evaluation, in order. ``reached`` is False when an earlier stage refused."""

    name: str
    reached: bool
    outcome: str
    rules: tuple[RuleNote, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with everything that led to it."""

    decision: Decision
    attributes: AttributeContext
    """The request as the last stage saw it (EV-6)."""
    stages: tuple[StageNote, ...]
    nearest: RuleNote | None
    """For a denial because no ALLOW rule matched: the rule that failed for the fewest reasons."""


def explain(
    policies: WorkloadPolicies,
    attributes: AttributeContext,
    authenticate: Authenticate,
    ask: Callable[[ProviderQuestion], ProviderAnswer],
) -> Explanation:
    """
    Explain the decision of one request.

    ``explain(...).decision`` equals ``decide(...)`` for all requests; a property test keeps it so.
    """
    seen, decision = decide(policies, attributes, authenticate, ask)
    stages = tuple(_stages(policies, attributes, seen, decision))
    nearest = None
    if decision.effect is Effect.DENY and decision.stage is Stage.ALLOW:
        allow = next(stage for stage in stages if stage.name == "ALLOW")
        nearest = min(allow.rules, key=_distance, default=None)
    return Explanation(decision, seen, stages, nearest)


def nearest_miss(policies: WorkloadPolicies, attributes: AttributeContext) -> RuleNote | None:
    """
    The ALLOW rule that failed for the fewest reasons, for a request that no ALLOW rule admitted.

    ``attributes`` are those the ALLOW stage saw.
    """
    sets = policies.http if attributes.http is not None else policies.tcp
    return min(_rule_notes(sets.allow, attributes, Action.ALLOW), key=_distance, default=None)


_ORDER = (Stage.PEER_AUTHENTICATION, Stage.NORMALIZATION, Stage.CUSTOM, Stage.JWT, Stage.DENY, Stage.ALLOW)


def _stages(
    policies: WorkloadPolicies, before: AttributeContext, after: AttributeContext, decision: Decision
) -> Iterator[StageNote]:
    sets = policies.http if before.http is not None else policies.tcp
    stopped = _ORDER.index(decision.stage) if decision.stage in _ORDER else len(_ORDER)

    def reached(stage: Stage) -> bool:
        return _ORDER.index(stage) <= stopped

    mode = peer_mode(policies, before.destination)
    peer = f"identity {before.source.principal}" if before.is_mtls else "no identity"
    yield StageNote("PeerAuthentication", True, f"mode {mode}, {peer}")
    asked = reached(Stage.CUSTOM)
    for custom in sets.custom:
        name = custom.provider.name if custom.provider is not None else "unusable"
        rules = tuple(_rule_notes(custom.rules, before, Action.CUSTOM)) if asked else ()
        outcome = custom.problem or ("asked" if any(rule.fired for rule in rules) else "not asked")
        yield StageNote(f"CUSTOM ({name})", asked, outcome, rules)
    if before.http is not None:
        yield StageNote("RequestAuthentication", reached(Stage.JWT), _token_outcome(policies, after))
    deny_reached, allow_reached = reached(Stage.DENY), reached(Stage.ALLOW)
    for label, rule_set, action, is_reached, dry_run in (
        ("AUDIT", sets.audit, Action.AUDIT, deny_reached, False),
        ("DENY (dry run)", sets.dry_run_deny, Action.DENY, deny_reached, True),
        ("DENY", sets.deny, Action.DENY, deny_reached, False),
        ("ALLOW (dry run)", sets.dry_run_allow, Action.ALLOW, allow_reached, True),
        ("ALLOW", sets.allow, Action.ALLOW, allow_reached, False),
    ):
        if rule_set is None:
            yield StageNote(label, is_reached, "no policy applies")
            continue
        notes = tuple(_rule_notes(rule_set, after, action, dry_run=dry_run)) if is_reached else ()
        fired = next((note for note in notes if note.fired), None)
        yield StageNote(label, is_reached, f"{fired.reference.short} fired" if fired else "no rule fired", notes)


def _token_outcome(policies: WorkloadPolicies, attributes: AttributeContext) -> str:
    found = attributes.authentication
    if not policies.jwt_rules:
        return "no policy applies"
    if found.outcome is AuthenticationOutcome.REJECTED:
        return f"refused: {found.reason or found.body}"
    if found.token is None:
        return "no token"
    return f"accepted {found.token.issuer}/{found.token.subject} by {found.token.rule}"


def _rule_notes(
    rule_set: RuleSet | None, attributes: AttributeContext, action: Action, *, dry_run: bool = False
) -> Iterator[RuleNote]:
    for rule in rule_set.rules if rule_set is not None else ():
        parts = (
            _closest(rule.sources, attributes),
            _closest(rule.operations, attributes),
            _notes(rule.conditions, attributes),
        )
        fired = all(note.holds for part in parts for note in part)  # of each part the entry that held, if any did
        yield RuleNote(rule.reference, action, dry_run, fired, parts)


def _closest(entries: tuple[Entry, ...], attributes: AttributeContext) -> tuple[PredicateNote, ...]:
    notes = [_notes(entry, attributes) for entry in entries]
    return min(notes, key=lambda part: sum(not note.holds for note in part), default=())


def _notes(entry: Entry, attributes: AttributeContext) -> tuple[PredicateNote, ...]:
    return tuple(_note(predicate, attributes) for predicate in entry)


def _note(predicate: Predicate, attributes: AttributeContext) -> PredicateNote:
    key = predicate.attribute.key
    values = predicate.attribute.read(attributes)
    actual: tuple[str, ...] | None
    if isinstance(values, Unknown):
        actual = None
    elif key in _CREDENTIALS:
        actual = tuple(HIDDEN for _ in values)
    elif key.startswith("experimental."):
        actual = tuple(value[1:] if value.startswith(SCALAR) else f"[{value[1:]}]" for value in values)
    elif key == "request.auth.principal":
        actual = ("/".join(values),) if values else ()
    elif key == "source.principal":
        actual = tuple(value.removeprefix("spiffe://") for value in values)  # as policies write it (AP-25)
    else:
        actual = values
    return PredicateNote(
        predicate.path,
        key,
        predicate.holds(attributes),
        predicate.any_of.written if predicate.any_of is not None else (),
        predicate.none_of.written if predicate.none_of is not None else (),
        actual,
        predicate.attribute.voucher.value,
    )


def _distance(note: RuleNote) -> tuple[int, int, bytes]:
    """
    Fewest reasons first, then most fields that held, then the name.

    A missing token is one reason, however many fields ask for something of it; so is a missing certificate. Otherwise
    an unrelated rule with a single field would always seem closer than the one the caller only has to sign in for.
    """
    reasons = {note.path if note.actual or note.voucher not in _WHOLE else note.voucher for note in note.failed}
    return (len(reasons), -len(note.held), note.reference.name.encode())
