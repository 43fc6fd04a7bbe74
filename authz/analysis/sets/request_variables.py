"""
The facts of a request that the policies of a workload read, each a variable with the values that they can tell apart.

Attributes that are read from one fact are predicates over one variable: principal, namespace, service account and trust
domain over the identity, ``request.headers[host]`` and ``hosts`` over the host. Whether a value matches is asked of the
engine's own matcher. A fact that depends on another in a way that is not modelled makes the question undecided, and
``undecided`` says why.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from authz.analysis.sets import possible
from authz.analysis.sets.boxes import Box, Literal, Space
from authz.analysis.sets.claim_values import written_audience
from authz.analysis.sets.distinct_addresses import NATURAL, distinct_addresses
from authz.analysis.sets.patterns import matcher_key, patterns_of, subject_patterns
from authz.analysis.sets.words import Automaton, Possible, TooMany, distinct
from authz.core.catalog import Attribute, claim_path
from authz.core.identities import RequestPrincipals
from authz.core.matchers import Matcher, MetadataStrings, Network, Strings, ascii_lower
from authz.core.normalize import JOINED_HEADERS
from authz.core.resources import PathNormalization
from authz.core.rules import Predicate

FactValue = str | None
"""None: absent."""

IDENTITY, SOURCE_IP, REMOTE_IP, DESTINATION_IP = "identity", "source.ip", "remote.ip", "destination.ip"
PORT, SNI, HOST, METHOD, PATH, SUBJECT = "port", "sni", "host", "method", "path", "claim sub"
HEADER, CLAIM, METADATA, PROVIDER = "header ", "claim ", "metadata ", "provider "
AUDIENCES = f"{CLAIM}aud"
WITHIN = "]["
"""Between the names of a claim within a claim, as Istio's keys have it."""
ANSWERS = ("allow", "deny", "error")
"""Of a CUSTOM provider; ``error``: it could not be asked."""

_FIXED = {
    "source.principal": IDENTITY, "source.namespace": IDENTITY, "source.serviceAccount": IDENTITY,
    "source.trustDomain": IDENTITY, "source.ip": SOURCE_IP, "remote.ip": REMOTE_IP, "destination.ip": DESTINATION_IP,
    "destination.port": PORT, "connection.sni": SNI, "hosts": HOST, "methods": METHOD, "paths": PATH,
    "request.headers[:method]": METHOD, "request.headers[:authority]": HOST, "request.headers[host]": HOST,
    "request.auth.principal": SUBJECT, "request.auth.audiences": AUDIENCES, "request.auth.presenter": f"{CLAIM}azp",
}  # fmt: skip
_NEVER_TEXT = frozenset({"iss", "sub", "exp", "nbf", "iat"})
_ADDRESSES = (SOURCE_IP, REMOTE_IP, DESTINATION_IP)
_NATURAL: dict[str, tuple[str, ...]] = {
    METHOD: ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"),
    HOST: ("api.example.com", "other.example"),
    SNI: ("api.example.com", "other.example"),
    PATH: ("/", "/other"),
}
_SPECIAL: dict[str, tuple[str, ...]] = {SNI: ("",), METHOD: ("CONNECT", "OPTIONS")}
"""Values of which a situation speaks: plain text has no server name, CONNECT no path, a preflight is OPTIONS."""


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """What one side sees of the requests of a situation."""

    is_http: bool
    has_identity: bool
    has_token: bool = False
    """Whether a token is accepted; without one there are no claims."""
    issuer: str | None = None
    """The claim ``iss`` of the accepted token; None when it has none."""
    status: int = 0
    """Not 0: refused with this status before any rule is asked but those of CUSTOM policies, if it is for its token."""
    is_token_refused: bool = False
    remote_is_source: bool = False
    """The client's address is that of the peer: on TCP, and on a gateway that trusts nobody's word."""


def name_of(attribute: Attribute) -> str:
    """The variable that an attribute reads."""
    key = attribute.key
    if key in _FIXED:
        return _FIXED[key]
    if key.startswith("request.headers["):
        return HEADER + key[len("request.headers[") : -1]
    if key.startswith("request.auth.claims["):
        return CLAIM + WITHIN.join(claim_path(key))
    return METADATA + key


class Variables:
    """The variables of one question and the values of each, in the order from natural to odd."""

    def __init__(
        self,
        space: Space,
        predicates: Iterable[Predicate],
        *,
        normalization: PathNormalization,
        ports: Iterable[int],
        only_ports: bool,
        callers: Iterable[str],
        audiences: Sequence[str],
    ) -> None:
        """
        Find the values.

        Args:
            ports: those to tell apart besides those that rules name; with ``only_ports`` there are no others.
            callers: identities that are natural here, with ``spiffe://``.
            audiences: those that JWT rules ask for.
        """
        self.space = space
        self.undecided: list[str] = []
        self.names: dict[str, int] = {}
        self.values: list[tuple[FactValue, ...]] = []
        self._masks: dict[tuple[str, str, Hashable, str | None], int] = {}
        self._places: dict[tuple[str, bool], dict[str, int]] = {}
        self._natural = {**_NATURAL, IDENTITY: tuple(callers)}
        by_key: dict[str, dict[Hashable, tuple[str, Matcher]]] = {}
        for predicate in predicates:
            key = predicate.attribute.key
            for matcher in (predicate.any_of, predicate.none_of):
                if matcher is not None:
                    by_key.setdefault(name_of(predicate.attribute), {})[key, matcher_key(matcher)] = (key, matcher)
        asked = {name: list(found.values()) for name, found in by_key.items()}
        self.asked = frozenset(asked)
        self._check_claims()
        networks = [network for name in _ADDRESSES for network in _networks(asked.get(name, ()))]
        for name in _ADDRESSES:
            self._add(name, distinct_addresses(networks, NATURAL[::-1] if name == DESTINATION_IP else NATURAL))
        self._add(PORT, _ports(asked.get(PORT, ()), sorted(set(ports)), only=only_ports))
        kinds: dict[str, Possible] = {
            HOST: possible.HOST, METHOD: possible.METHOD, SNI: possible.SNI,
            PATH: possible.Path(normalization), IDENTITY: possible.Identity(), SUBJECT: possible.ANY_TEXT,
        }  # fmt: skip
        for name, kind in kinds.items():
            absent: tuple[FactValue, ...] = (None,) if name in (IDENTITY, PATH, SUBJECT) else ()
            texts = self._texts(name, asked.get(name, ()), kind)
            self._add(name, dict.fromkeys((*texts, *_SPECIAL.get(name, ()), *absent)))
        if audiences:  # which token is accepted depends on them, whether or not a rule asks
            asked.setdefault(AUDIENCES, [])
        for name in sorted(asked.keys() - self.names.keys()):
            if not name.startswith(CLAIM) or name.removeprefix(CLAIM).partition(WITHIN)[0] not in _NEVER_TEXT:
                self._add_free(name, asked[name], audiences)

    def _check_claims(self) -> None:
        claims = sorted(name.removeprefix(CLAIM) for name in self.asked if name.startswith(CLAIM))
        for claim in claims:
            if any(other.startswith(f"{claim}{WITHIN}") for other in claims):
                self.undecided.append(f"policies ask for the claim `{claim}` and for claims within it")
        for name in (":path", ":scheme"):
            if HEADER + name in self.asked:
                self.undecided.append(f"policies ask for the header `{name}`, which depends on other facts")

    def _add(self, name: str, values: Iterable[FactValue], *, several: bool = False) -> None:
        values = tuple(values)
        self.names[name] = self.space.add(len(values), several=several)
        self.values.append(values)

    def only(self, name: str, *wanted: FactValue) -> Box:
        """Requests with one of these values of a variable."""
        values = self.values[self.names[name]]
        return {self.names[name]: sum(1 << at for at, value in enumerate(values) if value in wanted)}

    def add_provider(self, provider: str) -> None:
        """A CUSTOM provider: its answer is free."""
        if PROVIDER + provider not in self.names:
            self._add(PROVIDER + provider, ANSWERS)

    def _add_free(self, name: str, asked: Iterable[tuple[str, Matcher]], audiences: Iterable[str]) -> None:
        """Headers, claims and metadata: absent as well."""
        if name.startswith(METADATA):
            strings = [matcher for _, matcher in asked if isinstance(matcher, MetadataStrings)]
            listed = any(one.listed.written for one in strings)
            if listed and any(one.scalar.written for one in strings):
                self.undecided.append(f"policies ask for `{name.removeprefix(METADATA)}` as a text and as a list")
            parts = [("metadata", one.listed if listed else one.scalar) for one in strings]
            texts = self._texts(name, parts, possible.ANY_TEXT)
            mark = "[" if listed else "="
            self._add(name, [*(mark + text for text in texts), *(() if listed else (None,))], several=listed)
            return
        is_header = name.startswith(HEADER)
        extra = [written_audience(text, way) for text in audiences for way in range(6)] if name == AUDIENCES else []
        texts = self._texts(name, asked, possible.HEADER if is_header else possible.ANY_TEXT, extra)
        if is_header and name.removeprefix(HEADER) in JOINED_HEADERS:
            self._add(name, (None, *texts))
        else:
            self._add(name, texts, several=True)

    def _texts(
        self, name: str, asked: Iterable[tuple[str, Matcher]], kind: Possible, extra: Iterable[str] = ()
    ) -> list[str]:
        automaton = Automaton()
        natural: list[str] = list(extra)
        for text in natural:
            automaton.add((text,) if text else ())
        for key, matcher in asked:
            if isinstance(matcher, RequestPrincipals):
                for pattern in subject_patterns(matcher):
                    automaton.add(pattern)
            for pattern, fold in patterns_of(key, matcher):
                automaton.add(pattern, fold=fold)
                natural += _natural_texts(pattern)
        before, behind = self._natural.get(name, ()), ("other", "x")
        try:
            return distinct(automaton, kind, (*before, *natural, *behind), self.space.tick)
        except TooMany:
            self.undecided.append(f"policies tell too many values of {name} apart")
            return [*before[:1]]

    def mask(self, attribute: str, name: str, matcher: Matcher, issuer: str | None = None) -> int:
        """The values of a variable that a matcher of an attribute matches, each asked of the matcher."""
        key = (attribute, name, matcher_key(matcher), issuer)
        found = self._masks.get(key)
        if found is None:
            values = self.values[self.names[name]]
            if isinstance(matcher, Strings) and not matcher.patterns and not matcher.present and not matcher.non_empty:
                found = self._fast_mask(name, matcher)
            else:
                found = slow_mask(matcher, values, issuer)
            self._masks[key] = found
        return found

    def _fast_mask(self, name: str, matcher: Strings) -> int:
        """The same for exact texts, which are looked up, and for beginnings and ends."""
        places = self._places.get((name, matcher.fold))
        if places is None:
            places = self._places[name, matcher.fold] = {}
            for number, value in enumerate(self.values[self.names[name]]):
                if value is not None:
                    text = ascii_lower(value) if matcher.fold else value
                    places[text] = places.get(text, 0) | 1 << number
        mask = 0
        for text in matcher.exact:
            mask |= places.get(text, 0)
        if matcher.prefixes or matcher.suffixes:
            for text, bits in places.items():
                if text.startswith(matcher.prefixes) or text.endswith(matcher.suffixes):
                    mask |= bits
        return mask

    def literals(self, predicate: Predicate, seen: SeenRequest) -> list[Literal] | None:
        """What a predicate asks of the variables; None when it never holds for what is seen."""
        found: list[Literal] = []
        attribute = predicate.attribute
        constant = self._constant(attribute, seen)
        for matcher, is_wanted in ((predicate.any_of, True), (predicate.none_of, False)):
            if matcher is None:
                continue
            if constant is not None:
                if matcher.matches(constant) is not is_wanted:
                    return None
                continue
            name = name_of(attribute)
            if name == REMOTE_IP and seen.remote_is_source:
                name = SOURCE_IP
            issuer = seen.issuer if isinstance(matcher, RequestPrincipals) else None
            literal = Literal(self.names[name], self.mask(attribute.key, name, matcher, issuer))
            is_several = self.space.is_several[literal.variable]
            literal = literal._replace(some=is_several)
            found.append(literal if is_wanted else self.space.negated(literal))
        return found

    def _constant(self, attribute: Attribute, seen: SeenRequest) -> tuple[str, ...] | None:
        """The values of an attribute where what is seen says them."""
        name = name_of(attribute)
        if name == IDENTITY:
            return None if seen.has_identity else ()
        if attribute.http_only and not seen.is_http:
            return ()
        if name == SUBJECT or name.startswith(CLAIM):
            if not seen.has_token or (attribute.key == "request.auth.principal" and seen.issuer is None):
                return ()
            first, _, within = name.removeprefix(CLAIM).partition(WITHIN)
            if first == "iss" and not within:
                return () if seen.issuer is None else (seen.issuer,)
            if first in _NEVER_TEXT and (within or first != "sub"):
                return ()
        return None


def slow_mask(matcher: Matcher, values: Iterable[FactValue], issuer: str | None = None) -> int:
    """The values that a matcher matches; of request principals, those of subjects with ``issuer``."""
    mask = 0
    for number, value in enumerate(values):
        read: tuple[str, ...] = () if value is None else (value,)
        if isinstance(matcher, RequestPrincipals):
            read = (issuer, value) if issuer is not None and value is not None else ()
        if matcher.matches(read):
            mask |= 1 << number
    return mask


def _networks(asked: Iterable[tuple[str, Matcher]]) -> list[Network]:
    return [network for _, matcher in asked if matcher.terms is not None for network in matcher.terms.networks]


def _ports(asked: Iterable[tuple[str, Matcher]], own: list[int], *, only: bool) -> list[str]:
    found = dict.fromkeys(str(port) for port in own)
    if not only:
        found |= dict.fromkeys(
            text for _, matcher in asked if isinstance(matcher, Strings) for text in sorted(matcher.exact)
        )
        other = next(str(port) for port in chain((8080, 9080), range(10000, 65536)) if str(port) not in found)
        found = {other: None, **found}
    return list(found)


def _natural_texts(pattern: tuple[object, ...]) -> list[str]:
    """Texts that a person would try for a pattern: what is written, and for repetitions nothing or one letter."""
    pieces = [piece for piece in pattern if isinstance(piece, str)]
    if len(pieces) == len(pattern) or len(pattern) > 3:
        return ["".join(pieces)]
    plain, filled = "".join(pieces), "".join(piece if isinstance(piece, str) else "x" for piece in pattern)
    return [plain, filled] if plain else [filled]  # nobody would try the empty text for "any"
