"""
How a list of written identities matches: principals, namespaces, service accounts, trust domains of certificates, and
the issuer and subject of a token.

Identities are matched whole, as ``spiffe://`` URIs; how the mesh's trust domain and its aliases come in is here too.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from authz.core.matchers import Strings, Terms


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
    patterns = tuple(_namespace(value) for value in values)
    literal = not any("*" in value or "/" in value for value in values)
    return Strings(values, patterns=patterns, terms=Terms(frozenset(values)) if literal else None)


def _namespace(value: str) -> re.Pattern[str]:
    """
    ``.*/ns/N/.*``, written so that the time grows with the identity and not with a power of it for each star.

    Taking the first place of each piece is enough, since what follows may begin anywhere behind it: hence the atomic
    groups. Only a piece with a line feed, which no star matches, could need another place.
    """
    first, *others = (re.escape(piece) for piece in re.sub(r"\*+", "*", value).split("*"))
    pieces = [f"/ns/{first}", *others]
    pieces[-1] += "/"
    if "\n" in value:
        return re.compile("".join(f".*{piece}" for piece in pieces) + ".*")
    return re.compile("".join(f"(?>.*?{piece})" for piece in pieces) + ".*")


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
        """Whether ``(issuer, subject)`` is one of the written pairs; never without a token (AP-38)."""
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


def rewrite_principal(principal: str, trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    """
    Rewrite the trust domain of a principal to those of the mesh (AP-27 to AP-29).

    Only values of exactly five parts whose first is not ``*`` are considered.
    """
    domain, _, rest = principal.partition("/")
    if rest.count("/") != 3 or domain == "*":
        return (principal,)
    if domain != "cluster.local" and not any(_domains_meet(domain, member) for member in trust_domains):
        return (principal,)
    kept = (
        principal if domain.startswith("*") and member.endswith(domain[1:]) else f"{member}/{rest}"
        for member in trust_domains
    )
    return tuple(dict.fromkeys(kept))


def _domains_meet(written: str, member: str) -> bool:
    return written == member or _star_covers(written, member) or _star_covers(member, written)


def _star_covers(pattern: str, text: str) -> bool:
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return pattern.endswith("*") and text.startswith(pattern[:-1])
