"""
Requests that a rule probably matches, made of what is written in it.

They are only guesses: the engine says what they are. Most rules are shown to be needed by one of them, long before
values are told apart for a proof.
"""

import itertools
from collections.abc import Iterator, Sequence

from authz.analysis.needless.staged_rules import StagedRule
from authz.analysis.offline.request import OfflineRequest
from authz.analysis.sets import possible
from authz.analysis.sets.claim_values import as_claim
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.request_variables import (
    CLAIM,
    DESTINATION_IP,
    HEADER,
    HOST,
    IDENTITY,
    METHOD,
    PATH,
    PORT,
    REMOTE_IP,
    SNI,
    SOURCE_IP,
    SUBJECT,
    WITHIN,
    name_of,
)
from authz.analysis.sets.token_cases import STRANGER, TokenCase, places_of, touched_headers
from authz.analysis.sets.witness import Witness
from authz.analysis.sets.words import Possible, is_possible
from authz.core.attributes import Json
from authz.core.resources import JwtRule, Presence
from authz.core.rules import Predicate

MAX_PRODUCTS = 4
"""Pairs of a source and an operation that requests are made of."""


def guessed_requests(pair: PolicyPair, rule: StagedRule) -> Iterator[Witness]:
    """A few requests: of the first value of every field, and of the last; without identity where none is asked for."""
    form = rule.compiled[0]
    products = itertools.product(form.sources or ((),), form.operations or ((),))
    for source, operation in itertools.islice(products, MAX_PRODUCTS):
        asked = [*form.conditions, *operation, *source]
        for at in (0, -1):
            guess = _Guess(pair, asked, at)
            if guess.can_be():
                yield guess.request("mtls")
                if IDENTITY not in guess.texts:
                    yield guess.request("plaintext")


def anonymous_request(pair: PolicyPair) -> Witness:
    """What anybody can send: no identity, no token, nothing special."""
    return _Guess(pair, (), 0).request("plaintext")


class _Guess:
    """The values that a product of a rule asks for."""

    def __init__(self, pair: PolicyPair, asked: Sequence[Predicate], at: int) -> None:
        self.pair = pair
        self.texts: dict[str, str] = {}
        self.issuer = ""
        for predicate in asked:
            if predicate.any_of is not None and predicate.any_of.written:
                self._add(predicate, predicate.any_of.written[at])

    def _add(self, predicate: Predicate, written: str) -> None:
        text = written.replace("{**}", "x").replace("{*}", "x").replace("*", "x")
        name, key = name_of(predicate.attribute), predicate.attribute.key
        domain, namespace = self.pair.new.mesh.trust_domain, self.pair.new.workload.namespace
        if name == IDENTITY:
            forms = {
                "source.principal": text if "/ns/" in text else f"{domain}/ns/{namespace}/sa/{text.rpartition('/')[2]}",
                "source.namespace": f"{domain}/ns/{text}/sa/other",
                "source.trustDomain": f"{text}/ns/{namespace}/sa/other",
                "source.serviceAccount": f"{domain}/ns/{text.replace('/', '/sa/')}"
                if "/" in text
                else f"{domain}/ns/{namespace}/sa/{text}",
            }
            identity = forms[key]
            if key == "source.principal" and identity.startswith(("x/", "/")):
                identity = domain + identity.removeprefix("x")
            if name not in self.texts or key in ("source.principal", "source.serviceAccount"):
                self.texts[name] = f"spiffe://{identity}"
        elif name == SUBJECT:
            issuer, _, subject = written.rpartition("/")
            self.texts[name] = subject.replace("*", "x") or "x"
            self.issuer = issuer if "*" not in issuer else ""
        elif name in (SOURCE_IP, REMOTE_IP, DESTINATION_IP):
            self.texts[name] = written.partition("/")[0]
        else:
            self.texts[name] = text

    def can_be(self) -> bool:
        """Whether such a request can be: a wrong guess would show a rule to be needed that never fires."""
        texts, rules = self.texts, self.pair.new.jwt_rules
        kinds: dict[str, Possible] = {
            IDENTITY: possible.Identity(), HOST: possible.HOST, METHOD: possible.METHOD, SNI: possible.SNI,
            PATH: possible.Path(self.pair.new.mesh.path_normalization),
        }  # fmt: skip
        headers = [name.removeprefix(HEADER) for name in texts if name.startswith(HEADER)]
        is_odd = (
            texts.get(METHOD) == "CONNECT"
            or any(name.startswith(":") or name in ("origin", "x-forwarded-for") for name in headers)
            or (rules and not touched_headers(rules).isdisjoint(headers))
            or any(rule.presence is Presence.REQUIRED for rule in rules)
        )
        ports = self.pair.ports
        return (
            not is_odd
            and all(
                is_possible(text, kinds.get(name, possible.HEADER))
                for name, text in texts.items()
                if name in kinds or name.startswith(HEADER)
            )
            and (not ports or texts.get(PORT, str(ports[0])) in map(str, ports))
        )

    def request(self, tls: str) -> Witness:
        """As somebody would send it."""
        texts, pair = self.texts, self.pair
        rule = self._jwt_rule() if any(name.startswith(CLAIM) for name in texts) else None
        source = texts.get(SOURCE_IP, "10.9.9.9")
        headers = [(name.removeprefix(HEADER), text) for name, text in texts.items() if name.startswith(HEADER)]
        if REMOTE_IP in texts:
            trusted = pair.new.mesh.num_trusted_proxies if pair.is_gateway else 0
            headers.append(("x-forwarded-for", ", ".join([texts[REMOTE_IP], *[source] * trusted])))
        caller = next(iter(pair.callers), f"spiffe://{pair.new.mesh.trust_domain}/ns/elsewhere/sa/other")
        port = texts.get(PORT, "")
        request = OfflineRequest(
            protocol="http",
            source_principal=texts.get(IDENTITY, caller) if tls == "mtls" else "",
            tls=tls,
            source_ip=source,
            destination_ip=texts.get(DESTINATION_IP, "10.1.0.5"),
            destination_port=int(port) if port.isdecimal() else next(iter(pair.ports), 8080),
            sni=texts.get(SNI, "") if tls != "plaintext" else "",
            method=texts.get(METHOD, "GET"),
            host=texts.get(HOST, "api.example.com"),
            path=texts.get(PATH, "/"),
            headers=tuple(headers),
            metadata=None,
        )
        if rule is None:
            return Witness(request, None, TokenCase({}), {}, 0)
        claims: dict[str, Json] = {"iss": rule.issuer or self.issuer or STRANGER, "aud": list(rule.audiences)}
        for name, text in texts.items():
            claim = name.removeprefix(CLAIM)
            if name.startswith(CLAIM) and WITHIN not in claim and claim not in ("iss", "aud"):
                claims[claim] = text if name == SUBJECT else as_claim(claim, [text])
        case = TokenCase({}, 200, 200, str(claims["iss"]), places_of(rule)[0])
        return Witness(request, claims, case, {}, 0)

    def _jwt_rule(self) -> JwtRule | None:
        rules = self.pair.new.jwt_rules
        fitting = (rule for rule in rules if rule.issuer in (self.issuer, ""))
        return next(fitting, rules[0] if rules and not self.issuer else None)
