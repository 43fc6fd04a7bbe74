"""Counting without a network: which rules apply, whose counter it is, what is told and recorded."""

from dataclasses import replace

import pytest

from authz._proto import rate_limit_pb2 as pb
from authz.core.attributes import Workload
from authz.core.decided import Offer
from authz.core.decision import Effect, RuleReference, Stage
from authz.mesh.rate_limits import (
    AppliedLimit,
    AttributeSelector,
    LimitScope,
    LimitUnit,
    RateLimitRule,
    ValueMatch,
)
from authz.service.rate_limits.limiting import RateLimiter
from authz.service.rate_limits.quota_store import MemoryStore, StoreDown

NOW = 1_800_000_030.0
"""Half a minute after a minute began."""
WORKLOAD = Workload("app", frozenset({("app", "server")}), "server", "server-v1")
CALLER = "spiffe://cluster.local/ns/app/sa/client"
FACTS = {
    "x-authz-principal": CALLER,
    "x-authz-request-id": "r-1",
    "x-authz-method": "GET",
    "x-authz-host": "server",
    "x-authz-path": "/books",
    "x-authz-remote-ip": "192.0.2.1",
    "x-authz-direct-ip": "192.0.2.2",
    "x-authz-proxy": "server-v1",
    "x-authz-enforce": "check",
}
RULE = RateLimitRule(RuleReference("app", "quota", 0, "name"), LimitScope.GLOBAL, 2, LimitUnit.MINUTE)


class Kept:
    """An audit that remembers."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []

    def record(self, offer: Offer) -> bool:
        self.offers.append(offer)
        return True


class Broken:
    """A store that is down."""

    async def add(self, key: str, end: float, amount: int, now: float) -> int:
        raise StoreDown("nobody is there")

    async def close(self) -> None:
        """Nothing is held."""


class Seen(MemoryStore):
    """A store that tells its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def add(self, key: str, end: float, amount: int, now: float) -> int:
        self.keys.append(key)
        return await super().add(key, end, amount, now)


class Asking:
    """A limiter and what was told."""

    def __init__(self, *rules: RateLimitRule, broken: bool = False) -> None:
        self.audit, self.store = Kept(), Seen()
        self.limiter = RateLimiter(Broken() if broken else self.store, self.audit)
        self.limiter.replace({WORKLOAD: tuple(map(AppliedLimit, rules))}, "v1")

    async def ask(self, *entries: tuple[str, str], now: float = NOW, **facts: str) -> pb.RateLimitResponse:
        request = pb.RateLimitRequest(domain="authz")
        for key, value in entries or (("rule", RULE.id),):
            if key == "rule":
                descriptor = request.descriptors.add()
            descriptor.entries.add(key=key, value=value)
        told = FACTS | {f"x-authz-{name}": value for name, value in facts.items()}
        answer = await self.limiter.answer(request.SerializeToString(), told, now)
        return pb.RateLimitResponse.FromString(answer)

    async def codes(self, count: int, *entries: tuple[str, str], **facts: str) -> list[int]:
        return [(await self.ask(*entries, now=NOW, **facts)).overall_code for _ in range(count)]


def by(*selectors: AttributeSelector, rule: RateLimitRule = RULE) -> RateLimitRule:
    return replace(rule, selectors=selectors)


def distinct(key: str, default: str = "") -> AttributeSelector:
    return AttributeSelector(key, ValueMatch.DISTINCT, default=default)


async def test_a_window_is_aligned_to_the_clock_and_the_next_is_empty() -> None:
    asking = Asking(RULE)
    first = await asking.ask()
    (status,) = first.statuses
    assert (status.current_limit.requests_per_unit, status.current_limit.unit) == (2, 2)
    assert (status.limit_remaining, status.duration_until_reset.seconds) == (1, 30)
    assert await asking.codes(2) == [1, 2]
    assert (await asking.ask(now=NOW + 30)).overall_code == 1


async def test_callers_are_counted_each_by_itself() -> None:
    asking = Asking(by(distinct("source.principal")))
    assert await asking.codes(3) == [1, 1, 2]
    assert await asking.codes(3, principal=CALLER + "2") == [1, 1, 2]


async def test_a_namespace_is_that_of_the_identity() -> None:
    asking = Asking(by(distinct("source.namespace")))
    assert await asking.codes(2) == [1, 1]
    assert await asking.codes(1, principal="spiffe://cluster.local/ns/app/sa/another") == [2]
    assert await asking.codes(1, principal="spiffe://cluster.local/ns/other/sa/client") == [1]


@pytest.mark.parametrize("principal", ["", "-", "spiffe://a,spiffe://b"])
async def test_without_a_value_a_rule_does_not_apply(principal: str) -> None:
    asking = Asking(by(distinct("source.namespace")))
    answer = await asking.ask(principal=principal)
    assert answer.overall_code == 1
    assert not answer.statuses[0].HasField("current_limit")
    assert asking.store.keys == []


async def test_or_its_default_stands_for_it() -> None:
    asking = Asking(by(distinct("source.principal", default="nobody")))
    assert await asking.codes(3, principal="-") == [1, 1, 2]
    assert await asking.codes(1) == [1]


@pytest.mark.parametrize(
    ("selector", "applies"),
    [
        (AttributeSelector("source.principal", value="cluster.local/ns/app/sa/client"), True),
        (AttributeSelector("source.principal", value="cluster.local/ns/app/sa/clien"), False),
        (AttributeSelector("source.principal", value="cluster.local/ns/app/sa/client", invert=True), False),
        (AttributeSelector("source.namespace", value="app"), True),
        (AttributeSelector("source.namespace", value="other", invert=True), True),
        (AttributeSelector("request.auth.claims[sub]", value="jason"), True),
        (AttributeSelector("request.auth.claims[sub]", value="tester"), False),
    ],
)
async def test_an_exact_value_chooses_requests(selector: AttributeSelector, applies: bool) -> None:
    asking = Asking(by(selector))
    await asking.ask(("rule", RULE.id), ("request.auth.claims[sub]", "jason"))
    assert bool(asking.store.keys) is applies


async def test_no_value_of_a_request_is_in_a_key() -> None:
    asking = Asking(by(distinct("source.principal"), distinct("request.auth.claims[sub]")))
    entries = [("rule", RULE.id), ("header x-key", "s3cret"), ("request.auth.claims[sub]", "jason")]
    await asking.ask(*entries)
    (key,) = asking.store.keys
    assert key.startswith("app/quota/global/0/60/30000000/")
    assert not any(text in key for text in ("s3cret", "jason", "client"))
    assert len(key) < 80


async def test_targets_are_counted_apart() -> None:
    asking = Asking(RULE)
    assert await asking.codes(3, ("rule", RULE.id), ("target", "0")) == [1, 1, 2]
    assert await asking.codes(3, ("rule", RULE.id), ("target", "1")) == [1, 1, 2]


async def test_one_rule_that_is_used_up_refuses_and_all_are_told() -> None:
    wide = replace(RULE, reference=RuleReference("app", "wide", 0, "wide"), requests=100)
    asking = Asking(RULE, wide)
    both = [("rule", RULE.id), ("rule", wide.id)]
    assert await asking.codes(3, *both) == [1, 1, 2]
    answer = await asking.ask(*both)
    assert [(one.code, one.limit_remaining) for one in answer.statuses] == [(2, 0), (1, 96)]
    assert answer.dynamic_metadata.fields["rule"].string_value == RULE.id


async def test_a_cost_is_taken_whole_or_refused() -> None:
    asking = Asking(replace(RULE, requests=10, cost=4))
    assert await asking.codes(3) == [1, 1, 2]


async def test_a_cost_of_nothing_only_looks() -> None:
    looking = replace(RULE, cost=0)
    asking = Asking(looking)
    assert await asking.codes(5) == [1] * 5
    asking.limiter.replace({WORKLOAD: (AppliedLimit(RULE),)}, "v1")
    await asking.codes(2)
    asking.limiter.replace({WORKLOAD: (AppliedLimit(looking),)}, "v1")
    assert await asking.codes(1) == [2]


async def test_no_requests_at_all_is_a_limit_too() -> None:
    assert await Asking(replace(RULE, requests=0)).codes(1) == [2]


async def test_a_shadow_is_counted_and_neither_refuses_nor_is_told() -> None:
    asking = Asking(replace(RULE, is_shadow=True))
    assert await asking.codes(3) == [1, 1, 1]
    assert not (await asking.ask()).statuses[0].HasField("current_limit")
    assert asking.limiter.status().results == {
        ("app", "quota", "0", "allowed"): 2,
        ("app", "quota", "0", "shadow"): 2,
    }
    assert asking.audit.offers == []


async def test_a_rule_of_another_description_does_not_refuse_and_is_counted() -> None:
    asking = Asking(RULE)
    assert await asking.codes(1, ("rule", "app/gone/global/0")) == [1]
    assert asking.limiter.status().unknown == 1


async def test_or_is_not_counted_and_refused_where_the_limit_fails_closed() -> None:
    asking = Asking(RULE)
    with pytest.raises(StoreDown, match="the mesh description here has not"):
        await asking.ask(("rule", RULE.id), ("rule", "app/gone/global/0"), now=NOW, **{"fail-closed": "yes"})
    (offer,) = asking.audit.offers
    assert (offer.decision.status, offer.decision.stage, offer.decision.rule) == (503, Stage.RATE_LIMIT, None)
    assert (asking.store.keys, asking.limiter.status().problem) == ([], "")


async def test_a_refusal_is_recorded_with_what_is_known_of_the_request() -> None:
    asking = Asking(RULE)
    await asking.codes(3)
    (offer,) = asking.audit.offers
    decision, attributes = offer.decision, offer.attributes
    assert (decision.effect, decision.stage, decision.status) == (Effect.DENY, Stage.RATE_LIMIT, 429)
    assert decision.reason == "the limit app/quota/0 of 2 per minute is used up"
    assert (decision.rule, decision.policy_version, offer.decision_id) == (RULE.reference, "v1", "r-1")
    assert attributes.source.identities == (CALLER,)
    assert (attributes.source.remote_ip, attributes.source.ip) == ("192.0.2.1", "192.0.2.2")
    assert attributes.destination.workload == WORKLOAD
    assert attributes.http is not None
    assert (attributes.http.method, attributes.http.host, attributes.http.path) == ("GET", "server", "/books")


async def test_what_the_log_of_a_proxy_tells_is_not_recorded_twice() -> None:
    asking = Asking(RULE)
    assert await asking.codes(3, enforce="native") == [1, 1, 2]
    assert asking.audit.offers == []


@pytest.mark.parametrize(("closed", "recorded"), [(False, 0), (True, 1)])
async def test_without_a_store_the_proxy_decides_and_a_refusal_is_recorded(closed: bool, recorded: int) -> None:
    asking = Asking(replace(RULE, fails_closed=closed), broken=True)
    with pytest.raises(StoreDown):
        await asking.ask()
    assert [offer.decision.status for offer in asking.audit.offers] == [503] * recorded
    assert asking.limiter.status().results == {("app", "quota", "0", "uncounted"): 1}
    assert asking.limiter.status().problem == "nobody is there"


def _bytes_of(number: int, data: bytes) -> bytes:
    """A field of a protobuf message, of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


async def test_text_that_is_not_utf_8_is_counted_each_by_itself() -> None:
    asking = Asking(RULE)

    async def code(key: bytes) -> int:
        entries = [(b"rule", RULE.id.encode()), (b"header x-key", key)]
        descriptor = b"".join(_bytes_of(1, _bytes_of(1, name) + _bytes_of(2, value)) for name, value in entries)
        answer = await asking.limiter.answer(_bytes_of(2, descriptor), FACTS, NOW)
        return pb.RateLimitResponse.FromString(answer).overall_code

    assert [await code(key) for key in (b"\xff", b"\xff", b"\xff", b"\xfe", b"\xc3")] == [1, 1, 2, 1, 1]


async def test_values_that_join_to_the_same_text_are_not_the_same() -> None:
    first, second = "request.auth.claims[a]", "request.auth.claims[b]"
    asking = Asking(by(distinct(first), distinct(second)))
    await asking.ask(("rule", RULE.id), (first, "x\0y"), (second, "z"))
    await asking.ask(("rule", RULE.id), (first, "x"), (second, "y\0z"))
    assert len(set(asking.store.keys)) == 2


async def test_entries_that_name_another_rule_workload_or_caller_choose_no_other_counter() -> None:
    asking = Asking(by(distinct("source.principal")))
    forged = [("rule", RULE.id), ("source.principal", "cluster.local/ns/app/sa/admin"), ("x-authz-principal", "admin")]
    assert await asking.codes(1, *forged) == [1]
    assert await asking.codes(2, ("rule", RULE.id), principal="spiffe://cluster.local/ns/app/sa/admin") == [1, 1]
    assert await asking.codes(3, ("rule", RULE.id)) == [1, 1, 2]


@pytest.mark.parametrize("addend", [0, 1, 2**32 - 1])
async def test_what_envoy_wants_to_add_is_what_the_rule_says(addend: int) -> None:
    asking = Asking(RULE)
    request = pb.RateLimitRequest(domain="of somebody else")
    request.descriptors.add().entries.add(key="rule", value=RULE.id)
    message = request.SerializeToString() + b"\x18" + _varint(addend)
    answers = [await asking.limiter.answer(message, FACTS, NOW) for _ in range(3)]
    assert [pb.RateLimitResponse.FromString(one).overall_code for one in answers] == [1, 1, 2]


def _varint(number: int) -> bytes:
    found = b""
    while number >= 128:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


async def test_descriptors_that_are_many_empty_repeated_or_large_are_answered_one_by_one() -> None:
    asking = Asking(replace(RULE, requests=5))
    request = pb.RateLimitRequest()
    request.descriptors.add()
    request.descriptors.add().entries.add(key="rule")
    request.descriptors.add().entries.add(value="x" * 1_000_000)
    for _ in range(2_000):
        request.descriptors.add().entries.add(key="rule", value=RULE.id)
    answer = pb.RateLimitResponse.FromString(await asking.limiter.answer(request.SerializeToString(), FACTS, NOW))
    assert answer.overall_code == 2
    assert len(answer.statuses) == 2_003
    assert asking.limiter.status().unknown == 3
    assert len(asking.audit.offers) == 1, "one request, one record"


async def test_bytes_that_are_no_request_are_said_to_be_none() -> None:
    with pytest.raises(ValueError, match="not a RateLimitRequest"):
        await Asking(RULE).limiter.answer(b"\xff\xff", FACTS, NOW)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(most=2)


async def test_a_store_in_memory_forgets_windows_that_are_over(store: MemoryStore) -> None:
    assert [await store.add("a", 60, 1, 0), await store.add("a", 60, 2, 1)] == [1, 3]
    assert await store.add("b", 60, 1, 1) == 1
    with pytest.raises(StoreDown, match="use Redis"):
        await store.add("c", 60, 1, 1)
    assert await store.add("c", 120, 1, 60) == 1
