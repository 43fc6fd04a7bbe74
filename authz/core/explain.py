"""
The same predicates, walked with notes taken: which rules were considered, what each asked, and which came closest.

The decision itself comes from ``pipeline``; nothing here matches anything by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from authz.core import absences, hints
from authz.core.attributes import AttributeContext, Unknown
from authz.core.catalog import HOSTS, METHODS, PATHS, Voucher
from authz.core.decision import Decision, Effect, RuleReference, Stage
from authz.core.engine import WorkloadPolicies
from authz.core.matchers import SCALAR
from authz.core.pipeline import Authenticate, decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.readers import Values
from authz.core.resources import Action
from authz.core.rules import CompiledRule, Predicate, Predicates, RuleSet
from authz.core.stage_words import mtls_in_words, token_in_words

HIDDEN = "(hidden)"
_CREDENTIALS = frozenset(
    f"request.headers[{name}]"
    for name in ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", ":path")
)
"""Header values that may hold a credential are never shown; ``:path`` may carry a token in its query."""


_WHOLE = frozenset({Voucher.MTLS.value, Voucher.TOKEN.value})
"""Vouchers without which all of their attributes are missing at once."""


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
    """The party that guarantees the actual value."""
    absence: str = ""
    """Where no value could match: what is there instead, ``got the boolean true, which never matches …``."""
    hint: str = ""
    """The difference between the values where it is easily overlooked: ``differs by a slash at the end``."""

    @property
    def note(self) -> str:
        """A remark for people beside the actual value: that it is absent, or what sets it apart."""
        return self.absence or self.hint

    def __str__(self) -> str:
        wanted = []
        if self.expected:
            wanted.append(f"one of {', '.join(f'`{value}`' for value in self.expected)}")
        if self.excluded:
            wanted.append(f"none of {', '.join(f'`{value}`' for value in self.excluded)}")
        if self.actual is None:
            got = "the value is not delivered by this deployment"
        elif self.actual:
            got = f"got {', '.join(f'`{value}`' for value in self.actual)}"
        else:
            got = self.absence or "got no value"
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.path} ({self.key}): expected {' and '.join(wanted)}, {got}{hint}"


@dataclass(frozen=True, slots=True)
class RuleNote:
    """One rule: whether it fired, and for one that did not the fields that failed."""

    reference: RuleReference
    action: Action
    dry_run: bool
    fired: bool
    parts: tuple[tuple[PredicateNote, ...], ...]
    """The entries of ``from``, ``to`` and ``when`` that held or came closest."""

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
    """The rule that shares most with the request, if it was denied because no ALLOW rule matched."""


def explain(
    policies: WorkloadPolicies,
    attributes: AttributeContext,
    authenticate: Authenticate,
    ask: Callable[[ProviderQuestion], ProviderAnswer],
    *,
    every_rule: bool = True,
) -> Explanation:
    """
    Explain the decision of one request; without ``every_rule`` a stage has no more than the rule that fired.

    ``explain(...).decision`` equals ``decide(...)`` for all requests; a property test keeps it so.
    """
    seen, decision = decide(policies, attributes, authenticate, ask)
    stages = tuple(_stages(policies, attributes, seen, decision, every_rule=every_rule))
    nearest = None
    if decision.effect is Effect.DENY and decision.stage is Stage.ALLOW:
        nearest = nearest_miss(policies, seen)
    return Explanation(decision, seen, stages, nearest)


def nearest_miss(
    policies: WorkloadPolicies, attributes: AttributeContext, action: Action = Action.ALLOW
) -> RuleNote | None:
    """The rule that shares most with a request that no rule of this action matched, as its stage saw the request."""
    sets = policies.http if attributes.http is not None else policies.tcp
    best: tuple[CompiledRule, RuleNote] | None = None
    rule_set = sets.deny if action is Action.DENY else sets.allow
    rules = rule_set.rules if rule_set is not None else ()
    operations = [_path_and_others(_closest(rule.operations, attributes, in_words=False)) for rule in rules]
    least = min(operations, default=None)  # a rule further away by this stays so, whatever else it asks for
    for rule in (rule for rule, operation in zip(rules, operations, strict=True) if operation == least):
        note = _rule_note(rule, attributes, action, in_words=False)
        if best is None or _distance(note) < _distance(best[1]):
            best = rule, note
    return _rule_note(best[0], attributes, action) if best is not None else None


_ORDER = (Stage.PEER_AUTHENTICATION, Stage.NORMALIZATION, Stage.CUSTOM, Stage.JWT, Stage.DENY, Stage.ALLOW)


def _stages(
    policies: WorkloadPolicies,
    before: AttributeContext,
    after: AttributeContext,
    decision: Decision,
    *,
    every_rule: bool,
) -> Iterator[StageNote]:
    sets = policies.http if before.http is not None else policies.tcp
    stopped = _ORDER.index(decision.stage) if decision.stage in _ORDER else len(_ORDER)

    def reached(stage: Stage) -> bool:
        return _ORDER.index(stage) <= stopped

    peer = f"identity {before.source.principal}" if before.is_mtls else "no identity"
    yield StageNote("PeerAuthentication", True, f"mode {mtls_in_words(policies, before)}, {peer}")
    asked = reached(Stage.CUSTOM)
    for custom in sets.custom:
        name = custom.provider.name if custom.provider is not None else "unusable"
        rules = tuple(_rule_notes(custom.rules, before, Action.CUSTOM, every_rule=every_rule)) if asked else ()
        outcome = custom.problem or ("asked" if any(rule.fired for rule in rules) else "not asked")
        yield StageNote(f"CUSTOM ({name})", asked, outcome, rules)
    if before.http is not None:
        yield StageNote("RequestAuthentication", reached(Stage.JWT), token_in_words(policies, after))
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
        noted = _rule_notes(rule_set, after, action, dry_run=dry_run, every_rule=every_rule)
        notes = tuple(noted) if is_reached else ()
        fired = next((note for note in notes if note.fired), None)
        yield StageNote(label, is_reached, f"{fired.reference.short} fired" if fired else "no rule fired", notes)


def _rule_notes(
    rule_set: RuleSet | None,
    attributes: AttributeContext,
    action: Action,
    *,
    dry_run: bool = False,
    every_rule: bool,
) -> Iterator[RuleNote]:
    if rule_set is None:
        return
    fired = None if every_rule else rule_set.first(attributes)
    for rule in rule_set.rules if every_rule else () if fired is None else (fired,):
        yield _rule_note(rule, attributes, action, dry_run=dry_run)


def _rule_note(
    rule: CompiledRule, attributes: AttributeContext, action: Action, *, dry_run: bool = False, in_words: bool = True
) -> RuleNote:
    """Without ``in_words`` the notes have neither absences nor hints: enough to compare rules."""
    parts = (
        _closest(rule.sources, attributes, in_words),
        _closest(rule.operations, attributes, in_words),
        _notes(rule.conditions, attributes, in_words),
    )
    fired = all(note.holds for part in parts for note in part)  # of each part the entry that held, if any did
    return RuleNote(rule.reference, action, dry_run, fired, parts)


def _closest(
    entries: tuple[Predicates, ...], attributes: AttributeContext, in_words: bool
) -> tuple[PredicateNote, ...]:
    return min((_notes(entry, attributes, in_words) for entry in entries), key=_part_distance, default=())


def _notes(entry: Predicates, attributes: AttributeContext, in_words: bool) -> tuple[PredicateNote, ...]:
    return tuple(_note(predicate, attributes, in_words) for predicate in entry)


def _note(predicate: Predicate, attributes: AttributeContext, in_words: bool) -> PredicateNote:
    key = predicate.attribute.key
    values = predicate.attribute.read(attributes)
    holds = predicate.holds(attributes)
    actual = _actual(key, values)
    says = in_words and actual is not None
    return PredicateNote(
        predicate.path,
        key,
        holds,
        predicate.any_of.written if predicate.any_of is not None else (),
        predicate.none_of.written if predicate.none_of is not None else (),
        actual,
        predicate.attribute.voucher.value,
        absences.got(predicate, attributes) if says and not actual else "",
        hints.hint(predicate, actual, attributes) if says and not holds and key not in _CREDENTIALS else "",
    )


def _actual(key: str, values: Values) -> tuple[str, ...] | None:
    """The values as people are shown them."""
    if isinstance(values, Unknown):
        return None
    if key in _CREDENTIALS:
        return tuple(HIDDEN for _ in values)
    if key.startswith("experimental."):
        return tuple(value[1:] if value.startswith(SCALAR) else f"[{value[1:]}]" for value in values)
    if key == "request.auth.principal":
        return ("/".join(values),) if values else ()
    if key == "source.principal":
        return tuple(value.removeprefix("spiffe://") for value in values)  # as policies write it (AP-25)
    return values


def _part_distance(part: tuple[PredicateNote, ...]) -> tuple[int, int, int]:
    """Rank alternatives: the path first, then method and host, then the number of failures."""
    failed = [note.key for note in part if not note.holds]
    return (PATHS.key in failed, sum(key in _METHOD_AND_HOST for key in failed), len(failed))


_METHOD_AND_HOST = (METHODS.key, HOSTS.key)


def _distance(note: RuleNote) -> tuple[int | str | bytes, ...]:
    """
    Rules whose path held first, then those whose method and host did, then the fewest reasons; last the order of the
    file, among rules whose paths are equally like that of the request.

    A rule that asks for no path stands between one whose path held and one whose path failed. A missing token is one
    reason, however many fields ask for something of it; so is a missing certificate. Otherwise an unrelated rule with
    a single field would always seem closer than the one for which the caller only has to sign in.
    """
    path, others = _path_and_others(note.parts[1])
    pairs = [(value, one.actual) for one in note.parts[1] if one.key == PATHS.key for value in one.expected]
    likeness = max((_shared(*pair) for pair in pairs), default=0)
    reasons = {note.path if note.actual or note.voucher not in _WHOLE else note.voucher for note in note.failed}
    place = note.reference.location
    name = note.reference.name.encode()
    return (path, others, len(reasons), -likeness, -len(note.held), place.file, place.line, place.column, name)


def _path_and_others(operation: tuple[PredicateNote, ...]) -> tuple[int, int]:
    """How far the path, and then the method and host, are from those of the request."""
    path, others = 1, 0
    for one in operation:
        if one.key == PATHS.key:
            path = 2 if not one.holds else 0 if one.expected else 1
        elif one.key in _METHOD_AND_HOST:
            others += 2 if not one.holds else -1 if one.expected else 0
    return path, others


def _shared(written: str, actual: tuple[str, ...] | None) -> int:
    """How many characters a path and that of the request have in common at the start."""
    path = actual[0] if actual else ""
    return next(
        (at for at, (a, b) in enumerate(zip(written, path, strict=False)) if a != b), min(len(written), len(path))
    )
