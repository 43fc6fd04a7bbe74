"""Texts that patterns tell apart, compared with every text of a small alphabet and with the engine's matchers."""

import itertools
from random import Random

import pytest

from authz.analysis.sets import words
from authz.analysis.sets.patterns import matcher_key, patterns_of
from authz.analysis.sets.possible import ANY_TEXT, HEADER, Identity, Letters, Path
from authz.analysis.sets.words import Automaton, Possible, Repeat, TooMany, distinct, is_possible
from authz.core import identities, matchers
from authz.core.resources import PathNormalization
from tests.envoy.native import generated

ANY = Repeat("any")
AB = Letters(frozenset("ab/").__contains__, ("ab", "/"))


def random_pattern(rng: Random) -> words.Pattern:
    tokens: list[str | Repeat] = []
    for _ in range(rng.randint(0, 4)):
        repeat = Repeat(rng.choice(("any", "segment", "template", "templates")), rng.random() < 0.5)
        tokens.append(rng.choice(("a", "b", "/", "ab", repeat)))
    return tuple(tokens)


@pytest.mark.parametrize("seed", range(60))
def test_every_combination_that_some_text_has_is_found(seed: int) -> None:
    rng = Random(seed)
    automaton = Automaton()
    for _ in range(rng.randint(1, 4)):
        automaton.add(random_pattern(rng), fold=rng.random() < 0.2)
    found = {automaton.signature(text) for text in distinct(automaton, AB)}
    every = {
        automaton.signature("".join(letters))
        for length in range(7)
        for letters in itertools.product("ab/", repeat=length)
    }
    assert every <= found
    assert len(found) == len(distinct(automaton, AB)), "one text for each"


def test_a_natural_text_stands_for_its_combination_and_shorter_ones_come_first() -> None:
    automaton = Automaton()
    automaton.add(("/a", ANY))
    assert distinct(automaton, AB, ["/ab/", "nothing of these letters"]) == ["/ab/", ""]


def test_too_many_texts_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MAX_STATES", 3)
    automaton = Automaton()
    automaton.add(("abab",))
    with pytest.raises(TooMany):
        distinct(automaton, AB)


MATCHERS = [
    *(("paths", matchers.path_strings(generated.PATH_PATTERNS[at : at + 4])) for at in range(0, 36, 4)),
    *(("hosts", matchers.header_strings([value], fold=True)) for value in generated.HOST_PATTERNS),
    *(("request.headers[x]", matchers.header_strings([value])) for value in generated.HEADER_PATTERNS),
    *(("source.principal", identities.principal_strings([value])) for value in generated.PRINCIPALS),
    *(("source.namespace", identities.namespace_strings([value])) for value in (*generated.NAMESPACES, "a*b*c", "**")),
    *(("source.serviceAccount", identities.service_account_strings([v], "shop")) for v in generated.ACCOUNTS),
    *(
        ("source.trustDomain", identities.trust_domain_strings([value], ("cluster.local", "td1")))
        for value in (*generated.TRUST_DOMAINS, "t*-*d")
    ),
    *(("request.auth.claims[x]", matchers.plain_strings([value])) for value in generated.CLAIM_PATTERNS),
]


@pytest.mark.parametrize(("key", "matcher"), MATCHERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_pattern_says_what_the_matcher_of_the_engine_says(key: str, matcher: matchers.Strings) -> None:
    rng = Random(repr(matcher_key(matcher)))
    automaton = Automaton()
    for pattern, fold in patterns_of(key, matcher):
        automaton.add(pattern, fold=fold)
    possible: Possible = HEADER if key == "hosts" else ANY_TEXT
    if key == "paths":
        possible = Path(PathNormalization.NONE)
    if key.startswith("source."):
        possible = Identity()
    texts = [*distinct(automaton, possible), *(_near(rng, key, matcher) for _ in range(300))]
    checked = 0
    for text in texts:
        if is_possible(text, possible):
            checked += 1
            assert bool(automaton.signature(text)) is matcher.matches((text,)), text
    assert checked > 5


def _near(rng: Random, key: str, matcher: matchers.Strings) -> str:
    text = (
        rng.choice(matcher.written).replace("{**}", "a/b").replace("{*}", "a").replace("*", rng.choice(("", "p-", "/")))
    )
    if key.startswith("source."):
        domain, namespace = (
            rng.choice(("cluster.local", "td1", "td-x", "tx-yd")),
            rng.choice(("shop", "prod", "sxp", "p-a")),
        )
        word = text if text and all(letter.isalnum() or letter == "-" for letter in text) else "x"
        text = rng.choice(
            (f"{domain}/ns/{namespace}/sa/{word}", f"{domain}/ns/{word}/sa/web", f"{word}/ns/a/sa/b", text)
        )
        text = f"spiffe://{text}"
    at = rng.randint(0, len(text))
    return rng.choice((text, text[:at] + rng.choice("abAB/x") + text[at:], text[:at] + text[at + 1 :], text.swapcase()))
