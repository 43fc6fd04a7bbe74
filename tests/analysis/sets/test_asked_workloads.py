"""Which workloads stand for all, where nobody describes them."""

import pytest

from authz.analysis.sets import asked_workloads
from authz.analysis.sets.asked_workloads import ELSEWHERE, AskedWorkload, are_same, targets_of
from authz.analysis.sets.unobeyed import changed_and_unobeyed
from authz.core.attributes import Workload
from authz.core.resources import Resources
from tests.analysis.sets.compiled import WORKLOAD, allow, engine, paths, peer, tokens


def selecting(text: str, labels: str, namespace: str = "shop") -> str:
    return text.replace("spec: {", f"spec: {{selector: {{matchLabels: {{{labels}}}}}, ").replace(
        "namespace: shop", f"namespace: {namespace}"
    )


def test_every_combination_of_selectors_stands_for_its_workloads() -> None:
    documents = [
        selecting(allow(paths("/a"), name="one"), "app: cart"),
        selecting(allow(paths("/a"), name="two"), "app: web"),
        selecting(allow(paths("/a"), name="three"), "version: v1"),
    ]
    found, left_out = targets_of([engine(*documents)])
    assert [asked.name for asked in found] == [
        "shop (no label that a selector names)",
        "shop (app=cart)",
        "shop (app=web)",
        "shop (version=v1)",
        "shop (app=cart,version=v1)",
        "shop (app=web,version=v1)",
    ]
    assert left_out == []


def targeting(kind: str, name: str = "x") -> str:
    group = {"Gateway": "gateway.networking.k8s.io", "ServiceEntry": "networking.istio.io"}.get(kind, "''")
    refs = f"{{kind: {kind}, group: {group}, name: {name}}}"
    return allow(paths("/a"), name="t").replace("spec: {", f"spec: {{targetRefs: [{refs}], ")


@pytest.mark.parametrize(("kind", "is_asked"), [("Gateway", True), ("Service", False), ("ServiceEntry", False)])
def test_only_a_target_that_is_a_gateway_makes_one(kind: str, is_asked: bool) -> None:
    found, _ = targets_of([engine(targeting(kind, "edge"))])
    labels = {label for asked in found for label in asked.workload.labels}
    assert labels == ({("gateway.networking.k8s.io/gateway-name", "edge")} if is_asked else set())


SERVICE, ENTRY = "targetRefs name Service `x`", "targetRefs name ServiceEntry `x`"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ([targeting("Service")], [targeting("Service").replace("/a", "/b")], SERVICE),
        ([], [targeting("ServiceEntry")], ENTRY),
        ([targeting("Service")], [], SERVICE),
        ([targeting("Service")], [targeting("ServiceEntry")], ENTRY),
        ([targeting("Service")], [targeting("Service", "z")], "targetRefs name Service `z`"),
        ([targeting("Service")], [allow("{}", name="other"), targeting("Service")], ""),
        ([targeting("Gateway")], [targeting("Gateway").replace("/a", "/b")], ""),
        ([targeting("Service")], [allow(paths("/a"), name="t")], ""),
        ([targeting("Gateway")], [targeting("Service")], ""),
        ([tokens("{issuer: a}")], [tokens("{issuer: b}")], ""),
    ],
)
def test_a_policy_that_differs_and_that_nobody_obeys_is_told(old: list[str], new: list[str], told: str) -> None:
    engines = engine(*old), engine(*new)
    found = changed_and_unobeyed(*engines, targets_of(engines)[0])
    assert [text.partition("its ")[2] for text in found] == ([told] if told else [])
    assert all(text.startswith("AuthorizationPolicy shop/t differs") for text in found)


def test_a_gateway_that_no_described_workload_is_obeys_nothing() -> None:
    sides = engine(targeting("Gateway")), engine()
    assert changed_and_unobeyed(*sides, [AskedWorkload("shop/cart", WORKLOAD)]) == [
        "AuthorizationPolicy shop/t differs, and no workload obeys it: its targetRefs name Gateway `x`"
    ]


def test_policies_of_the_root_namespace_are_asked_about_elsewhere_too() -> None:
    found, _ = targets_of([engine(selecting(allow(paths("/a")), "app: cart", "istio-system"))])
    assert {asked.workload.namespace for asked in found} == {"istio-system", ELSEWHERE}


def test_too_many_combinations_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_workloads, "MAX_COMBINATIONS", 3)
    documents = [selecting(allow(paths("/a"), name=f"p{at}"), f"l{at}: x") for at in range(5)]
    _, left_out = targets_of([engine(*documents)])
    assert left_out == [
        "the selectors of namespace `shop` have more than 3 combinations; name the workloads with --mesh"
    ]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ([allow(paths("/a"))], True),
        ([allow(paths("/b"))], False),
        ([allow(paths("/a")), peer("STRICT")], False),
        ([allow(paths("/a")), tokens("{issuer: https://a.test}")], False),
        ([allow(paths("/a")), selecting(allow(paths("/b"), name="x"), "app: web")], True),
    ],
)
def test_a_workload_is_the_same_when_nothing_that_applies_to_it_was_touched(change: list[str], same: bool) -> None:
    assert are_same(engine(allow(paths("/a"))), engine(*change), WORKLOAD) is same


def test_without_digests_nothing_is_known_to_be_the_same() -> None:
    one = engine(allow(paths("/a")))
    one.resources = Resources(one.resources.authorization_policies)
    assert not are_same(one, one, Workload("shop"))
