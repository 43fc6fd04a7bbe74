"""
Three evaluators of one set of policies, asked the same: Istio's linear filters and the looked-up filters on a real
Envoy, and our engine.

A pair is one policy set and one request, or one TCP connection; a disagreement is told with all that is needed to
repeat it.
"""

import json
import re
import socket
import time as clock
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from time import time
from typing import Any
from urllib.parse import quote

from authz.analysis.offline.request import OfflineRequest, to_attributes
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify.proxy import NUMBER, Endpoints, Running, Told, listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.analysis.verify.two_accounts import OK, facts_of_engine, told_by_envoy
from authz.core.attributes import AttributeContext, Authentication, Json
from authz.core.decision import Decision, Stage
from authz.core.engine import Engine
from authz.core.pipeline import decide
from authz.core.resources import JwtRule
from authz.envoy.native.filters import NativeFilters, http_filters, tcp_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.linear import Filter
from authz.envoy.native.slots import fill_slots
from authz.envoy.native.value_matchers import TYPE, Message
from authz.tokens.authenticate import authenticate
from tests.envoy.client import connect
from tests.envoy.native.generated import RandomRequest, random_request
from tests.envoy.native.providers import answer, cluster_of, providers
from tests.envoy.native.speaking import Line
from tests.envoy.native.worlds import ASCII, World, as_judged, as_sent, random_methods, random_world

PER_CONNECTION = 10
LAST = "last"
CONNECTIONS = "connections.json"
_SECONDS = 30.0
_A_TOKEN = re.compile(r"\bey[\w-]+\.[\w-]+\.[\w-]+")
_TOKEN = re.compile('tok=[^"]*')


@dataclass(frozen=True)
class PolicySet:
    """Policies and their forms; TCP has one form only, which is in ``linear``."""

    seed: int
    world: World
    engine: Engine
    linear: NativeFilters
    indexed: NativeFilters

    @property
    def is_restricted(self) -> bool:
        """Whether ALLOW policies apply."""
        return self.engine.for_workload(self.world.target.workload).http.allow is not None


def policy_set(seed: int) -> PolicySet:
    """The policy set of a seed."""
    rng = Random(seed)
    world = random_world(rng)
    engine = compile_texts([PolicyText("policies.yaml", world.documents)], world.mesh)
    assert isinstance(engine, Engine), engine
    walk = rng.choice((0, 1, 3, 20))
    workload = world.target.workload
    if world.is_tcp:
        tcp = tcp_filters(engine, workload, cluster_of=cluster_of)
        return PolicySet(seed, world, engine, tcp, tcp)

    def made(form: Form, walk: int) -> NativeFilters:
        return http_filters(engine, workload, {}, form=form, walk=walk, gateway=world.is_gateway, cluster_of=cluster_of)

    return PolicySet(seed, world, engine, made(Form.LINEAR, 0), made(Form.INDEXED, walk))


@dataclass(frozen=True)
class Disagreement:
    seed: int
    request: OfflineRequest
    facts: tuple[tuple[str, object, object, object], ...]
    """Fact, what the linear form, the looked-up form and the engine say."""


@dataclass
class Compared:
    pairs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Pairs by what is particular about them, and how they ended."""
    disagreements: list[Disagreement] = field(default_factory=list)


def compare(directory: Path, first_seed: int, sets: int, requests: int) -> Compared:
    """Compare so many policy sets by so many requests each."""
    identities = Identities(directory)
    identities.write(directory / "server", "spiffe://cluster.local/ns/shop/sa/api")
    chosen = [policy_set(seed) for seed in range(first_seed, first_seed + sets)]
    compared = Compared()
    with (
        providers() as clusters,
        running(
            directory, [made for one in chosen for made in _listeners(one, directory)], identities, clusters=clusters
        ) as envoy,
    ):
        asked = [found for one in chosen if not one.world.is_tcp for found in _ask(one, envoy, requests)]
        connected = [found for one in chosen if one.world.is_tcp for found in _connect(one, envoy, requests)]
        log = _logged(envoy, chosen)
        ended = connections(directory / CONNECTIONS, len(connected))
    for question in asked:
        _add(compared, question.policies.seed, question.sent, question.kinds(log), question.differences(log))
    for connection in connected:
        facts = connection.differences(ended)
        _add(compared, connection.policies.seed, connection.sent, connection.kinds(), facts)
    return compared


def _add(
    compared: Compared,
    seed: int,
    request: OfflineRequest,
    kinds: Sequence[str],
    facts: tuple[tuple[str, object, object, object], ...],
) -> None:
    compared.pairs += 1
    compared.kinds.update(kinds)
    if facts:
        compared.disagreements.append(Disagreement(seed, request, facts))


def _listeners(one: PolicySet, directory: Path) -> Iterator[Message]:
    if one.world.is_tcp:
        yield _tcp_listener(one, directory)
        return
    yield listener(f"linear-{one.seed}", one.linear.filters, directory, **one.world.fields)
    found: Sequence[Filter | Message] = one.indexed.filters
    if one.seed % 2:  # every other set as the resources that a mesh delivers
        resources = fill_slots(one.indexed.filters, one.world.mesh)
        found = [{"name": str(made["name"]), "typed_config": made["typed_config"]} for made in resources]
    yield listener(f"indexed-{one.seed}", found, directory, **one.world.fields)


# --- HTTP ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    policies: PolicySet
    sent: OfflineRequest
    linear: Told | None
    indexed: Told | None
    number: str
    is_http2: bool

    def kinds(self, log: Mapping[str, Mapping[str, Any]]) -> list[str]:
        line = log.get(f"l{self.number}", {})
        world = self.policies.world
        return [
            "allowed" if self.linear is not None and self.linear.status == OK else "refused",
            "gateway" if world.is_gateway else "sidecar",
            "HTTP/2" if self.is_http2 else "HTTP/1.1",
            *([self.sent.method] if self.sent.method == "CONNECT" else []),
            *(["provider asked"] if str(line.get("details", "")).startswith("ext_authz") else []),
            *(["unasked"] if self._facts(self.linear, line) is None else []),
        ]

    def _facts(self, told: Told | None, line: Mapping[str, Any]) -> dict[str, object] | None:
        found = told_by_envoy(told, line, restricted=self.policies.is_restricted) if line else None
        return _comparable(found, self.sent) if found is not None else None

    def _is_looked_at_twice(self) -> bool:
        """Of several rules: Envoy may have removed a good token when it meets a bad one, and we refuse (RA-5)."""
        rules = self.policies.engine.for_workload(self.policies.world.target.workload).jwt_rules
        tokens = len(_A_TOKEN.findall(str((self.sent.path, self.sent.headers))))
        return len(rules) > 1 and tokens > 1

    def differences(self, log: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, object, object, object], ...]:
        linear = self._facts(self.linear, log.get(f"l{self.number}", {}))
        indexed = self._facts(self.indexed, log.get(f"i{self.number}", {}))
        decision = _judged(self.policies, as_judged(self.policies.world, self.sent, is_http2=self.is_http2))[1]
        if linear is None or indexed is None:  # the codec refused the request, and no policy was asked
            asked = (linear is not None, indexed is not None, decision.stage.value)
            return () if linear is indexed else (("asked", *asked),)
        ours = _comparable(facts_of_engine(decision), self.sent)
        if decision.stage is Stage.JWT and self._is_looked_at_twice():
            ours = linear
        return tuple(
            (name, value, indexed[name], ours[name])
            for name, value in linear.items()
            if not value == indexed[name] == ours[name]
        )


def _comparable(facts: dict[str, object], request: OfflineRequest) -> dict[str, object]:
    """Without what differs on purpose: our challenge shows no token, and is printable ASCII (XA-183)."""
    if request.method in ("HEAD", "CONNECT"):
        del facts["body"]
    challenge = facts["www-authenticate"]
    if isinstance(challenge, str):
        facts["www-authenticate"] = quote(_TOKEN.sub("tok=", challenge).replace("\\", "%5C"), safe=ASCII)
    return facts


def _ask(one: PolicySet, envoy: Running, requests: int) -> Iterator[_Asked]:
    rng = Random(one.seed + 10**6)
    for round_number in range(max(1, requests // PER_CONNECTION)):
        base = random_request(rng)
        is_http2 = rng.random() < 0.3
        methods = random_methods(rng, is_http2=is_http2)
        sent = [as_sent(one.world, base, random_request(rng, methods), rng) for _ in range(PER_CONNECTION)]
        numbers = [f"{one.seed}-{round_number}-{index}" for index in range(PER_CONNECTION)]
        answers = []
        for form in ("linear", "indexed"):
            ends = Endpoints(base.source_ip, "10.1.0.5", 8080)
            line = Line(envoy, f"{form}-{one.seed}", ends, base.identity, "a.test", is_http2)
            answers.append(
                [
                    line.tell(replace(found, headers=(*found.headers, (NUMBER, form[0] + number))))
                    for found, number in zip(sent, numbers, strict=True)
                ]
            )
            line.close()
        for request, linear, indexed, number in zip(sent, *answers, numbers, strict=True):
            yield _Asked(one, request, linear, indexed, number, is_http2)


def _logged(envoy: Running, chosen: Sequence[PolicySet]) -> dict[str, dict[str, Any]]:
    """The access log, once an ordinary request that was sent after all others is in it."""
    for one in chosen:
        if not one.world.is_tcp:
            line = Line(envoy, f"linear-{one.seed}", Endpoints("127.0.0.1", "10.1.0.5", 8080), "", "", is_http2=False)
            line.tell(OfflineRequest(headers=((NUMBER, LAST),)))
            line.close()
            return envoy.logged_of({LAST})
    return {}


def _judged(one: PolicySet, request: OfflineRequest) -> tuple[AttributeContext, Decision]:
    def judge(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return authenticate(attributes, rules, {}, time())

    world = one.world
    attributes = to_attributes(request, world.target, world.mesh, gateway=world.is_gateway)
    return decide(one.engine.for_workload(world.target.workload), attributes, judge, answer)


# --- TCP -----------------------------------------------------------------------------------------------------------


def _tcp_listener(one: PolicySet, directory: Path) -> Message:
    """Its connections are told apart by the port that the PROXY header says they come from."""
    return tcp_listener(f"tcp-{one.seed}", one.linear.filters, directory)


def tcp_listener(name: str, filters: Sequence[Filter], directory: Path) -> Message:
    """A listener of a TCP port whose application says what it is told."""
    found = listener(name, [], directory)
    echo: Message = {"name": "echo", "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.network.echo.v3.Echo"}}
    chains = found["filter_chains"]
    assert isinstance(chains, list)
    for chain in chains:
        assert isinstance(chain, dict)
        chain["filters"] = [*(one.as_extension() for one in filters), echo]
    fields: dict[str, Json] = {
        "from": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "details": "%CONNECTION_TERMINATION_DETAILS%",
        "rbac": "%DYNAMIC_METADATA(envoy.filters.network.rbac)%",
    }
    log: Message = {
        "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": CONNECTIONS,
        "log_format": {"json_format": fields},
    }
    return {**found, "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}]}


@dataclass(frozen=True)
class Numbered(Endpoints):
    """Ends of which the client's port is told, by which its connection is found in the log."""

    number: int = 0

    @property
    def address(self) -> str:
        """As the log tells it."""
        return f"[{self.source}]:{self.number}" if ":" in self.source else f"{self.source}:{self.number}"

    def header(self) -> bytes:
        return super().header().replace(b" 40000 ", f" {self.number} ".encode())


@dataclass(frozen=True)
class _Connected:
    policies: PolicySet
    sent: OfflineRequest
    address: str
    is_open: bool

    def kinds(self) -> list[str]:
        return ["TCP", "allowed" if self.is_open else "refused"]

    def differences(self, log: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, object, object, object], ...]:
        line = log[self.address]
        metadata: Mapping[str, str] = line["rbac"] or {}
        decision = _judged(self.policies, self.sent)[1]
        details = str(line["details"] or "")
        named = details.removeprefix("rbac_access_denied_matched_policy[").removesuffix("]")
        is_named = details.startswith("rbac_") and named != "none"
        ours = facts_of_engine(decision)
        envoy: dict[str, object] = {
            "open": self.is_open,
            "dry run deny": shadow(metadata, "istio_dry_run_deny_"),
            "dry run allow": shadow(metadata, "istio_dry_run_allow_"),
        }
        engine: dict[str, object] = {**ours, "open": decision.is_allowed}
        if details.startswith("rbac_"):
            envoy["rule"] = named if is_named else ""
        return tuple((name, value, value, engine[name]) for name, value in envoy.items() if value != engine[name])


def shadow(metadata: Mapping[str, str], prefix: str) -> tuple[str, str] | None:
    result = metadata.get(f"{prefix}shadow_engine_result")
    return (result, metadata.get(f"{prefix}shadow_effective_policy_id", "")) if result else None


def _connect(one: PolicySet, envoy: Running, requests: int) -> Iterator[_Connected]:
    rng = Random(one.seed + 10**6)
    for number in range(max(1, requests // 2)):
        base: RandomRequest = random_request(rng)
        port = rng.choice((8080, 8081, 80, 9999))
        own_port = 1024 + 200 * (one.seed % 300) + number % 200
        ends = Numbered(base.source_ip, rng.choice(("10.1.0.5", "10.9.1.1")), port, own_port)
        sent = OfflineRequest(
            protocol="tcp", source_principal=base.identity, source_ip=ends.source, destination_ip=ends.destination,
            destination_port=port, sni=rng.choice(("a.test", "B.test", "x.test")) if base.identity else "",
        )  # fmt: skip
        is_open = opens(envoy, f"tcp-{one.seed}", ends, base.identity, sent.sni, ends.source)
        yield _Connected(one, sent, ends.address, is_open)


def opens(envoy: Running, name: str, ends: Endpoints, identity: str, sni: str, source: str = "") -> bool:
    """Whether the application behind a TCP port answers."""
    context = envoy.identities.client(identity) if identity else None
    try:
        with connect(("127.0.0.1", envoy.ports[name]), ends, context, sni, source) as connection:
            connection.sendall(b"hello")
            is_open = connection.recv(16) == b"hello"
            connection.shutdown(socket.SHUT_RDWR)
            return is_open
    except OSError:
        return False


def connections(file: Path, number: int) -> dict[str, dict[str, Any]]:
    """Lines by address of the client, once there are so many."""

    def lines() -> list[bytes]:
        return file.read_bytes().rpartition(b"\n")[0].splitlines() if file.exists() else []

    _until(lambda: len(lines()) >= number)
    return {str(line["from"]): line for line in map(json.loads, lines())}


def _until(holds: Callable[[], bool]) -> None:
    end = clock.monotonic() + _SECONDS
    while not holds():
        assert clock.monotonic() < end, "Envoy did not log every connection"
        clock.sleep(0.02)
