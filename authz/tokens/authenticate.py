"""
The RequestAuthentication stage: attributes, rules, key sets and a time → ``Authentication`` (RA-1 to RA-13).

Never waits, never fetches, never raises: an unknown key is a refusal and a hint to whoever fetches keys.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    HttpRequest,
)
from authz.core.resources import JwtRule, Presence
from authz.tokens.cache import CacheKey, TokenCache, VerifiedToken, token_key
from authz.tokens.challenge import challenge_for
from authz.tokens.finding import FoundToken, find_tokens, is_preflight
from authz.tokens.key_sets import KeySets
from authz.tokens.locations import path_without
from authz.tokens.opaque import KnownAnswer, not_asked, told_token
from authz.tokens.output import output_headers
from authz.tokens.parsed import DIGEST_DIGITS, ParsedToken, read_token
from authz.tokens.plan import Alone, Plan, PlannedRule, plan_for
from authz.tokens.reasons import in_words, refusal_to_report, unknown_issuer
from authz.tokens.token_refusals import AUDIENCE, BAD_FORMAT, MISSING, Refusal
from authz.tokens.verify import accepted_token, check_token

DEFAULT_MAX_TOKEN_BYTES = 16 * 1024
"""Larger than a token should ever be, smaller than Envoy's limit for all headers together (60 KiB)."""

NO_PATH = Refusal(400, "", "the request path does not begin with a slash")
UNREMOVABLE = Refusal(400, "", "the query cannot be written without its token: a value cannot stand in a header")


def authenticate(
    attributes: AttributeContext,
    jwt_rules: tuple[JwtRule, ...],
    key_sets: KeySets,
    now: float,
    *,
    cache: TokenCache | None = None,
    max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
    on_unknown_key: Callable[[str], None] | None = None,
    known_answer: KnownAnswer = not_asked,
) -> Authentication:
    """
    Judge the tokens of one request.

    Args:
        jwt_rules: all applicable rules, merged and sorted (RA-1, RA-52); pass the same tuple for the same workload,
            because what is prepared for it is found by its identity.
        key_sets: by ``JwtRule.keys_from``; inline sets need not be there.
        now: seconds since the epoch; a fraction is cut, as Envoy does.
        cache: verified tokens; None verifies every time.
        max_token_bytes: a longer token is refused unread.
        on_unknown_key: called with ``keys_from`` when newer keys might have verified a token; must not block.
        known_answer: what issuers said of tokens that they are asked about; must not block.

    Returns:
        NONE without rules (RA-2), without tokens (RA-3), for TCP (EV-5), a CORS preflight (RA-44) and a request without
        path (RA-9); else ACCEPTED or REJECTED. Raises MustAsk where ``known_answer`` does not know: ask and come again.
    """
    http = attributes.http
    if not jwt_rules or http is None:
        return NOT_AUTHENTICATED
    plan, now = plan_for(jwt_rules), int(now)
    if not http.path.startswith("/"):
        # A CONNECT request is not examined and its headers stay untouched (RA-9).
        return NOT_AUTHENTICATED if not http.path else _rejected(NO_PATH, "")
    if http.method == "OPTIONS" and is_preflight(http):
        return plan.no_token
    found = find_tokens(plan, http)
    if not found and not plan.requires_token:
        return plan.no_token
    key: CacheKey | None = None
    if cache is not None and len(found) == 1:
        place, text = found[0]
        if len(text) <= max_token_bytes and text.isascii():
            data = text.encode()
            key = (token_key(data), plan.cache_names[place])
            entry = cache.get(key, now)
            if entry is not None:
                state = plan.rules[entry.rule_index].state(key_sets)
                if state is not None and state.key_set is not None and state.key_set.digest == entry.key_set:
                    return _with_path(entry.answer, plan, http)
    if key is None or cache is None:
        return _Judge(plan, http, found, key_sets, now, max_token_bytes, on_unknown_key, known_answer).judge()
    token = read_token(data, key[0][: DIGEST_DIGITS // 2].hex())
    judged = _judge_alone(plan.alone.get(place), token, key_sets, now)
    if isinstance(judged, VerifiedToken):
        cache.put(key, judged)
        return _with_path(judged.answer, plan, http)
    facts = (plan, http, found, key_sets, now, max_token_bytes, on_unknown_key, known_answer)
    return _Judge(*facts, judged, {text: token}).judge(cache, key)


def _judge_alone(
    alone: Alone | None, token: ParsedToken | Refusal, key_sets: KeySets, now: float
) -> VerifiedToken | Refusal | None:
    """
    Judge a request with one token by the one rule there is, in fewer steps than ``_Judge``: nearly every request.

    Returns:
        What ``_Judge`` would remember, or what it need not find out again; None where it has to look.
    """
    if alone is None or isinstance(token, Refusal):
        return None
    rule, state = alone.planned.rule, alone.planned.state(key_sets)
    refused = check_token(token, rule, state, now)
    if refused is not None or state is None or state.key_set is None:
        return refused
    answer = alone.accept(accepted_token(token, rule))
    return VerifiedToken(answer, 0, state.key_set.digest, token.valid_from, token.valid_until)


@dataclass(slots=True)
class _Outcome:
    """What came of one rule: no token, a refusal, or the token whose claims are kept (RA-12, RA-13)."""

    planned: PlannedRule
    found: Sequence[FoundToken] = ()
    token: ParsedToken | None = None
    refusal: Refusal | None = None
    refused: ParsedToken | None = None
    """The token that the refusal is of, where it could be read."""


@dataclass(slots=True)
class _Judge:
    """One request that has to be looked at closely."""

    plan: Plan
    http: HttpRequest
    found: Sequence[FoundToken]
    key_sets: KeySets
    now: float
    max_token_bytes: int
    on_unknown_key: Callable[[str], None] | None
    known_answer: KnownAnswer
    refused: Refusal | None = None
    """What the only rule says of the only token, where that is already known."""
    _read: dict[str, ParsedToken | Refusal] = field(default_factory=dict)
    """Each token is read once, whatever the number of rules that look at it."""
    _taken: set[tuple[str, str]] = field(default_factory=set)
    """Kinds and names of places whose token was verified and taken from the request: later rules do not see it."""

    def judge(self, cache: TokenCache | None = None, key: CacheKey | None = None) -> Authentication:
        """Try the rules in order; the first that succeeds with a token decides (RA-4, RA-5)."""
        outcomes: list[_Outcome] = []
        for planned in self.plan.rules:
            outcome = self._try(planned)
            outcomes.append(outcome)
            if outcome.token is not None:
                break
        last = outcomes[-1]
        refusal = self._refusal_of(outcomes) if last.token is None else None
        if refusal is None and self.plan.requires_token:
            refusal = self._missing_required(outcomes)
        if last.token is None:
            return self.plan.no_token if refusal is None else self._refuse(_all_issuers(refusal, outcomes))
        if refusal is not None:
            return self._refuse(refusal)
        answer = self._accept(last, last.token)
        if cache is not None and key is not None and self._is_settled(outcomes):
            self._remember(cache, key, len(outcomes) - 1, last, answer)
        return _with_path(answer, self.plan, self.http)

    def _refusal_of(self, outcomes: list[_Outcome]) -> Refusal | None:
        """
        Choose the failure to report when no rule succeeded (RA-8).

        Envoy asks several rules a second time, without the tokens that verified for one of them, and the first failure
        of that round has the last word. It accepts when nothing is left to fail; we do not (RA-5).
        """
        refusals = [outcome.refusal for outcome in outcomes]
        again: Refusal | None = None
        if len(refusals) > 1:
            for planned in self.plan.rules if self._taken else ():
                again = self._try(planned).refusal
                if again is not None:
                    break
        return refusal_to_report(refusals, again)

    def _try(self, planned: PlannedRule) -> _Outcome:
        """Verify every token of the rule's places, from the last to the first (RA-12, RA-13)."""
        found = [token for place in planned.places for token in self.found if token[0] == place]
        if self._taken:
            found = [token for token in found if (token[0].kind, token[0].name) not in self._taken]
        state = planned.state(self.key_sets)
        kept: ParsedToken | None = None
        good = set()
        for place, text in reversed(found):
            token = told_token(self._read_once(text), text, planned.rule, self.known_answer)
            refusal: Refusal | None = None
            if isinstance(token, Refusal):
                refusal = token
            else:
                kept = token
                if text not in good:
                    refusal = self.refused or check_token(token, planned.rule, state, self.now)
            if refusal is not None:
                if refusal.is_unknown_key and self.on_unknown_key is not None and planned.inline is None:
                    self.on_unknown_key(planned.keys_from)
                parsed = None if isinstance(token, Refusal) else token
                said = in_words(refusal, text, parsed, planned.rule, self.now)
                reason = f"{said} ({place.kind} {place.name}, rule {planned.rule.name})"
                return _Outcome(planned, found, refused=parsed, refusal=replace(refusal, reason=reason))
            good.add(text)
            if not planned.rule.forward_original_token and place.kind != "cookie" and len(found) > 1:
                self._taken.add((place.kind, place.name))
        return _Outcome(planned, found, token=kept)

    def _read_once(self, text: str) -> ParsedToken | Refusal:
        token = self._read.get(text)
        if token is None:
            token = self._read[text] = self._oversized(text) or read_token(text)
        return token

    def _oversized(self, text: str) -> Refusal | None:
        if len(text) <= self.max_token_bytes:
            return None
        return replace(
            BAD_FORMAT, reason=f"oversized token: {len(text)} bytes, at most {self.max_token_bytes} are read"
        )

    def _missing_required(self, outcomes: list[_Outcome]) -> Refusal | None:
        """
        Find the rule with presence REQUIRED that has no good token (section 10).

        A rule that was not looked at, because an earlier one succeeded, is looked at here.
        """
        tried = {id(outcome.planned): outcome for outcome in outcomes}
        taken, self._taken = self._taken, set()
        for planned in self.plan.rules:
            if planned.rule.presence is not Presence.REQUIRED:
                continue
            outcome = tried.get(id(planned)) or self._try(planned)
            if outcome.token is None:
                refusal = outcome.refusal
                return MISSING if refusal is None or refusal.is_unknown_issuer else refusal
        self._taken = taken
        return None

    def _refuse(self, refusal: Refusal) -> Authentication:
        return _rejected(refusal, challenge_for(self.http, self.plan.parameters))

    def _accept(self, outcome: _Outcome, token: ParsedToken) -> Authentication:
        """Build the answer, complete but for the rewritten path."""
        rule = outcome.planned.rule
        headers_to_set = output_headers(rule, token.claims, token.payload_text)
        names_set = {name for name, _ in headers_to_set}
        consumed = () if rule.forward_original_token else outcome.found
        removed = {place.name for place, _ in consumed if place.kind == "header"}
        removed.update(name for name in self.plan.output_names if name not in names_set)
        parameters = {place.name for place, _ in consumed if place.kind == "parameter"}
        for kind, name in self._taken:  # by rules that then failed for another token
            (removed if kind == "header" else parameters).add(name)
        return Authentication(
            outcome=AuthenticationOutcome.ACCEPTED,
            token=accepted_token(token, rule),
            headers_to_set=headers_to_set,
            headers_to_remove=tuple(sorted(removed)),
            query_parameters_to_remove=tuple(sorted(parameters)),
        )

    def _is_settled(self, outcomes: list[_Outcome]) -> bool:
        """Whether the rules before the accepting one will always refuse this token, whatever the keys and the time."""
        earlier = [outcome.refusal for outcome in outcomes[:-1]]
        is_simple = len(self.plan.rules) == 1 or not self.plan.requires_token
        return is_simple and all(r is None or r.is_unknown_issuer or r.body == AUDIENCE.body for r in earlier)

    def _remember(self, cache: TokenCache, key: CacheKey, index: int, last: _Outcome, answer: Authentication) -> None:
        state, token = last.planned.state(self.key_sets), last.token
        if token is None or token.is_introspected:
            return  # what an issuer answered is remembered where it is asked, as long as it may be
        if state is not None and state.key_set is not None:
            cache.put(key, VerifiedToken(answer, index, state.key_set.digest, token.valid_from, token.valid_until))


def _all_issuers(refusal: Refusal, outcomes: Sequence[_Outcome]) -> Refusal:
    """Name the issuers of all rules that did not know the token, not of one of them at random."""
    strangers = [outcome for outcome in outcomes if outcome.refusal is not None and outcome.refusal.is_unknown_issuer]
    refused = strangers[0].refused if strangers else None
    if not refusal.is_unknown_issuer or refused is None:
        return refusal
    rules = [o.planned.rule for o in strangers if o.refused is not None and o.refused.issuer == refused.issuer]
    return replace(refusal, reason=unknown_issuer(refused, rules))


def _with_path(answer: Authentication, plan: Plan, http: HttpRequest) -> Authentication:
    """Add the path the upstream sees if it differs, or refuse the request if it cannot be written (RA-45)."""
    if not answer.query_parameters_to_remove:
        return answer
    path = path_without(http.path, answer.query_parameters_to_remove)
    if path is None:
        return _rejected(UNREMOVABLE, challenge_for(http, plan.parameters))
    return replace(answer, rewritten_path=path)


def _rejected(refusal: Refusal, challenge: str) -> Authentication:
    return Authentication(
        outcome=AuthenticationOutcome.REJECTED,
        status=refusal.status,
        body=refusal.body,
        challenge=challenge if refusal.body and refusal.status != 503 else "",  # the token may well be good
        reason=refusal.reason,
    )
