"""
Cases of the conformance format through a real Envoy: the service, Envoy and the applications are started for a suite.

One Envoy for every flavour of sidecar that the cases need; the policies of a group are put in force as after a reload,
in a service in this process or hosted in Envoy (``hosting``). What is compared comes from outside the service: the
client's answer, what the upstream saw, and the dynamic metadata in Envoy's access log.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from authz.analysis.offline.request import to_attributes
from authz.analysis.suites.placeholders import substitute_keys, substitute_tokens
from authz.analysis.suites.suite import Case, Group, PolicyText, Suite
from authz.analysis.verify.proxy import Endpoints
from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import AttributeContext, Authentication, Json
from authz.core.decided import Offer
from authz.core.decision import Decision
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule
from authz.service.loading.snapshot import Snapshot
from authz.service.server import CheckServer
from authz.tokens.authenticate import authenticate
from authz.tokens.signing import KeyPool, make_keys, make_tokens
from authz.wire.answer import DECISION_ID_HEADER
from tests.envoy import sidecar as envoy
from tests.envoy.applications import Applications, applications
from tests.envoy.client import Answer, send
from tests.envoy.deciding import LARGEST_MESSAGE_BYTES, Deciding
from tests.service.recording import Recorder

KEYS = KeyPool()
"""Made once for all suites: a key costs more than a case."""
_RULE = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")
DOWN = "/down"


@dataclass(frozen=True)
class Ready:
    """A group as it is put in force."""

    group: Group
    texts: tuple[PolicyText, ...]
    """With keys in them."""
    snapshot: Snapshot
    tokens: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """Everything that is known of one case after it went through."""

    answer: Answer
    entry: Offer | None
    """What the service recorded; None: it was not asked."""
    log: Mapping[str, Json]
    """Envoy's access log line; empty when it was not asked."""


@dataclass(frozen=True)
class Outcome:
    """One case: keys that differ from what is expected or from the offline engine."""

    name: str
    differences: tuple[str, ...]


class Bench(Deciding):
    """The service, which is in this process, and everything around the sidecar."""

    def __init__(self, around: Applications, state: Path, audit: Recorder) -> None:
        super().__init__(around, audit)
        self.state = state
        self.identities = Identities(state / "identities")
        self.server = CheckServer(self.function, self.providers.ask, max_message_bytes=LARGEST_MESSAGE_BYTES)

    async def start(self) -> None:
        await self.server.start([f"unix:{self.state}/run/authz-0.sock"])
        self.server.health.set_serving(True)

    async def stop(self) -> None:
        await self.keys.close()
        await self.server.stop()
        await self.providers.close()

    def ready(self, group: Group, now: float) -> Ready:
        """Compile policies with the group's keys in them; its ``jwksUri`` lead to the key server."""
        assert not group.problems
        keys = make_keys(group.keys, KEYS)
        base = f"http://127.0.0.1:{self.around.keys}"
        texts = []
        for policies in group.policies:
            written = substitute_keys(
                policies.text, keys, lambda names: f"{base}/{group.id}/{names.replace(',', '+')}", base + DOWN
            )
            self.around.key_sets |= {uri.removeprefix(base): text for uri, text in written.documents.items()}
            texts.append(replace(policies, text=written.text))
        snapshot = self.prepare(group.id, texts, group.mesh, group.stubs, now)
        return Ready(group, tuple(texts), snapshot, make_tokens(group.tokens, keys, now))

    async def begin(self, groups: list[Ready]) -> None:
        """Have the policies of all groups at hand, and their keys."""
        await self.fetch_keys()

    async def put_in_force(self, ready: Ready) -> None:
        self.enforce(ready.group.id)

    async def recorded(self) -> list[Offer]:
        """Since the last group was put in force."""
        return self.take()

    async def ask(self, ready: Ready, case: Case) -> tuple[Answer, Offer | None]:
        """Send one case through the Envoy that runs."""
        await self.put_in_force(ready)
        request = case.request.substituted(lambda text: substitute_tokens(text, ready.tokens))
        port = request.destination_port if request.destination_port is not None else case.target.port
        if ready.group.is_gateway:
            request = replace(request, headers=tuple(_as_sent(request.headers, request.source_ip)))
        tls = request.tls in ("mtls", "simple") or bool(request.source_principal and not request.tls)
        trusted = any(
            request.source_principal.startswith(f"spiffe://{td}/") for td in ready.snapshot.mesh.trust_domains
        )
        if request.is_tcp:
            listener = envoy.TCP if trusted else envoy.TCP_ANY
        elif request.tls == "simple":
            listener = envoy.HTTP_SIMPLE
        else:
            listener = envoy.HTTP if trusted else envoy.HTTP_ANY
        ends = Endpoints(request.source_ip, request.destination_ip, port or 80)
        address = (envoy.own_address(), listener)
        answer = await asyncio.to_thread(send, address, ends, self.identities, request, tls=tls)
        entries = await self.recorded()
        assert len(entries) <= 1, "one request is one check (XA-61)"
        return answer, entries[0] if entries else None

    async def log_lines(self, name: str, ids: set[str]) -> dict[str, Mapping[str, Json]]:
        """Lines of the access log by decision id, once all are written."""
        file = self.state / "logs" / f"{name}.json"
        async with asyncio.timeout(10):
            while True:
                lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
                found = {line["decision_id"]: line for line in lines if line.get("decision_id")}
                if ids <= found.keys():
                    return found
                await asyncio.sleep(0.01)


def _as_sent(headers: tuple[tuple[str, str], ...], peer: str) -> Iterator[tuple[str, str]]:
    """Without the peer, which a gateway appends itself (CS-9)."""
    for name, value in headers:
        if name == "x-forwarded-for":
            before, _, last = value.rpartition(",")
            assert last.strip() == peer, "a gateway's last element is its peer"
            if before:
                yield name, before
        else:
            yield name, value


MakeBench = Callable[[Applications, Path, Recorder], Bench]


@contextlib.asynccontextmanager
async def bench(state: Path, audit: Recorder | None = None, make: MakeBench = Bench) -> AsyncIterator[Bench]:
    """Start the service and the applications; Envoy comes later."""
    (state / "run").mkdir()
    async with applications() as around:
        found = make(around, state, audit or Recorder())
        await found.start()
        try:
            yield found
        finally:
            await found.stop()


async def run(suite: Suite, state: Path, not_runnable: Mapping[str, str], make: MakeBench = Bench) -> list[Outcome]:
    """Send every case that can run, sidecar by sidecar; ``make`` says what answers the checks."""
    outcomes: list[Outcome] = []
    async with bench(state, make=make) as found:
        groups = [found.ready(group, time()) for group in suite.groups]
        await found.begin(groups)
        plan: dict[envoy.Flavour, list[tuple[Ready, Case]]] = {}
        for ready in groups:
            for case in ready.group.cases:
                if name_of(suite, ready.group, case) not in not_runnable:
                    workload = case.target.workload
                    flavour = envoy.Flavour.of(workload, ready.group.mesh, is_gateway=ready.group.is_gateway)
                    plan.setdefault(flavour, []).append((ready, case))
        upstreams = envoy.Upstreams(found.around.http, found.around.tcp)
        for number, (flavour, cases) in enumerate(plan.items()):
            name = f"sidecar-{number}"
            asked: list[tuple[Ready, Case, Answer, Offer | None]] = []
            with contextlib.ExitStack() as stack:
                process = envoy.sidecar(state, name, flavour, upstreams, found.identities)
                await asyncio.to_thread(stack.enter_context, process)
                for ready, case in cases:
                    asked.append((ready, case, *await found.ask(ready, case)))
                lines = await found.log_lines(name, {entry.decision_id for *_, entry in asked if entry is not None})
            for ready, case, answer, entry in asked:
                seen = Seen(answer, entry, lines[entry.decision_id] if entry is not None else {})
                differences = (*_against_expectation(ready, case, seen), *_against_offline(found, ready, case, seen))
                outcomes.append(Outcome(name_of(suite, ready.group, case), differences))
    return outcomes


def name_of(suite: Suite, group: Group, case: Case) -> str:
    return f"{Path(suite.file).stem}/{group.id}/{case.id}"


# --- comparing ---------------------------------------------------------------------------------------------------


def _against_expectation(ready: Ready, case: Case, seen: Seen) -> Iterator[str]:
    answer = seen.answer
    for key, expected in case.expect.items():
        actual = _actual(key, expected, case, seen)
        if actual != expected:
            yield f"{key}: expected {expected!r}, Envoy gives {actual!r} ({answer.status} {answer.body[:200]!r})"
    if seen.entry is not None and answer.status and answer.forwarded is None:
        told = answer.header(DECISION_ID_HEADER)
        if told != seen.entry.decision_id:
            yield f"{DECISION_ID_HEADER}: expected {seen.entry.decision_id}, the client got {told}"
    if case.upstream is None:
        return
    forwarded = answer.forwarded or {}
    for name, value in case.upstream.present.items():
        wanted = (substitute_tokens(value, ready.tokens),)
        if forwarded.get(name) != wanted:
            yield f"upstream {name}: expected {wanted}, the upstream saw {forwarded.get(name)}"
    for name in case.upstream.absent:
        if name in forwarded:
            yield f"upstream {name}: expected nothing, the upstream saw {forwarded[name]}"


def _actual(key: str, expected: Json, case: Case, seen: Seen) -> Json:
    answer, log = seen.answer, seen.log
    rule = str(log.get("rule") or "")
    match key:
        case "decision":
            passed = answer.is_open if case.request.is_tcp else answer.forwarded is not None
            told = {"ALLOW": True, "DENY": False}.get(str(log.get("decision")), passed)
            return "inconsistent" if told is not passed else ("allow" if passed else "deny")
        case "status":
            return answer.status
        case "stage":
            # Envoy answers by itself what cannot be normalised (PN-10).
            return str(log["stage"]) if log else ("normalization" if answer.status == 400 else None)
        case "by":
            return _short(rule)
        case "reported":
            return rule or None
        case "body":
            return answer.body.decode()
        case "wwwAuthenticate":
            return answer.header("www-authenticate")
        case "audit":
            return log.get("audit")
        case "dryRunAllow" | "dryRunDeny":
            name = "dry_run_allow" if key == "dryRunAllow" else "dry_run_deny"
            if log.get(name) is None:
                return None
            actual: dict[str, Json] = {"result": log[name], "by": _short(str(log.get(f"{name}_rule") or ""))}
            return {one: actual[one] for one in expected} if isinstance(expected, dict) else actual
        case "normalizedPath":
            if answer.forwarded is not None:
                return answer.forwarded[":path"][0]
            asked = seen.entry.attributes.http if seen.entry is not None else None
            return asked.path if asked is not None else None
        case _:
            raise AssertionError(f"unknown key of expect: {key}")


def _short(rule: str) -> str | None:
    found = _RULE.search(rule)
    return "/".join(found.groups()) if found is not None else None


def _against_offline(found: Bench, ready: Ready, case: Case, seen: Seen) -> Iterator[str]:
    """The whole decision of the service behind Envoy against that of the offline engine, said or not in ``expect``."""
    if seen.entry is None:
        return
    request = case.request.substituted(lambda text: substitute_tokens(text, ready.tokens))
    before = to_attributes(request, case.target, ready.snapshot.mesh, gateway=ready.group.is_gateway)

    def judge(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return authenticate(attributes, rules, found.keys.key_sets, time())

    def ask(question: ProviderQuestion) -> ProviderAnswer:
        match ready.group.stubs[question.provider.name]:
            case "allow":
                return ProviderAnswer(True)
            case "deny":
                return ProviderAnswer(False)
            case _:
                return ProviderAnswer(False, error="the stub cannot be asked")

    policies = ready.snapshot.engine.for_workload(case.target.workload)
    offline = decide(policies, before, judge, ask)[1]
    online = seen.entry.decision
    for name, value in _facts(offline).items():
        if _facts(online)[name] != value:
            yield f"{name}: offline {value!r}, behind Envoy {_facts(online)[name]!r}"


def _facts(decision: Decision) -> dict[str, object]:
    return {
        "effect": decision.effect,
        "stage": decision.stage,
        "rule": decision.rule,
        "status": decision.status,
        "body": decision.body,
        "headers": decision.headers,
        "audit": decision.audit,
        "dry_run_allow": decision.dry_run_allow,
        "dry_run_deny": decision.dry_run_deny,
        "obligations": decision.obligations,
        "reason": re.sub(r"\b\d+ s\b", "N s", decision.reason),  # how long ago: both are asked at times of their own
    }
