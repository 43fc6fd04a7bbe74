"""
What a list of policy values matches, as data.

Every matcher answers ``matches(values)``: does at least one of these values match? Absent is the empty tuple, so a
missing header, a missing claim and a list claim are one case, and negation exists once, in ``engine.Predicate``.
A matcher also tells its ``terms``: what a value must look like for a match, in a form that ``index`` can look up.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

TEMPLATE_CHARACTERS = r"[A-Za-z0-9\-._~%!$&'()+,;:@=*]"
"""The set P of AP-50, as a regular expression."""
MAX_TEMPLATE_BYTES = 256
_PIECE = re.compile(r"\{\*\*\}|\{\*\}")
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """Lower-case ASCII letters only: ``str.lower`` would fold the Kelvin sign into ``k`` (AP-23)."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


@dataclass(frozen=True, slots=True)
class Network:
    """An IPv4 or IPv6 range; ``value`` is the network address shifted right by the host bits (AP-40)."""

    version: int
    prefix_length: int
    value: int


@dataclass(frozen=True, slots=True)
class Terms:
    """
    A necessary condition in indexable form: a value that matches equals one of ``exact``, or begins with one of
    ``prefixes``, or ends with one of ``suffixes``, or lies in one of ``networks``.
    """

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def union(self, other: "Terms") -> "Terms":
        """What is necessary for one of the two."""
        return Terms(
            self.exact | other.exact,
            tuple(dict.fromkeys(self.prefixes + other.prefixes)),
            tuple(dict.fromkeys(self.suffixes + other.suffixes)),
            tuple(dict.fromkeys(self.networks + other.networks)),
        )


class Matcher(Protocol):
    """Written values compiled. ``terms`` is None when some value matches things that no index can look up."""

    @property
    def written(self) -> tuple[str, ...]: ...

    @property
    def terms(self) -> Terms | None: ...

    def matches(self, values: tuple[str, ...]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Strings:
    """
    Exact values, prefixes, suffixes and regular expressions, ORed (AP-12).

    ``non_empty`` is the star of the plain form: any non-empty value without a line feed (AP-19). ``present`` is the
    star of the header form: any value, the empty one included (AP-22). With ``fold`` values are lower-cased first.
    """

    written: tuple[str, ...]
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()
    non_empty: bool = False
    present: bool = False
    fold: bool = False
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        for written in values:
            value = ascii_lower(written) if self.fold else written
            if value in self.exact or self.present:
                return True
            if self.prefixes and value.startswith(self.prefixes):
                return True
            if self.suffixes and value.endswith(self.suffixes):
                return True
            if self.non_empty and value and "\n" not in value:
                return True
            for pattern in self.patterns:
                if pattern.fullmatch(value):
                    return True
        return False


def plain_strings(values: Iterable[str]) -> Strings:
    """Compile the plain form: ``*``, ``*x``, ``x*``, ``x``; a leading star wins (AP-19, AP-20)."""
    return _strings(tuple(values))


def header_strings(values: Iterable[str], *, fold: bool = False) -> Strings:
    """Compile the header form (AP-22), with ``fold`` the host form (AP-23)."""
    return _strings(tuple(values), header=True, fold=fold)


def _strings(values: tuple[str, ...], *, header: bool = False, fold: bool = False) -> Strings:
    exact, prefixes, suffixes = set(), [], []
    star = False
    for written in values:
        value = ascii_lower(written) if fold else written
        if value == "*":
            star = True
        elif value.startswith("*"):
            suffixes.append(value[1:])
        elif value.endswith("*"):
            prefixes.append(value[:-1])
        else:
            exact.add(value)
    terms = None if star else Terms(frozenset(exact), tuple(prefixes), tuple(suffixes))
    return Strings(
        values,
        frozenset(exact),
        tuple(prefixes),
        tuple(suffixes),
        non_empty=star and not header,
        present=star and header,
        fold=fold,
        terms=terms,
    )


def path_strings(values: Iterable[str]) -> Strings:
    """Compile ``paths``: templates by AP-50 to AP-55, everything else in the plain form (AP-46, AP-49)."""
    values = tuple(values)
    templates = tuple(value for value in values if "{*}" in value or "{**}" in value)
    plain = plain_strings(value for value in values if value not in templates)
    if not templates:
        return plain
    terms = plain.terms
    for template in templates:
        terms = terms and terms.union(_template_terms(template))
    return Strings(
        values,
        plain.exact,
        plain.prefixes,
        plain.suffixes,
        tuple(compile_template(template) for template in templates),
        non_empty=plain.non_empty,
        terms=terms,
    )


def compile_template(template: str) -> re.Pattern[str]:
    """Translate a path template (AP-50). Raises ValueError when the proxy would refuse it (AP-55)."""
    if not template.startswith("/") or template.startswith("//"):
        raise ValueError(f"the path template `{template}` must begin with exactly one slash")
    if len(template.replace("{*}", "*").replace("{**}", "**").encode()) > MAX_TEMPLATE_BYTES:
        raise ValueError(f"the path template is longer than {MAX_TEMPLATE_BYTES} bytes")
    translated, position = [], 0
    for piece in _PIECE.finditer(template):
        translated.append(re.escape(template[position : piece.start()]))
        repeat = f"(?:{TEMPLATE_CHARACTERS}|/)*" if piece[0] == "{**}" else f"{TEMPLATE_CHARACTERS}+"
        translated.append(repeat)
        position = piece.end()
    translated.append(re.escape(template[position:]))
    return re.compile("".join(translated))


def _template_terms(template: str) -> Terms:
    """A path that matches a template begins with its first literal and ends with its last: take the longer one."""
    pieces = _PIECE.split(template)
    if len(pieces[-1]) > len(pieces[0]):
        return Terms(suffixes=(pieces[-1],))
    return Terms(prefixes=(pieces[0],))


def principal_strings(values: Iterable[str]) -> Strings:
    """
    Compile ``principals``: written without ``spiffe://``, matched against whole identities (AP-25, AP-26).

    Trust-domain rewriting has been done before (AP-27).
    """
    values = tuple(values)
    exact, prefixes, suffixes, patterns = set(), [], [], []
    star = False
    for value in values:
        if value == "*":
            star = True
        elif value.startswith("*"):
            suffixes.append(value[1:])
            patterns.append(re.compile("spiffe://.*" + re.escape(value[1:])))
        elif value.endswith("*"):
            prefixes.append("spiffe://" + value[:-1])
        else:
            exact.add("spiffe://" + value)
    terms = None if star else Terms(frozenset(exact), tuple(prefixes), tuple(suffixes))
    return Strings(values, frozenset(exact), tuple(prefixes), patterns=tuple(patterns), non_empty=star, terms=terms)


def namespace_strings(values: Iterable[str]) -> Strings:
    """
    Compile ``namespaces``: full match of ``.*/ns/N/.*``, every star a glob (AP-30 to AP-32).

    The terms are namespaces, as ``catalog`` cuts them out of an identity for the index.
    """
    values = tuple(values)
    patterns = tuple(
        re.compile(".*/ns/" + ".*".join(re.escape(piece) for piece in value.split("*")) + "/.*") for value in values
    )
    literal = not any("*" in value or "/" in value for value in values)
    return Strings(values, patterns=patterns, terms=Terms(frozenset(values)) if literal else None)


def service_account_strings(values: Iterable[str], policy_namespace: str) -> Strings:
    """
    Compile ``serviceAccounts``: ``NS/SA``, or ``SA`` in the namespace of the policy object (AP-33).

    The terms are ``NS/SA``, as ``catalog`` cuts them out of an identity for the index.
    """
    values = tuple(values)
    full = tuple(value if "/" in value else f"{policy_namespace}/{value}" for value in values)
    patterns = []
    for value in full:
        namespace, _, account = value.partition("/")
        patterns.append(re.compile(f"spiffe://.+/ns/{re.escape(namespace)}/(?:.+/)?sa/{re.escape(account)}(?:/.+)?"))
    return Strings(values, patterns=tuple(patterns), terms=Terms(frozenset(full)))


def trust_domain_strings(values: Iterable[str], trust_domains: tuple[str, ...]) -> Strings:
    """Compile ``trustDomains``: an exact member of the mesh's domains stands for all of them (AP-35, AP-36)."""
    values = tuple(values)
    prefixes: list[str] = []
    patterns: list[re.Pattern[str]] = []
    for value in values:
        if value == "*":
            prefixes.append("spiffe://")
        elif "*" in value:
            domain = "[^/]*".join(re.escape(piece) for piece in value.split("*"))
            patterns.append(re.compile(f"spiffe://{domain}/.*"))
        else:
            members = trust_domains if value in trust_domains else (value,)
            prefixes.extend(f"spiffe://{member}/" for member in members)
    terms = None if patterns else Terms(prefixes=tuple(prefixes))
    return Strings(values, prefixes=tuple(prefixes), patterns=tuple(patterns), terms=terms)


@dataclass(frozen=True, slots=True)
class RequestPrincipals:
    """
    ``requestPrincipals``: the claims ``iss`` and ``sub`` matched separately (AP-38).

    The values are exactly ``(iss, sub)``, or empty when one of the two is not a string: every row of AP-38 asks
    something of both.
    """

    written: tuple[str, ...]
    pairs: tuple[tuple[Callable[[str], bool], Callable[[str], bool]], ...]
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        if not values:
            return False
        issuer, subject = values
        for issuer_matches, subject_matches in self.pairs:
            if issuer_matches(issuer) and subject_matches(subject):
                return True
        return False


def request_principals(values: Iterable[str]) -> RequestPrincipals:
    """Compile ``requestPrincipals``; the terms are of ``iss + "/" + sub``."""
    values = tuple(values)
    terms: Terms | None = Terms()
    for value in values:
        own = _request_principal_terms(value)
        terms = terms.union(own) if terms is not None and own is not None else None
    return RequestPrincipals(values, tuple(_request_principal(value) for value in values), terms)


def _request_principal(pattern: str) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """The rows of the table in AP-38, in its order; the leading-star rows come first."""
    issuer, slash, subject = pattern.rpartition("/")
    if pattern == "*":
        return _non_empty, _non_empty
    if pattern.startswith("*"):
        if not slash:
            return _non_empty, _ends(pattern[1:])
        return (_non_empty if issuer == "*" else _ends(issuer[1:])), _equals(subject)
    if pattern.endswith("*"):
        if not slash:
            return _starts(pattern[:-1]), _non_empty
        return _equals(issuer), (_non_empty if subject == "*" else _starts(subject[:-1]))
    if not slash:
        return _equals(pattern), _equals("")
    return _equals(issuer), _equals(subject)


def _request_principal_terms(pattern: str) -> Terms | None:
    if pattern == "*":
        return None
    if pattern.startswith("*"):
        return Terms(suffixes=(pattern[1:],))
    if pattern.endswith("*"):
        return Terms(prefixes=(pattern[:-1],))
    return Terms(exact=frozenset([pattern if "/" in pattern else pattern + "/"]))


def _non_empty(value: str) -> bool:
    return value != "" and "\n" not in value


def _equals(expected: str) -> Callable[[str], bool]:
    return expected.__eq__


def _starts(prefix: str) -> Callable[[str], bool]:
    return lambda value: value.startswith(prefix)


def _ends(suffix: str) -> Callable[[str], bool]:
    return lambda value: value.endswith(suffix)


@lru_cache(maxsize=65536)
def parse_address(text: str) -> tuple[int, int] | None:
    """
    Parse an IP address to (version, value); None when it is none.

    A zone is not accepted. Cached, because the same peers call again and again.
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.version, int(address))


def parse_network(text: str) -> Network:
    """Parse an IP or CIDR, host bits ignored (AP-40). Raises ValueError with the reason (VA-24)."""
    if "%" in text:
        raise ValueError(f"`{text}` has a zone; an address block has none")
    address_text, slash, length_text = text.partition("/")
    address = ipaddress.ip_address(address_text)
    length: int = address.max_prefixlen
    if slash:
        if not (length_text.isascii() and length_text.isdigit()) or str(int(length_text)) != length_text:
            raise ValueError(f"`{text}` is not a CIDR block: `{length_text}` is not a prefix length")
        length = int(length_text)
        if length > address.max_prefixlen:
            raise ValueError(f"`{text}` is not a CIDR block: a prefix length is 0 to {address.max_prefixlen}")
    return Network(address.version, length, int(address) >> (address.max_prefixlen - length))


@dataclass(frozen=True, slots=True)
class Networks:
    """IP ranges, grouped by family and prefix length: the cost grows with the lengths, not with the ranges."""

    written: tuple[str, ...]
    groups: tuple[tuple[int, int, frozenset[int]], ...]
    """(version, host bits, network values shifted right by the host bits)."""
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        for value in values:
            address = parse_address(value)
            if address is None:
                continue
            for version, host_bits, networks in self.groups:
                if version == address[0] and address[1] >> host_bits in networks:
                    return True
        return False


def networks(values: Iterable[str]) -> Networks:
    """Compile ``ipBlocks`` and its kin (AP-40). Raises ValueError."""
    values = tuple(values)
    parsed = tuple(parse_network(value) for value in values)
    grouped: dict[tuple[int, int], set[int]] = {}
    for network in parsed:
        bits: int = 32 if network.version == 4 else 128
        grouped.setdefault((network.version, bits - network.prefix_length), set()).add(network.value)
    groups = tuple((version, host_bits, frozenset(found)) for (version, host_bits), found in grouped.items())
    return Networks(values, groups, Terms(networks=parsed))


def port_strings(values: Iterable[str]) -> Strings:
    """Compile ``ports``: decimal, leading zeros allowed (AP-45, VA-25). Raises ValueError."""
    values = tuple(values)
    for value in values:
        if not (value.isascii() and value.isdigit()) or int(value) > 65535:
            raise ValueError(f"`{value}` is not a port: expected a decimal number from 0 to 65535")
    exact = frozenset(str(int(value)) for value in values)
    return Strings(values, exact, terms=Terms(exact))


SCALAR, LISTED = "=", "["
"""How ``catalog`` marks a metadata member: a string, or one string element of a list (AP-66)."""


@dataclass(frozen=True, slots=True)
class MetadataStrings:
    """``experimental.envoy.filters``: ``[v]`` matches a list element, ``v`` only a string member (AP-66)."""

    written: tuple[str, ...]
    scalar: Strings
    listed: Strings
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        for value in values:
            strings = self.scalar if value.startswith(SCALAR) else self.listed
            if strings.matches((value[1:],)):
                return True
        return False


def metadata_strings(values: Iterable[str]) -> MetadataStrings:
    """Compile the values of an ``experimental.envoy.filters`` key (AP-66)."""
    values = tuple(values)
    listed = tuple(value[1:-1] for value in values if value.startswith("[") and value.endswith("]"))
    scalar = tuple(value for value in values if not (value.startswith("[") and value.endswith("]")))
    return MetadataStrings(values, plain_strings(scalar), plain_strings(listed))
