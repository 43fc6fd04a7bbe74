"""What clusters without an answer may wait for, from what a proxy asked for and what there is for it."""

import pytest

from authz.control.discovery.discovered import CLUSTER_TYPE, ENDPOINTS_TYPE, Discovered
from authz.control.discovery.overdue import MOST_WAITS, waits_of
from authz.control.discovery.subscription import Subscription

UNASKED = "`a` may be refused: its endpoints were not asked for"
MISSING = "`a` waits for endpoints that are not here"
ALONE = "`a` may wait for its certificate or the DNS, or be refused"
UNTAKEN = "`a` has not taken its endpoints"
READY = "`a` has its endpoints, and may wait for its certificate, or be refused"


def of(type_url: str, *names: str, is_waiting: bool, awaited: tuple[str, ...] = ()) -> Subscription:
    """One by which everything was asked for and sent, and nothing taken yet."""
    found = Subscription(type_url, names=dict.fromkeys(names), is_waiting=is_waiting, untaken=frozenset(names))
    found.sent = {name: Discovered(name, "1", b"", awaited) for name in names}
    return found


@pytest.mark.parametrize(
    ("awaited", "endpoints", "there", "said"),
    [
        (("x",), None, ("x",), UNASKED),
        (("x",), of(ENDPOINTS_TYPE, "y", is_waiting=True), ("x", "y"), UNASKED),
        (("x", "y"), of(ENDPOINTS_TYPE, "x", "y", is_waiting=False), ("x",), MISSING),
        ((), None, (), ALONE),
        (("x",), of(ENDPOINTS_TYPE, "x", is_waiting=True), ("x",), UNTAKEN),
        (("x",), of(ENDPOINTS_TYPE, "x", is_waiting=False), ("x",), READY),
    ],
    ids=["nothing asked", "others asked", "not here", "no endpoints", "not taken", "taken"],
)
def test_a_cluster_waits_for_what_it_has_not(
    awaited: tuple[str, ...], endpoints: Subscription | None, there: tuple[str, ...], said: str
) -> None:
    asked = {CLUSTER_TYPE: of(CLUSTER_TYPE, "a", is_waiting=True, awaited=awaited)}
    if endpoints is not None:
        asked[ENDPOINTS_TYPE] = endpoints
    world = {ENDPOINTS_TYPE: {name: Discovered(name, "1", b"") for name in there}}
    assert waits_of(asked, world) == (said,)


def test_nothing_is_said_of_clusters_that_were_not_asked_for_or_have_their_answer() -> None:
    assert waits_of({}, {}) == ()
    assert waits_of({CLUSTER_TYPE: of(CLUSTER_TYPE, "a", is_waiting=False)}, {}) == ()


def test_those_that_look_refused_come_first_and_many_are_counted() -> None:
    clusters = of(CLUSTER_TYPE, *"abcdefg", is_waiting=True)
    clusters.sent["g"] = Discovered("g", "1", b"", ("x",))
    clusters.untaken |= {"gone"}  # a newer response left it out
    said = waits_of({CLUSTER_TYPE: clusters}, {})
    assert said[0] == "`g` may be refused: its endpoints were not asked for"
    assert (len(said), said[-1]) == (MOST_WAITS + 1, "and 2 more")
