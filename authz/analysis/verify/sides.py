"""A trial's two sides: an Envoy with the filters of one workload, and the engine; both are given the same requests."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any

from authz.analysis.offline.request import OfflineWorkload
from authz.analysis.verify.facts import Bearer, Facts, request_bytes
from authz.analysis.verify.proxy import NUMBER, Connection, Endpoints, Running, Told, listener, manager, running
from authz.analysis.verify.requests import Sender
from authz.analysis.verify.trial_certificates import Identities
from authz.analysis.verify.two_accounts import facts_of_engine
from authz.core.attributes import AttributeContext, Authentication, Json
from authz.core.compiler import compile_engine
from authz.core.decision import Decision
from authz.core.engine import Engine
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule, PathNormalization
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.slots import fill_slots
from authz.envoy.native.value_matchers import Message
from authz.tokens.authenticate import authenticate
from authz.tokens.signing import SigningKey, make_token

STAND_IN = "authz-verify-provider"
KEY_ID = "authz-verify"
_METHODS: Message = {"http_protocol_options": {"allow_custom_methods": True}}
"""HTTP/2 carries any method anyway, and rules may name any."""
_NORMALIZATION: Mapping[PathNormalization, Message] = {
    PathNormalization.NONE: {"normalize_path": False},
    PathNormalization.BASE: {"normalize_path": True},
    PathNormalization.MERGE_SLASHES: {"normalize_path": True, "merge_slashes": True},
    PathNormalization.DECODE_AND_MERGE_SLASHES: {
        "normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrialSubject:
    """The workload whose policies are tried."""

    target: OfflineWorkload
    gateway: bool = False
    form: Form = Form.AUTO
    walk: int | None = None
    max_requests: int = 10_000


def trial_engine(engine: Engine, key_sets: Mapping[str, str], key: SigningKey) -> Engine:
    """The same policies with a key of ours in every key set, and providers that the stand-in can play."""
    authentications = []
    for item in engine.resources.request_authentications:
        rules = []
        for rule in item.jwt_rules:
            text = _joined(rule.jwks or key_sets.get(rule.keys_from, ""), key)
            rules.append(replace(rule, jwks=text))
        authentications.append(replace(item, jwt_rules=tuple(rules)))
    providers = tuple(
        replace(one, protocol="http", path_prefix="") if one.is_usable else one
        for one in engine.mesh.extension_providers
    )
    mesh = replace(engine.mesh, extension_providers=providers)
    resources = replace(engine.resources, request_authentications=tuple(authentications))
    return compile_engine(resources, mesh)


def _joined(text: str, key: SigningKey) -> str:
    try:
        document = json.loads(text) if text else {}
    except ValueError:
        document = {}
    keys = document.get("keys") if isinstance(document, dict) else None
    return json.dumps({"keys": [*(keys if isinstance(keys, list) else []), dict(key.jwk)]})


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request that was sent, and Envoy's answer; None where it closed without one."""

    index: int
    """The request's number among those that were chosen."""
    facts: Facts
    told: Told | None

    @property
    def number(self) -> str:
        """The request's number as the log writes it."""
        return str(self.index)

    @property
    def is_surely_logged(self) -> bool:
        """Envoy closes after a request that its codec refuses, and its log then may not know the header."""
        return self.told is not None and self.told.headers.get("connection") != "close"


@dataclass(slots=True)
class Decided:
    """The engine's answer to one request, and the providers that it asked."""

    decision: Decision
    attributes: AttributeContext
    asked: list[ProviderQuestion]

    @property
    def rules(self) -> set[str]:
        """Every rule that the decision names, whatever its stage."""
        decision = self.decision
        found = [decision.rule, decision.audit_rule, *(one.rule for one in self.asked)]
        found += [one.rule for one in (decision.dry_run_allow, decision.dry_run_deny) if one is not None]
        return {one.short for one in found if one is not None}

    @property
    def answers(self) -> dict[str, str]:
        """The answers of the stand-in, by provider."""
        return {one.provider.name: "allow" for one in self.asked}

    def differences(self, told: Mapping[str, object], *, has_body: bool) -> tuple[tuple[str, object, object], ...]:
        """Facts that differ: what, Envoy's, the engine's; a HEAD request has no body to compare."""
        ours = facts_of_engine(self.decision)
        if not has_body:
            del ours["body"]
        return tuple((name, told[name], ours[name]) for name in ours if told[name] != ours[name])


class Trial:
    """The filters of one workload, ready to be run, and the engine that they are held against."""

    def __init__(self, engine: Engine, subject: TrialSubject, key: SigningKey) -> None:
        self._engine = engine
        self._subject = subject
        self._key = {"key": key}
        self._now = time()
        self._tokens: dict[str, Bearer] = {}
        self.policies = engine.for_workload(subject.target.workload)
        assert subject.target.port is not None, "whoever tries a workload says the port"
        self.sender = Sender(self.policies, subject.target.port, subject.gateway)
        more = {} if subject.walk is None else {"walk": subject.walk}
        self._filters = http_filters(
            engine, subject.target.workload, {}, form=subject.form, gateway=subject.gateway,
            cluster_of=lambda _: STAND_IN, **more,
        )  # fmt: skip
        self.is_restricted = self.policies.http.allow is not None

    def running(self, directory: Path, binary: str) -> Any:
        """The Envoy; a context manager."""
        identities = Identities(directory)
        identities.write(directory / "server", str(self.sender.someone))
        mesh = self._engine.mesh
        slots: list[Message] = [
            {"name": resource["name"], "typed_config": resource["typed_config"]}
            for resource in fill_slots(self._filters.filters, mesh)
        ]
        fields: Message = {
            **_NORMALIZATION[mesh.path_normalization],
            **_METHODS,
            "common_http_protocol_options": {"headers_with_underscores_action": "ALLOW"},
        }
        if self._subject.gateway:
            fields |= {"use_remote_address": True, "xff_num_trusted_hops": mesh.num_trusted_proxies}
        listeners = [listener("trial", slots, directory, **fields), _stand_in()]
        return running(directory, listeners, identities, clusters=[_cluster()], binary=binary)

    def ask(self, envoy: Running, chosen: Sequence[Facts], say: Callable[[str], None]) -> Iterator[SentRequest]:
        """
        Send everything, connection by connection; None is told where Envoy closed without an answer.

        The last one is an ordinary request: once Envoy has logged it, it has logged all of them.
        """
        line = _Line(self, envoy)
        ordered = sorted(enumerate(chosen), key=lambda one: one[1].connection)
        for done, (index, facts) in enumerate([*ordered, (len(chosen), self.sender.base())]):
            if done and done % 1000 == 0:
                say(f"  {done} of {len(chosen)} sent")
            yield SentRequest(index, facts, line.send(facts, index))
        line.close()

    def send_bytes(self, facts: Facts, index: int) -> bytes:
        """The request with the number by which the log knows it."""
        return request_bytes(facts.offline(self._token(facts)), (NUMBER, str(index)))

    def connect(self, envoy: Running, facts: Facts) -> Connection:
        """Raises OSError, and ValueError for an identity or a server name that no certificate or hello can have."""
        ends = Endpoints(facts.remote_ip or facts.source_ip, facts.destination_ip, facts.port)
        return envoy.connect("trial", ends, identity=facts.identity, sni=facts.sni, source=facts.source_ip)

    def decide(self, facts: Facts) -> Decided:
        """The engine's answer."""
        asked: list[ProviderQuestion] = []

        def judge(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
            return authenticate(attributes, rules, {}, self._now)

        def answer(question: ProviderQuestion) -> ProviderAnswer:
            asked.append(question)
            return ProviderAnswer(allowed=True)

        before = facts.attributes(
            self._subject.target, self._engine.mesh, self._token(facts), gateway=self._subject.gateway
        )
        after, decision = decide(self.policies, before, judge, answer)
        return Decided(decision, after, asked)

    def _token(self, facts: Facts) -> Bearer | None:
        if facts.claims is None or not self.policies.jwt_rules:
            return None
        name = repr(facts.claims)
        if name not in self._tokens:
            self._tokens[name] = self._signed(facts.claims)
        return self._tokens[name]

    def _signed(self, claims: Mapping[str, Json]) -> Bearer:
        rules = self.policies.jwt_rules
        rule = next((one for one in rules if one.issuer in ("", claims.get("iss"))), rules[0])
        made: dict[str, Json] = {"iss": rule.issuer or "https://issuer.test", "sub": "someone"}
        if rule.audiences:
            made["aud"] = rule.audiences[0]
        return Bearer(
            make_token({"key": "key", "alg": "RS256", "claims": {**made, **claims}}, self._key, self._now), rule
        )


class _Line:
    """The connection of the trial's client: a new one where another peer, port or name is needed, or Envoy closed."""

    def __init__(self, trial: Trial, envoy: Running) -> None:
        self._trial = trial
        self._envoy = envoy
        self._connection: Connection | None = None
        self._of: object = None

    def send(self, facts: Facts, index: int) -> Told | None:
        try:
            if self._connection is None or facts.connection != self._of:
                self.close()
                self._connection = self._trial.connect(self._envoy, facts)
                self._of = facts.connection
            told = self._connection.send(self._trial.send_bytes(facts, index))
        except (OSError, ValueError):
            self.close()
            return None
        if told.headers.get("connection") == "close":
            self.close()
        return told

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _stand_in() -> Message:
    return {
        "name": "provider",
        "address": {"pipe": {"path": "provider.sock"}},
        "filter_chains": [{"filters": [manager([], stat_prefix="provider", access_log=[], **_METHODS)]}],
    }


def _cluster() -> Message:
    endpoint: Json = {"endpoint": {"address": {"pipe": {"path": "provider.sock"}}}}
    return {
        "name": STAND_IN,
        "type": "STATIC",
        "load_assignment": {"cluster_name": STAND_IN, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
