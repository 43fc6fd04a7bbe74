"""A request on its way, and what was in force when it began."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Workload,
)
from authz.core.decided import Timing
from authz.core.introspection import Introspection, TokenAnswer, TokenQuestion
from authz.core.providers import Evaluation, GivenAnswer, ProviderAnswer, ProviderQuestion, Question
from authz.core.resources import JwtRule
from authz.service.askers import Described
from authz.service.loading.snapshot import Snapshot
from authz.service.vouched import Vouched
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.key_sets import KeySets
from authz.tokens.opaque import MustAsk
from authz.tokens.unseen import refuse_unseen

NOTHING_KNOWN = AttributeContext(Source(), Destination(Workload("")))
_NONE = AuthenticationOutcome.NONE


@dataclass(frozen=True, slots=True)
class InForce:
    """
    The things in force that belong together, replaced whole: a request keeps those it began with.

    ``tokens`` are those verified under the snapshot: a new one begins with none. ``key_sets`` have every set that the
    snapshot's rules need; a refreshed set is a new value with the same snapshot.
    """

    snapshot: Snapshot
    tokens: TokenCache
    key_sets: KeySets
    described: Described


Authenticated = tuple[HttpRequest | None, tuple[JwtRule, ...], Authentication]
"""The request as its tokens were judged, by which rules, and the outcome."""
Remembered = Callable[[TokenQuestion, float], TokenAnswer | None]
"""What an issuer said about a token, if it is remembered at that time."""


class Proceeds(Protocol):
    """What goes on with a request once its provider has answered: ``service.check_function``."""

    max_token_bytes: int
    on_unknown_key: Callable[[str], None] | None
    remembered: Remembered

    def proceed(self, request: "Pending", answer: GivenAnswer | None) -> "bytes | Pending":
        """Run the stages until there is a decision or a question. Never raises."""


class Pending:
    """
    A request that waits for an external provider or an issuer; ``resume`` it once, or ``abandon`` it.

    Also what is known of the request on its way, so that nothing else has to be passed on.
    """

    __slots__ = (
        "_asked",
        "_check",
        "_hits",
        "_started",
        "_told",
        "answers",
        "attributes",
        "authenticated",
        "decision_id",
        "in_force",
        "message",
        "now",
        "question",
        "started_at",
        "steps",
        "timings",
        "vouched",
    )  # fmt: skip

    def __init__(
        self, check: Proceeds, in_force: InForce, message: bytes, decision_id: str, now: float, started: float
    ) -> None:
        self._check = check
        self.in_force = in_force
        """What is in force for this request."""
        self._hits = in_force.tokens.hits
        self._started = started
        self.message = message
        self.decision_id = decision_id
        self.started_at = self.now = now
        self.attributes = NOTHING_KNOWN
        self.steps: Evaluation
        self.question: Question
        self._told: dict[TokenQuestion, TokenAnswer] = {}
        self.timings: tuple[Timing, ...] = ()
        self.answers: tuple[tuple[ProviderQuestion, ProviderAnswer], ...] = ()
        """What providers were asked and said, in their order; for the candidate policies, which ask nobody."""
        self.authenticated: Authenticated | None = None
        """What came of the RequestAuthentication stage; None where it was not reached, or has no rules."""
        self.vouched: Vouched | None = None
        """The limits of a proxy that asks in plain HTTP; None for an Envoy, which vouches for what it sends."""

    def ask(self, question: Question) -> None:
        """Take the next question, and note when it was asked."""
        self.question = question
        self._asked = perf_counter()

    def resume(self, answer: GivenAnswer, now: float) -> "bytes | Pending":
        """Go on with what the provider or issuer said. Never raises."""
        waited, question = perf_counter() - self._asked, self.question
        if isinstance(question, ProviderQuestion):
            self.timings += (Timing("provider.ask", now - waited, waited, question.provider.name),)
            if isinstance(answer, ProviderAnswer):
                self.answers += ((question, answer),)
        else:
            # kept here: the next look at the token must find it, however briefly it is remembered elsewhere
            self._told[question] = answer if isinstance(answer, TokenAnswer) else TokenAnswer(error="no answer")
            self.timings += (Timing("introspection.ask", now - waited, waited, question.introspection.issuer),)
        self.now = now
        return self._check.proceed(self, answer)

    def abandon(self) -> None:
        """The caller is gone: nobody will hear the decision, so none is made."""
        self.steps.close()

    def authenticate(
        self, attributes: AttributeContext, jwt_rules: tuple[JwtRule, ...]
    ) -> Authentication | TokenQuestion:
        """The RequestAuthentication stage, with the key sets that the request began with."""
        if not jwt_rules:
            return NOT_AUTHENTICATED
        http = attributes.http
        if http is not None and http.hides_headers and (refused := refuse_unseen(http, jwt_rules)) is not None:
            self.authenticated = http, jwt_rules, refused
            return refused
        check, started = self._check, perf_counter()
        try:
            result = authenticate(
                attributes,
                jwt_rules,
                self.in_force.key_sets,
                self.now,
                cache=self.in_force.tokens,
                max_token_bytes=check.max_token_bytes,
                on_unknown_key=check.on_unknown_key,
                known_answer=self._answer_of,
            )
        except MustAsk as needed:
            return needed.question
        self.authenticated = http, jwt_rules, result
        # This is for spans only, so it is left out where there will be none, or where nothing was verified.
        if result.outcome is not _NONE and not attributes.trace_parent.endswith("-00"):
            self.timings += (Timing("token.verify", self.now, perf_counter() - started, result.outcome.value),)
        return result

    def _answer_of(self, introspection: Introspection, token: str) -> TokenAnswer | None:
        question = TokenQuestion(introspection, token)
        return self._told.get(question) or self._check.remembered(question, self.now)

    @property
    def duration_seconds(self) -> float:
        """How long the decision has taken so far."""
        return perf_counter() - self._started

    @property
    def has_waited(self) -> bool:
        """Whether somebody was asked: then most of the duration is theirs."""
        return bool(self.answers or self._told)

    @property
    def policy_version(self) -> str:
        """The version of the policies that decide this request."""
        return self.in_force.snapshot.version

    def cache_hit(self, attributes: AttributeContext) -> bool | None:
        """Whether a token was known already; None without a token."""
        token = attributes.authentication.token
        if token is None:
            return None
        return not self._told if token.is_introspected else self.in_force.tokens.hits > self._hits
