"""A simulated Envoy on streams of deltas, at random: in the end it has what there is, and what it refused is shown."""

from random import Random

import pytest

from authz._proto import delta_discovery_pb2 as delta
from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import (
    CLUSTER_TYPE,
    ENDPOINTS_TYPE,
    EXTENSION_TYPE,
    LISTENER_TYPE,
    ROUTES_TYPE,
    Discovered,
    Push,
)
from authz.control.discovery.subscription import WILDCARD, WITH_WILDCARD

TYPES = (EXTENSION_TYPE, CLUSTER_TYPE, ENDPOINTS_TYPE, LISTENER_TYPE, ROUTES_TYPE)
World = dict[str, dict[str, Discovered]]


def resource(type_url: str, name: str, version: object) -> Discovered:
    return Discovered.pack(type_url, name, f"{name}{version}".encode(), (name,) if type_url == CLUSTER_TYPE else ())


class SimulatedEnvoy:
    """Takes what it is sent, refuses some of it, asks for more or less, and loses its stream."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.world: World = {type_url: {} for type_url in TYPES}
        self.has: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.names: dict[str, set[str]] = {type_url: set() for type_url in TYPES}
        self.refused: dict[tuple[str, str], str] = {}
        self.begin()

    def begin(self) -> None:
        """A new stream, perhaps at another control."""
        self.stream, self.pushes = Conversation(self.world), list[Push]()
        self.refused.clear()
        for type_url in TYPES:
            if type_url in WITH_WILDCARD or self.names[type_url]:
                names = self.random.choice(([], [WILDCARD])) if type_url in WITH_WILDCARD else self.names[type_url]
                self.say(type_url, resource_names_subscribe=names, initial_resource_versions=self.has[type_url])

    def say(self, type_url: str, error: str = "", **told: object) -> None:
        request = delta.DeltaDiscoveryRequest(type_url=type_url, **told)  # type: ignore[arg-type]  # its fields
        if error:
            request.error_detail.message = error
        self.pushes += self.stream.receive(request)

    def change(self) -> None:
        before = self.world
        self.world = {type_url: dict(before[type_url]) for type_url in TYPES}
        for type_url in TYPES:
            for name in "abcd":
                if self.random.random() < 0.3:
                    self.world[type_url].pop(name, None)
                elif self.random.random() < 0.3:
                    self.world[type_url][name] = resource(type_url, name, self.random.randrange(3))
        for name in self.world[CLUSTER_TYPE].keys() - self.world[ENDPOINTS_TYPE].keys():
            del self.world[CLUSTER_TYPE][name]
        self.pushes += self.stream.update(self.world)

    def is_wanted(self, type_url: str, name: str) -> bool:
        return type_url in WITH_WILDCARD or name in self.names[type_url]

    def answer(self, *, may_refuse: bool) -> None:
        push = self.pushes.pop(0)
        wanted = [one for one in push.resources if self.is_wanted(push.type_url, one.name)]
        bad = self.random.choice(wanted).name if wanted and may_refuse and self.random.random() < 0.3 else ""
        for one in wanted:
            if one.name == bad:
                self.refused[push.type_url, one.name] = one.version
            else:
                self.has[push.type_url][one.name] = one.version
                self.refused.pop((push.type_url, one.name), None)
        for name in push.removed:
            self.forget(push.type_url, name)
        self.say(push.type_url, bad, response_nonce=push.nonce)

    def forget(self, type_url: str, name: str) -> None:
        self.has[type_url].pop(name, None)
        self.refused.pop((type_url, name), None)

    def want_another(self) -> None:
        type_url = self.random.choice([one for one in TYPES if one not in WITH_WILDCARD])
        name, names = self.random.choice("abcde"), self.names[type_url]
        if name not in names:
            names.add(name)
            self.say(type_url, resource_names_subscribe=[name])
        elif type_url in self.stream.subscriptions:
            names.remove(name)
            self.forget(type_url, name)
            self.say(type_url, resource_names_unsubscribe=[name])

    def settle(self, *, may_refuse: bool) -> None:
        while self.pushes:
            self.answer(may_refuse=may_refuse)
        assert self.stream.is_settled


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_whatever_happens_a_proxy_has_what_there_is_in_the_end_and_no_refusal_is_hidden(seed: int) -> None:
    for run in range(seed, seed + 20):
        envoy = SimulatedEnvoy(Random(run))
        for _ in range(60):
            match envoy.random.randrange(20):
                case 0:
                    envoy.begin()
                case 1 | 2:
                    envoy.pushes += envoy.stream.go_on()
                case 3 | 4 | 5:
                    envoy.want_another()
                case 6 | 7 | 8 | 9 | 10 | 11:
                    envoy.change()
                case _ if envoy.pushes:
                    envoy.answer(may_refuse=True)
        envoy.settle(may_refuse=True)
        asked = envoy.stream.subscriptions
        refused = {type_url for type_url, name in envoy.refused if name in envoy.world[type_url]}
        assert refused <= {type_url for type_url, one in asked.items() if one.rejection}, run
        envoy.world = {
            type_url: {name: resource(type_url, name, "last") for name in there}
            for type_url, there in envoy.world.items()
        }
        envoy.pushes += envoy.stream.update(envoy.world)
        envoy.settle(may_refuse=False)
        for type_url, one in asked.items():
            there = {name: one.version for name, one in envoy.world[type_url].items()}
            wanted = {name: version for name, version in there.items() if envoy.is_wanted(type_url, name)}
            has = envoy.has[type_url]
            if type_url == ENDPOINTS_TYPE:  # those of a cluster that is gone Envoy drops with it
                has = {name: version for name, version in has.items() if name in there}
            assert has == wanted, run
            assert not one.rejection, run
