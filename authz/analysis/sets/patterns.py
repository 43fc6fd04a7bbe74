"""
What a matcher of the engine asks of a text, as a pattern for ``words``.

Patterns only find texts worth asking about. Which of them match is always asked of the matcher itself, so that nothing
of what policies mean is said a second time; ``tests/analysis/sets`` holds the two together.
"""

import re
from collections.abc import Hashable, Iterator

from authz.analysis.sets.words import Pattern, Repeat
from authz.core.identities import RequestPrincipals
from authz.core.matchers import Matcher, Strings

ANY, LINE, SEGMENT = Repeat("any"), Repeat("line"), Repeat("segment")
SOME_LINE = Repeat("line", some=True)
_PIECE = re.compile(r"(\{\*\*\}|\{\*\})")
_SPIFFE = "spiffe://"


def matcher_key(matcher: Matcher | None) -> Hashable:
    """A matcher as a value: of one attribute, those that are written alike match alike."""
    return None if matcher is None else (matcher.written, matcher.terms, getattr(matcher, "prefixes", ()))


def patterns_of(key: str, matcher: Matcher) -> Iterator[tuple[Pattern, bool]]:
    """The patterns of a matcher of the attribute ``key``, each with whether it is compared in lower case."""
    if not isinstance(matcher, Strings):
        return
    fold = matcher.fold
    yield from (((text,) if text else (), fold) for text in sorted(matcher.exact))  # the same request every time
    yield from (((text, ANY), fold) for text in matcher.prefixes)
    yield from (((ANY, text), fold) for text in matcher.suffixes)
    if matcher.non_empty:
        yield (SOME_LINE,), fold
    if matcher.present:
        yield (ANY,), fold
    if matcher.patterns:
        yield from ((pattern, fold) for pattern in _EXPRESSIONS[key](matcher))


def _templates(matcher: Strings) -> Iterator[Pattern]:
    for value in matcher.written:
        pieces = _PIECE.split(value)
        if len(pieces) > 1:
            yield tuple(
                Repeat("templates") if piece == "{**}" else Repeat("template", some=True) if piece == "{*}" else piece
                for piece in pieces
                if piece
            )


def _principals(matcher: Strings) -> Iterator[Pattern]:
    yield from ((_SPIFFE, LINE, value[1:]) for value in matcher.written if value.startswith("*") and value != "*")


def _namespaces(matcher: Strings) -> Iterator[Pattern]:
    for value in matcher.written:
        first, *others = value.split("*")
        tokens: list[str | Repeat] = [LINE, f"/ns/{first}"]
        for piece in others:
            tokens += [LINE, piece]
        yield (*tokens, "/", LINE)


def _accounts(matcher: Strings) -> Iterator[Pattern]:
    """Of identities that ``possible`` knows, only those of Istio's form can match."""
    for full in sorted(matcher.terms.exact) if matcher.terms is not None else ():
        namespace, _, account = full.partition("/")
        yield _SPIFFE, SOME_LINE, f"/ns/{namespace}/sa/{account}"


def _trust_domains(matcher: Strings) -> Iterator[Pattern]:
    for value in matcher.written:
        if "*" in value and value != "*":
            first, *others = value.split("*")
            tokens: list[str | Repeat] = [f"{_SPIFFE}{first}"]
            for piece in others:
                tokens += [SEGMENT, piece]
            yield (*tokens, "/", LINE)


_EXPRESSIONS = {
    "paths": _templates,
    "source.principal": _principals,
    "source.namespace": _namespaces,
    "source.serviceAccount": _accounts,
    "source.trustDomain": _trust_domains,
}


def subject_patterns(matcher: RequestPrincipals) -> Iterator[Pattern]:
    """What request principals may ask of the subject, whatever the issuer: every row of AP-38, taken loosely."""
    for value in matcher.written:
        subject = value.rpartition("/")[2]
        yield (SOME_LINE,)
        yield ()
        if value.startswith("*"):
            yield (ANY, value[1:])
            yield (subject,) if subject else ()
        if value.endswith("*"):
            yield (subject[:-1], ANY) if subject[:-1] else (ANY,)
        yield (subject,) if subject else ()
