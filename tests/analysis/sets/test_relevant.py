"""Which rules are left out of a comparison: only such as share no request with what changed."""

from random import Random

import pytest

from authz.analysis.sets.relevant import may_meet, pruned_pair
from authz.core.matchers import Terms
from tests.analysis.sets.compiled import allow, deny, pair, paths, peer, when

POOL = ("a", "ab", "abc", "b", "bc", "ba")


def random_terms(rng: Random) -> Terms:
    def some() -> list[str]:
        return rng.sample(POOL, rng.randint(0, 2))

    return Terms(frozenset(some()), tuple(some()), tuple(some()))


def meets(terms: Terms, text: str) -> bool:
    return text in terms.exact or text.startswith(terms.prefixes) or text.endswith(terms.suffixes)


@pytest.mark.parametrize("seed", range(100))
def test_values_that_meet_are_never_said_not_to(seed: int) -> None:
    rng = Random(seed)
    first, second = random_terms(rng), random_terms(rng)
    texts = {*POOL, *(one + other for one in POOL for other in POOL)}
    if any(meets(first, text) and meets(second, text) for text in texts):
        assert may_meet(first, second)


def kept(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[set[str], set[str]]:
    sides = pruned_pair(*(getattr(pair(old, new), side) for side in ("old", "new")))
    found = []
    for side in sides:
        rules = [rules for rules in (side.http.allow, side.http.deny) if rules is not None]
        found.append({rule.reference.short for one in rules for rule in one.rules})
    return found[0], found[1]


def test_a_rule_of_other_paths_is_left_out_and_one_that_may_meet_stays() -> None:
    others = (allow(paths("/x"), name="far"), allow(paths("*b"), name="near"), deny(paths("/a/c"), name="deny"))
    old, new = kept((allow(paths("/a/*")), *others), (allow(paths("/a*")), *others))
    assert old == new == {"shop/a/0", "shop/near/0", "shop/deny/0"}


def test_values_of_a_list_do_not_exclude_each_other() -> None:
    other = allow(when("request.headers[x-a]", "other"), name="other")
    old, _ = kept(
        (allow(when("request.headers[x-a]", "one")), other), (allow(when("request.headers[x-a]", "two")), other)
    )
    assert "shop/other/0" in old


def test_everything_stays_where_requests_are_seen_differently() -> None:
    rules = (allow(paths("/a"), paths("/b")),)
    old, new = kept(rules, (*rules, peer("STRICT")))
    assert old == new == {"shop/a/0", "shop/a/1"}


def test_everything_stays_where_one_side_has_no_allow_policy() -> None:
    _, new = kept((deny(paths("/b")),), (deny(paths("/b")), allow(paths("/a"))))
    assert new == {"shop/d/0", "shop/a/0"}
