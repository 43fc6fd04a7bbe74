"""The discovery conversation of all types, driven without a stream: state of the world and deltas."""

from collections.abc import Callable
from random import Random

import pytest

from authz._proto import delta_discovery_pb2 as delta
from authz._proto import sds_pb2 as sotw
from authz.control.discovery.conversation import MAX_TYPES, Conversation
from authz.control.discovery.discovered import (
    CLUSTER_TYPE,
    ENDPOINTS_TYPE,
    EXTENSION_TYPE,
    LISTENER_TYPE,
    ROUTES_TYPE,
    SHORT_NAMES,
    Discovered,
    ProxyWorld,
    Push,
)
from authz.control.discovery.overdue import waits_of
from authz.control.discovery.subscription import MAX_NAMES

TYPES = {short: url for url, short in SHORT_NAMES.items()}


def world(**types: str) -> dict[str, dict[str, Discovered]]:
    """``cds="a1 b2"``: cluster ``a`` in version 1, ``b`` in version 2. A cluster awaits the endpoints of its name."""
    return {
        TYPES[short]: {
            text[0]: Discovered.pack(TYPES[short], text[0], text.encode(), (text[0],) if short == "cds" else ())
            for text in written.split()
        }
        for short, written in types.items()
    }


WORLD = world(cds="a1", eds="a1", lds="l1", rds="r1", ecds="f1", sds="s1")
NAMED = {ENDPOINTS_TYPE: "a", ROUTES_TYPE: "r", EXTENSION_TYPE: "f"}


class Proxy:
    """An Envoy that asks for everything, and answers when it is told to."""

    def __init__(self, there: ProxyWorld, *, is_delta: bool) -> None:
        self.stream = Conversation(there)
        self.is_delta = is_delta
        self.names: dict[str, list[str]] = {}

    def ask(self, short: str, *names: str, gone: tuple[str, ...] = (), has: dict[str, str] | None = None) -> list[Push]:
        self.names[TYPES[short]] = [*names]
        if self.is_delta:
            request: delta.DeltaDiscoveryRequest | sotw.DiscoveryRequest = delta.DeltaDiscoveryRequest(
                type_url=TYPES[short],
                resource_names_subscribe=names,
                resource_names_unsubscribe=gone,
                initial_resource_versions=has or {},
            )
        else:
            request = sotw.DiscoveryRequest(type_url=TYPES[short], resource_names=names)
        request.node.id = "web-v1"
        return self.stream.receive(request)

    def answer(self, push: Push, error: str = "", names: list[str] | None = None) -> list[Push]:
        if self.is_delta:
            request: delta.DeltaDiscoveryRequest | sotw.DiscoveryRequest = delta.DeltaDiscoveryRequest(
                type_url=push.type_url, response_nonce=push.nonce
            )
        else:
            request = sotw.DiscoveryRequest(
                type_url=push.type_url,
                response_nonce=push.nonce,
                resource_names=self.names[push.type_url] if names is None else names,
            )
        if error:
            request.error_detail.message = error
        return self.stream.receive(request)

    def settle(self, pushes: list[Push]) -> list[str]:
        """Take everything; return what came, in order: ``cds: a`` for resources, ``cds: -a`` for what is gone."""
        told = []
        while pushes:
            push = pushes.pop(0)
            told.append(shown(push))
            pushes += self.answer(push)
        assert self.stream.is_settled
        return told


def shown(push: Push) -> str:
    names = [*(one.name for one in push.resources), *(f"-{name}" for name in push.removed)]
    return f"{SHORT_NAMES[push.type_url]}: {' '.join(names)}".rstrip()


def settled(there: ProxyWorld, *, is_delta: bool) -> Proxy:
    proxy = Proxy(there, is_delta=is_delta)
    for short in ("cds", "eds", "lds", "rds", "ecds"):
        proxy.settle(proxy.ask(short, *NAMED.get(TYPES[short], "")))
    return proxy


both = pytest.mark.parametrize("is_delta", [False, True], ids=["state", "delta"])


@both
def test_everything_that_is_asked_for_comes_once(is_delta: bool) -> None:
    proxy = Proxy(WORLD, is_delta=is_delta)
    assert proxy.settle(proxy.ask("cds")) == ["cds: a"]
    assert proxy.settle(proxy.ask("eds", "a")) == ["eds: a"]
    assert proxy.settle(proxy.ask("lds", "*")) == ["lds: l"]
    assert proxy.stream.update(dict(WORLD)) == []
    assert proxy.stream.node == "web-v1"


@both
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ecds": "f2"}, ["ecds: f"]),
        ({"eds": "a2"}, ["eds: a"]),
        ({"rds": "r2"}, ["rds: r"]),
        ({"cds": "a2"}, ["cds: a", "eds: a"]),  # which Envoy waits for, though it has it
        ({"lds": "l2", "rds": "r2", "cds": "a2", "ecds": "f2"}, ["ecds: f", "cds: a", "eds: a", "lds: l", "rds: r"]),
        ({"sds": "s2"}, []),  # nobody asked
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_only_what_changed_travels_in_the_order_of_make_before_break(
    is_delta: bool, changed: dict[str, str], told: list[str]
) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    assert proxy.settle(proxy.stream.update(WORLD | world(**changed))) == told


@pytest.mark.parametrize(
    ("is_delta", "told"),
    [
        (False, ["cds: a b", "lds: l", "rds: r", "cds: b"]),
        (True, ["cds: b", "lds: l", "rds: r", "cds: -a", "eds: -a"]),
    ],
    ids=["state", "delta"],
)
def test_a_cluster_goes_after_the_last_route_to_it_was_replaced(is_delta: bool, told: list[str]) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    assert proxy.settle(proxy.stream.update(world(cds="b1", eds="b1", lds="l2", rds="r2", ecds="f1"))) == told


@both
def test_a_cluster_stays_while_the_routes_without_it_are_refused(is_delta: bool) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    (routes,) = proxy.stream.update(WORLD | world(cds="", rds="r2"))
    assert proxy.answer(routes, "no such cluster") == []
    (routes,) = proxy.stream.update(WORLD | world(cds="", rds="r3"))
    assert proxy.settle([routes]) == ["rds: r", "cds: -a" if is_delta else "cds:"]


@both
def test_what_was_refused_is_not_sent_again_until_it_changes_and_its_text_is_kept(is_delta: bool) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    (push,) = proxy.stream.update(WORLD | world(lds="l2"))
    before = proxy.stream.subscriptions[LISTENER_TYPE].accepted
    assert proxy.answer(push, "listener l: bad filter") == []
    listeners = proxy.stream.subscriptions[LISTENER_TYPE]
    assert (listeners.rejection, listeners.refused) == ("listener l: bad filter", push.version)
    assert listeners.accepted == before
    assert proxy.stream.update(WORLD | world(lds="l2", ecds="f1")) == []
    assert proxy.settle(proxy.stream.update(WORLD | world(lds="l3"))) == ["lds: l"]
    assert (listeners.rejection, listeners.refused) == ("", "")
    assert listeners.accepted != before


@both
def test_a_slow_proxy_gets_the_newest_and_nothing_between(is_delta: bool) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    (second,) = proxy.stream.update(WORLD | world(ecds="f2"))
    assert [proxy.stream.update(WORLD | world(ecds=f"f{number}")) for number in (3, 4)] == [[], []]
    (last,) = proxy.answer(second)
    assert last.resources == (world(ecds="f4")[EXTENSION_TYPE]["f"],)


@both
def test_an_answer_to_an_overtaken_response_changes_nothing(is_delta: bool) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    (second,) = proxy.stream.update(WORLD | world(ecds="f2"))
    proxy.answer(second)
    (third,) = proxy.stream.update(WORLD | world(ecds="f3"))
    assert proxy.answer(second, "too late") == []
    assert proxy.stream.subscriptions[EXTENSION_TYPE].rejection == ""
    assert proxy.stream.subscriptions[EXTENSION_TYPE].is_waiting
    assert proxy.answer(third) == []


@both
def test_a_proxy_without_clusters_is_told_that_there_are_none(is_delta: bool) -> None:
    proxy = Proxy({}, is_delta=is_delta)
    assert proxy.settle(proxy.ask("cds")) == ["cds:"]
    assert proxy.ask("eds", *(() if is_delta else ("a",))) == []


@both
def test_clusters_that_never_become_ready_hold_up_listeners_and_their_own_repair_for_a_while_only(
    is_delta: bool,
) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    assert [shown(push) for push in proxy.stream.update(WORLD | world(cds="a2", lds="l2"))] == ["cds: a", "eds: a"]
    assert [shown(push) for push in proxy.stream.go_on()] == ["lds: l"]
    assert [shown(push) for push in proxy.stream.update(WORLD | world(cds="a3", lds="l2"))] == ["cds: a", "eds: a"]


@both
def test_of_clusters_without_an_answer_it_is_said_what_they_may_wait_for(is_delta: bool) -> None:
    proxy = settled(WORLD, is_delta=is_delta)
    there = WORLD | world(cds="a2 b1 c1", eds="a1 b1")
    pushes = proxy.stream.update(there)
    last, endpoints = (next(push for push in pushes if push.type_url == url) for url in (CLUSTER_TYPE, ENDPOINTS_TYPE))
    proxy.answer(endpoints)
    told = (
        "`b` may be refused: its endpoints were not asked for",
        "`c` may be refused: its endpoints were not asked for",
        "`a` has its endpoints, and may wait for its certificate, or be refused",
    )
    assert waits_of(proxy.stream.subscriptions, there) == told
    if is_delta:
        proxy.ask("eds", "c")
    else:  # it names all that it wants, as one more answer to the last endpoints
        proxy.answer(endpoints, names=["a", "c"])
    assert waits_of(proxy.stream.subscriptions, there)[:2] == (told[0], "`c` waits for endpoints that are not here")
    proxy.answer(last, "b: no")
    assert waits_of(proxy.stream.subscriptions, there) == ()


def test_of_a_name_that_does_not_exist_a_delta_says_so_and_the_state_of_the_world_nothing() -> None:
    assert Proxy(WORLD, is_delta=False).ask("eds", "z") == []
    proxy = Proxy(WORLD, is_delta=True)
    assert proxy.settle(proxy.ask("eds", "z")) == ["eds: -z"]
    assert proxy.settle(proxy.stream.update(WORLD | world(eds="z1"))) == ["eds: z"]


def test_a_name_asked_for_on_demand_and_again_is_sent_each_time() -> None:
    proxy = Proxy(world(eds="a1 b1"), is_delta=True)
    assert proxy.settle(proxy.ask("eds", "a")) == ["eds: a"]
    assert proxy.settle(proxy.ask("eds", "b")) == ["eds: b"]
    assert proxy.settle(proxy.ask("eds", "a")) == ["eds: a"]
    proxy.ask("eds", gone=("a",))
    assert proxy.settle(proxy.stream.update(world(eds="a2 b2"))) == ["eds: b"]


def test_after_a_reconnect_a_delta_brings_what_differs_from_what_the_proxy_has() -> None:
    there = world(cds="a1 b2 c1", eds="a1")
    has = {name: there[CLUSTER_TYPE][name].version for name in "ac"} | {"b": "old", "d": "gone"}
    proxy = Proxy(there, is_delta=True)
    assert proxy.settle(proxy.ask("cds", has=has)) == ["cds: b -d"]
    same = {"a": there[ENDPOINTS_TYPE]["a"].version}
    assert proxy.ask("eds", "a", has=same) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([()], True),
        ([(), ()], True),
        ([("*",)], True),
        ([("l",), ()], False),
        ([("*",), ()], False),
        ([("z",), (), ()], False),
    ],
)
def test_no_names_mean_everything_until_something_was_named(asked: list[tuple[str, ...]], told: bool) -> None:
    proxy = Proxy(WORLD, is_delta=False)
    for names in asked:
        proxy.settle(proxy.ask("lds", *names))
    assert bool(proxy.stream.update(WORLD | world(lds="l1 m1"))) is told


def test_a_wildcard_of_a_delta_ends_when_it_is_unsubscribed() -> None:
    proxy = Proxy(WORLD, is_delta=True)
    proxy.settle(proxy.ask("lds"))
    proxy.ask("lds", gone=("*",))
    assert proxy.stream.update(WORLD | world(lds="l2")) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda proxy: proxy.ask("eds", *(str(number) for number in range(MAX_NAMES + 1))),
        lambda proxy: [
            proxy.stream.receive(sotw.DiscoveryRequest(type_url=str(number))) for number in range(MAX_TYPES + 1)
        ],
    ],
    ids=["names", "types"],
)
def test_nobody_makes_a_stream_remember_without_bound(ask: Callable[[Proxy], object]) -> None:
    with pytest.raises(ValueError, match=r"more than|at most"):
        ask(Proxy(WORLD, is_delta=False))


def test_responses_share_the_bytes_of_their_resources_and_are_envoys_messages() -> None:
    from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryResponse, DiscoveryResponse

    one, other = (Proxy(WORLD, is_delta=is_delta).ask("cds")[0] for is_delta in (False, True))
    assert one.resources[0].packed is other.resources[0].packed
    state = DiscoveryResponse.parse(one.encode())
    assert (state.version_info, state.nonce, state.type_url) == (one.version, "1", CLUSTER_TYPE)
    assert [(item.type_url, item.value) for item in state.resources] == [(CLUSTER_TYPE, b"a1")]
    big = Discovered.pack(CLUSTER_TYPE, "big", b"x" * 70_000)
    found = DeltaDiscoveryResponse.parse(Push(CLUSTER_TYPE, "v", "9", (big,), ("gone",), True).encode())
    assert (found.system_version_info, found.nonce, found.removed_resources) == ("v", "9", ["gone"])
    assert [(item.name, item.version) for item in found.resources] == [("big", big.version)]
    assert found.resources[0].resource is not None
    assert found.resources[0].resource.value == b"x" * 70_000


class Forgetful(Conversation):
    """Remembers of no world that nothing of it is due."""

    def forget(self) -> None:
        for one in self.subscriptions.values():
            one.done = None


def other_world(random: Random, there: ProxyWorld) -> ProxyWorld:
    """The types that are as they were are the very objects of before, as in a fleet."""
    new = dict(there)
    for short in random.sample(list(TYPES), random.randint(0, 3)):
        text = " ".join(f"{name}{random.randint(1, 3)}" for name in "abc" if random.random() < 0.6)
        new |= world(**{short: text})
    return new


def ask_something(
    random: Random, pending: list[Push], *, is_delta: bool
) -> delta.DeltaDiscoveryRequest | sotw.DiscoveryRequest:
    """An answer to something that was sent, or a request; often one that makes no sense."""
    names = random.choice([[], ["*"], ["a"], ["a", "b"], ["c", "x"]])
    url, nonce = random.choice(list(TYPES.values())), random.choice(["", "7"])
    if pending and random.random() < 0.7:
        push = pending.pop(random.randrange(len(pending)))
        url, nonce = push.type_url, push.nonce
        names = [] if random.random() < 0.8 else names
    if is_delta:
        request: delta.DeltaDiscoveryRequest | sotw.DiscoveryRequest = delta.DeltaDiscoveryRequest(
            type_url=url,
            response_nonce=nonce,
            resource_names_subscribe=names,
            resource_names_unsubscribe=random.choice([[], [], [], ["a"], ["*"]]),
            initial_resource_versions=random.choice([{}, {"a": "1"}]),
        )
    else:
        request = sotw.DiscoveryRequest(type_url=url, response_nonce=nonce, resource_names=names)
    if nonce and random.random() < 0.2:
        request.error_detail.message = "no"
    return request


@both
def test_what_is_remembered_changes_nothing_that_is_sent(is_delta: bool) -> None:
    """A type of which nothing was due is not looked at again until something changes that could make it so."""
    remembered = sent = 0
    for seed in range(150):
        random = Random(seed)
        there = other_world(random, WORLD)
        one, other, pending = Conversation(there), Forgetful(there), list[Push]()
        for _ in range(40):
            other.forget()
            what = random.random()
            if what < 0.3:
                there = other_world(random, there)
                told, expected = one.update(there), other.update(there)
            elif what < 0.35:
                told, expected = one.go_on(), other.go_on()
            else:
                request = ask_something(random, pending, is_delta=is_delta)
                told, expected = one.receive(request), other.receive(request)
            assert told == expected, seed
            assert one.is_settled == other.is_settled
            pending += told
            sent += len(told)
            remembered += sum(subscription.done is not None for subscription in one.subscriptions.values())
    assert sent > 1000
    assert remembered > 1000
