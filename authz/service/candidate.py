"""
The candidate: a second set of policies that decides every request in shadow, before anybody depends on it.

It follows a path of its own, whose absence means that there is none, and shares mesh settings, keys and what was found
out for the request with the policies in force. It asks nobody: what only a provider, an issuer or keys that nobody
fetches could tell is undecided. No answer depends on it, and a mistake in it is counted.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from authz.core.attributes import NOT_AUTHENTICATED, AttributeContext, Authentication, AuthenticationOutcome
from authz.core.decided import CandidateAnswer, CandidateResult
from authz.core.decision import Decision, Effect, Stage
from authz.core.errors import SettingsError
from authz.core.introspection import Introspection, TokenAnswer, TokenQuestion
from authz.core.pipeline import evaluate
from authz.core.providers import ProviderQuestion
from authz.core.resources import JwtRule
from authz.service.candidate_differences import CandidateDifferences, difference
from authz.service.check_function import CheckFunction
from authz.service.loading.promotion import are_nested
from authz.service.loading.reload import Reloader, let_go_of
from authz.service.loading.snapshot import Snapshot
from authz.service.pending import Pending
from authz.service.ports.failure import where_it_failed
from authz.service.same_rules import SameRules
from authz.settings.sections import PolicySettings, TokenSettings
from authz.sources.policies.watching import watch
from authz.telemetry.status import CandidateStatus, ReloadStatus
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.opaque import MustAsk
from authz.tokens.unseen import refuse_unseen

_log = logging.getLogger("authz.candidate")
_DENY = Effect.DENY
TIMED_EACH = 16
"""Of so many requests one has its time taken."""


class _Undecided(Exception):  # not an error: a way out of the stages, caught in ``judge``
    """The candidate needs a fact that nobody found out for this request."""


class Candidate:
    """``run`` follows the files; ``judge`` is called by the check function while there is a candidate."""

    def __init__(
        self, path: Path, policies: PolicySettings, function: CheckFunction, clock: Callable[[], float], tokens: int
    ) -> None:
        """``tokens`` is how many verified tokens are remembered; those of other rules than the ones in force are."""
        self._path = path
        self._policies = policies
        self._function = function
        self._clock = clock
        self._tokens = tokens
        self._reloader: Reloader | None = None
        self._snapshot: Snapshot | None = None
        self._cache = TokenCache(tokens)
        self._same_rules = SameRules()
        self._results = dict.fromkeys(("same", *CandidateResult, "undecided", "failed"), 0)
        self._before = dict(self._results)
        self._differences = CandidateDifferences()
        self._since = 0.0
        self._turn = 0
        self._timed, self._own_seconds, self._check_seconds = 0, 0.0, 0.0

    @classmethod
    def of(
        cls, policies: PolicySettings, tokens: TokenSettings, function: CheckFunction, clock: Callable[[], float]
    ) -> "Candidate | None":
        """
        None where the settings name none.

        Raises:
            SettingsError: the candidate would be read with the policies in force, or these with it.
        """
        path = policies.candidate
        if path is None:
            return None
        if are_nested(path, policies.place):
            raise SettingsError(f"setting `candidate`: `{path}` and the policies in force lie one within the other")
        return cls(path, policies, function, clock, tokens.cache_size)

    @property
    def status(self) -> CandidateStatus:
        """How the candidate is and what came of it, from any thread."""
        reload = self._reloader.status if self._reloader is not None else ReloadStatus()
        results, before, differences = {**self._results}, self._before, self._differences
        return CandidateStatus(
            reload,
            {str(name): number for name, number in results.items()},
            self._since if self._snapshot is not None else 0.0,
            {str(name): number - before[name] for name, number in results.items()},
            differences.found,
            differences.uncounted,
            self._timed,
            self._own_seconds,
            self._check_seconds,
        )

    async def run(self) -> None:
        """Load at once and at every change, until cancelled. Never raises but for that."""
        mesh, ready = self._policies.mesh, asyncio.Event()
        paths = [self._path, *([mesh] if mesh is not None else [])]
        first = asyncio.create_task(self._first(ready), name="first candidate")
        try:
            async for _ in watch(paths, ready=ready):
                await first
                await self._load()
        except Exception as error:
            _log.error("the candidate is no longer followed: %s", where_it_failed(error))
        finally:
            first.cancel()
            if self._reloader is not None:
                self._reloader.stop()

    async def _first(self, ready: asyncio.Event) -> None:
        await ready.wait()
        await self._load()

    async def _load(self) -> None:
        """Load what is there; nothing there means no candidate, which is not a problem."""
        if not _is_there(self._path):
            if self._reloader is not None:
                _log.info("the candidate `%s` is gone: nothing decides in shadow", self._path)
            old = [self._snapshot]
            self._function.shadow = self._snapshot = self._reloader = None
            await asyncio.to_thread(let_go_of, old)  # piece by piece: checks do not wait for it
            return
        if self._reloader is None:
            read = self._policies
            self._reloader = Reloader(
                self._path, read.mesh, self.replace, self._clock, allow_empty=read.allow_empty, is_candidate=True
            )
        live = self._function.snapshot
        await self._reloader.load(live.engine.known_workloads() if live is not None else ())

    def replace(self, snapshot: Snapshot) -> None:
        """Let a set of policies be the candidate, whole and at once."""
        self._cache = TokenCache(self._tokens)
        self._same_rules = SameRules()
        self._snapshot = snapshot
        self._before, self._differences, self._since = dict(self._results), CandidateDifferences(), self._clock()
        self._timed, self._own_seconds, self._check_seconds = 0, 0.0, 0.0
        self._function.shadow = self

    def judge(self, request: Pending, decision: Decision) -> CandidateAnswer | None:
        """Decide the request again, compare and count. Never waits, never raises."""
        self._turn = (self._turn + 1) % TIMED_EACH
        if self._turn or request.has_waited:
            return self._judge(request, decision)
        began, taken = perf_counter(), request.duration_seconds
        answer = self._judge(request, decision)
        self._own_seconds += perf_counter() - began
        self._check_seconds += taken
        self._timed += 1
        return answer

    def _judge(self, request: Pending, decision: Decision) -> CandidateAnswer | None:
        try:
            snapshot = self._snapshot
            if snapshot is None:
                return None
            answer = _compared(request, decision, self._decide(snapshot, request))
            if answer is None:
                self._results["same"] += 1
                return None
            self._results[answer.result] += 1
            workload = request.attributes.destination.workload
            self._differences.add(workload, decision.rule, answer, request.decision_id, request.started_at)
            return answer
        except _Undecided:
            self._results["undecided"] += 1
        except Exception as error:
            self._results["failed"] += 1
            _log.error("the candidate failed at decision %s: %s", request.decision_id, where_it_failed(error))
        return None

    def _decide(self, snapshot: Snapshot, request: Pending) -> Decision:
        """Run the stages with what is known of the request."""
        attributes = request.attributes
        policies = snapshot.engine.for_workload(attributes.destination.workload)

        def judge_tokens(seen: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
            return self._authenticate(request, seen, rules)

        steps, answer = evaluate(policies, attributes, judge_tokens), None
        try:
            while True:
                question = steps.send(answer)  # type: ignore[arg-type]  # None starts a generator
                answer = _known(request, question) if isinstance(question, ProviderQuestion) else None
                if answer is None:
                    raise _Undecided
        except StopIteration as stop:
            decided: Decision = stop.value[1]
            return decided

    def _authenticate(
        self, request: Pending, attributes: AttributeContext, rules: tuple[JwtRule, ...]
    ) -> Authentication:
        """The outcome of the policies in force where it is the same question, else that of rules and keys of ours."""
        if not rules:
            return NOT_AUTHENTICATED
        http, known = attributes.http, request.authenticated
        if known is not None and (known[0] is http or known[0] == http) and self._same_rules(known[1], rules):
            return known[2]
        if http is not None and http.hides_headers and (refused := refuse_unseen(http, rules)) is not None:
            return refused
        key_sets = request.in_force.key_sets
        try:
            result = authenticate(
                attributes,
                rules,
                key_sets,
                request.now,
                cache=self._cache,
                max_token_bytes=self._function.max_token_bytes,
                known_answer=_nothing_known,
            )
        except MustAsk as needed:
            raise _Undecided from needed
        is_refused = result.outcome is AuthenticationOutcome.REJECTED
        if is_refused and any(not (rule.jwks or rule.is_asked_only or rule.keys_from in key_sets) for rule in rules):
            raise _Undecided  # nobody fetches the keys that might have verified it
        return result


def _compared(request: Pending, decision: Decision, decided: Decision) -> CandidateAnswer | None:
    """How the candidate's decision differs from the answer; None where it does not."""
    vouched = request.vouched
    if vouched is not None and decided.is_allowed and vouched.undoable(decided.obligations):  # its answer would deny
        if decision.is_allowed:
            return CandidateAnswer(CandidateResult.NEWLY_DENIED, _DENY, decided.rule, decided.status)
        return None  # both are refused for what the proxy cannot do
    if decision.stage is Stage.INTERNAL and not decided.is_allowed:
        return None
    return difference(decision, decided)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # whether it is cannot be seen: loading it says why
        return True


def _known(request: Pending, question: ProviderQuestion) -> object:
    """What that provider said about the very same request; None if it was not asked."""
    for asked, answer in request.answers:
        if asked.provider == question.provider and asked.attributes == question.attributes:
            return answer
    return None


def _nothing_known(introspection: Introspection, token: str) -> TokenAnswer:
    raise MustAsk(TokenQuestion(introspection, token))
