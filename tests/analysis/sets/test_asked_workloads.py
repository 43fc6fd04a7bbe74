"""Which workloads stand for all, where nobody describes them."""

import pytest

from authz.analysis.sets import asked_workloads
from authz.analysis.sets.asked_workloads import ELSEWHERE, are_same, targets_of
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
