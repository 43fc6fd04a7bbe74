"""The looked-up form: what each of Envoy's traps would do to it, on a real Envoy where Envoy is what matters."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify.proxy import NUMBER, listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Json
from authz.core.catalog import CONDITION_KEYS, HOSTS, PATHS, Attribute
from authz.core.engine import Engine
from authz.core.index import Needs
from authz.core.matchers import Terms
from authz.core.resources import MeshConfig
from authz.envoy.native.filters import NativeFilters, http_filters
from authz.envoy.native.first import UNPROVED, rank_names
from authz.envoy.native.indexed import Form
from authz.envoy.native.linear import Filter
from authz.envoy.native.lookup import HOST, IDENTITY, PATH, PORT, Bucket, Lookup, plan
from authz.envoy.native.matcher_tree import COMPOSITE_TYPE, SET_FILTER_STATE, composite_filters
from authz.envoy.native.value_matchers import TYPE
from tests.envoy.client import http1_bytes
from tests.envoy.native.equality import policy_set
from tests.envoy.native.worlds import WORKLOAD

WEB = "spiffe://cluster.local/ns/shop/sa/web"
ATTRIBUTES: Mapping[str, Attribute] = {
    PATH: PATHS,
    HOST: HOSTS,
    IDENTITY: CONDITION_KEYS["source.principal"],
    PORT: CONDITION_KEYS["destination.port"],
}


# --- the plan, without Envoy ---------------------------------------------------------------------------------------


def random_needs(rng: Random) -> Needs:
    needs: Needs = {}
    for key, attribute in ATTRIBUTES.items():
        if rng.random() < 0.5:
            texts = ["".join(rng.choice("ab/") for _ in range(rng.randint(0, 4))) for _ in range(rng.randint(1, 3))]
            kinds = [rng.choice(("exact", "exact", "prefixes", "suffixes")) for _ in texts]
            terms = Terms(
                frozenset(t for t, kind in zip(texts, kinds, strict=True) if kind == "exact"),
                tuple(t for t, kind in zip(texts, kinds, strict=True) if kind == "prefixes"),
                tuple(t for t, kind in zip(texts, kinds, strict=True) if kind == "suffixes"),
            )
            needs[key] = (attribute, terms)
    return needs


def can_match(needs: Needs, values: Mapping[str, str]) -> bool:
    return all(
        values[key] in terms.exact or values[key].startswith(terms.prefixes) or values[key].endswith(terms.suffixes)
        for key, (_, terms) in needs.items()
    )


def found(part: Lookup | Bucket, values: Mapping[str, str]) -> Bucket:
    """Where Envoy's matching API ends: exact, then the longest prefix, then what is left."""
    while isinstance(part, Lookup):
        value = values[part.key]
        prefixes = [text for text in part.prefixes if value.startswith(text)]
        if value in part.exact:
            part = part.exact[value]
        else:
            part = part.prefixes[max(prefixes, key=len)] if prefixes else part.otherwise
    return part


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("may_split", [True, False])
def test_every_rule_that_can_match_is_in_the_bucket(seed: int, may_split: bool) -> None:
    rng = Random(seed)
    rules = [random_needs(rng) for _ in range(rng.choice((3, 30, 120)))]
    parts = plan(rules, may_split=may_split, walk=rng.choice((0, 2, 70)))
    assert may_split or len(parts) == 1
    for _ in range(200):
        values = {key: "".join(rng.choice("ab/") for _ in range(rng.randint(0, 6))) for key in ATTRIBUTES}
        reached = {ordinal for part in parts for ordinal in found(part, values)}
        assert {ordinal for ordinal, needs in enumerate(rules) if can_match(needs, values)} <= reached


def test_thousands_of_rules_without_a_path_beside_thousands_with_one_are_looked_up_by_another_key() -> None:
    paths: list[Needs] = [{PATH: (PATHS, Terms(frozenset([f"/p{index}"])))} for index in range(2000)]
    principals: list[Needs] = [
        {IDENTITY: (ATTRIBUTES[IDENTITY], Terms(frozenset([f"spiffe://a/{index}"])))} for index in range(2000)
    ]
    parts = plan(paths + principals, may_split=True)
    assert [part.key for part in parts if isinstance(part, Lookup)] == [PATH, IDENTITY]
    for part in parts:
        assert isinstance(part, Lookup)
        assert sum(map(len, part.buckets())) <= 3 * 2000
    one = found(parts[0], dict.fromkeys(ATTRIBUTES, "/p7"))
    assert one == (7,)


# --- what is emitted -----------------------------------------------------------------------------------------------


def nodes(node: Json) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for child in node:
            yield from nodes(child)
    elif isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)


@pytest.fixture(scope="module")
def emitted() -> list[NativeFilters]:
    return [policy_set(seed).indexed for seed in range(30)]


def test_names_of_chains_and_references_to_them_are_the_same(emitted: list[NativeFilters]) -> None:
    composites = [one for native in emitted for one in native.filters if one.config["@type"] == COMPOSITE_TYPE]
    assert len(composites) >= 30
    for composite in composites:
        chains = composite.config["named_filter_chains"]
        assert isinstance(chains, dict)
        referred = {node["filter_chain_name"] for node in nodes(composite.config) if "filter_chain_name" in node}
        assert referred == chains.keys()


def test_a_name_that_leads_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from authz.envoy.native import matcher_tree

    lookup = Lookup(PATH, {"/a": (0,)}, {}, (), (0,))
    monkeypatch.setattr(matcher_tree._Chains, "action", lambda self, bucket: self.referred.add("nowhere") or {})
    with pytest.raises(AssertionError, match="not written"):
        composite_filters(lookup, lambda _: Filter("envoy.filters.http.rbac", {}))


def test_rules_are_never_re_expressed_as_a_matching_tree(emitted: list[NativeFilters]) -> None:
    for native in emitted:
        for node in nodes([one.config for one in native.filters]):
            if node.get("@type") == f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC":
                assert not {"matcher", "shadow_matcher"} & node.keys()


def test_rules_stand_in_buckets_word_for_word(emitted: list[NativeFilters]) -> None:
    ranks = {name for number in range(1, 200) for name in rank_names(number)}
    for seed, native in enumerate(emitted):
        linear = policy_set(seed).linear
        whole = {
            name: policy
            for node in nodes([one.config for one in linear.filters])
            if isinstance(node.get("policies"), dict)
            for name, policy in node["policies"].items()
        }
        for node in nodes([one.config for one in native.filters]):
            for name, policy in (node.get("policies") or {}).items():
                if name not in whole:  # a look-up among several names its rules by their rank
                    assert name == UNPROVED or name in ranks
                assert name == UNPROVED or policy in whole.values()
                assert name not in whole or policy == whole[name]


def test_every_look_up_stands_directly_behind_its_values(emitted: list[NativeFilters]) -> None:
    for native in emitted:
        for before, one in zip([None, *native.filters], native.filters, strict=False):
            if one.config["@type"] == COMPOSITE_TYPE:
                assert before is not None
                assert before.name == SET_FILTER_STATE
                known = {node["object_key"] for node in nodes(before.config) if "object_key" in node}
                asked = {
                    node["key"] for node in nodes(one.config["matcher"]) if "FilterStateInput" in str(node.get("@type"))
                }
                assert asked <= known


def test_certificates_are_never_an_input(emitted: list[NativeFilters]) -> None:
    assert "matching.common_inputs.ssl" not in json.dumps([one.config for native in emitted for one in native.filters])


# --- on a real Envoy -----------------------------------------------------------------------------------------------


def policy(name: str, action: str, *rules: dict[str, object]) -> str:
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"action": action, "rules": list(rules)},
        }
    )


def paths(*found: str) -> dict[str, object]:
    return {"to": [{"operation": {"paths": list(found)}}]}


def hosts(*found: str) -> dict[str, object]:
    return {"to": [{"operation": {"hosts": list(found)}}]}


def principals(*found: str) -> dict[str, object]:
    return {"from": [{"source": {"principals": list(found)}}]}


def engine_of(*policies: str) -> Engine:
    engine = compile_texts([PolicyText("policies.yaml", "\n---\n".join(policies))], MeshConfig())
    assert isinstance(engine, Engine), engine
    return engine


def answers(
    directory: Path, engine: Engine, requests: Sequence[OfflineRequest], before: Sequence[Filter] = ()
) -> dict[str, list[tuple[int, str]]]:
    """Status, details and the rule that Envoy names, by form; ``before``: filters in front of the stages."""
    identities = Identities(directory)
    identities.write(directory / "server", WEB)
    forms = {form: http_filters(engine, WORKLOAD, {}, form=form, walk=2) for form in (Form.LINEAR, Form.INDEXED)}
    listeners = [listener(form, [*before, *native.filters], directory) for form, native in forms.items()]
    told: dict[str, list[tuple[int, str]]] = {}
    with running(directory, listeners, identities) as envoy:
        for form in forms:
            statuses = [
                envoy.ask(form, [http1_bytes(sent)], identity=one.source_principal)[0].status
                for number, one in enumerate(requests)
                for sent in [OfflineRequest(path=one.path, host=one.host, headers=((NUMBER, f"{form}{number}"),))]
            ]
            told[form] = [(status, str(number)) for number, status in enumerate(statuses)]
        log = envoy.logged(2 * len(requests))
    return {
        form: [(status, _named(log[f"{form}{number}"])) for status, number in found] for form, found in told.items()
    }


def _named(line: Mapping[str, Any]) -> str:
    return f"{line['details']} {(line['rbac'] or {}).get('enforced_effective_policy_id', '')}"


real = pytest.mark.envoy


@real
@pytest.mark.parametrize("action", ["DENY", "ALLOW"])
def test_a_connection_without_a_certificate_ends_where_no_identity_leads(action: str, tmp_path: Path) -> None:
    rules = [principals(f"cluster.local/ns/shop/sa/s{index}") for index in range(20)]
    engine = engine_of(policy("who", action, *rules), policy("where", action, paths("/always")))
    requests = [
        OfflineRequest(path=path, source_principal=identity)
        for path in ("/always", "/")
        for identity in ("", "spiffe://cluster.local/ns/shop/sa/s7", WEB)
    ]
    told = answers(tmp_path, engine, requests)
    assert told["indexed"] == told["linear"]
    hit = 403 if action == "DENY" else 200
    assert [status for status, _ in told["indexed"]] == [hit, hit, hit, 603 - hit, hit, 603 - hit]


@real
@pytest.mark.parametrize("changed", ["/p7", "/p7?x", "/p7#x", "/p7#x?y", "/q/p7", "/none"])
def test_the_path_is_the_one_that_a_filter_before_the_stage_left(changed: str, tmp_path: Path) -> None:
    engine = engine_of(policy("p", "DENY", *(paths(f"/p{index}", f"/q/p{index}*") for index in range(20))))
    code = f'function envoy_on_request(handle) handle:headers():replace(":path", "{changed}") end'
    before = Filter(
        "envoy.filters.http.lua",
        {
            "@type": f"{TYPE}envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": code},
        },
    )
    told = answers(tmp_path, engine, [OfflineRequest(path="/p3"), OfflineRequest(path="/other")], [before])
    assert told["indexed"] == told["linear"]
    assert {status for status, _ in told["linear"]} == ({200} if changed == "/none" else {403})


@real
@pytest.mark.parametrize("action", ["DENY", "ALLOW"])
def test_several_look_ups_decide_as_one(action: str, tmp_path: Path) -> None:
    engine = engine_of(
        policy("p", action, *(paths(f"/p{index}") for index in range(60))),
        policy("s", action, *(principals(f"cluster.local/ns/shop/sa/s{index}") for index in range(60))),
        policy("h", action, *(hosts(f"H{index}.test") for index in range(60))),
        policy("a", action, paths("/last"), paths("*t")),
        policy("z", action, paths("/p7*", "/never")),
    )
    sizes = http_filters(engine, WORKLOAD, {}, form=Form.INDEXED, walk=2).sizes
    assert [(size.lookups, size.largest) for size in sizes] == [(4, 60)]
    requests = [
        OfflineRequest(path=path, host=host, source_principal=identity)
        for path in ("/p7", "/p59", "/p78", "/last", "/x")
        for host in ("h3.test", "H3.TEST", "h59.test", "x.test")
        for identity in ("", "spiffe://cluster.local/ns/shop/sa/s7", "spiffe://cluster.local/ns/shop/sa/s0")
    ]
    told = answers(tmp_path, engine, requests)
    assert told["indexed"] == told["linear"]
    assert len({rule for _, rule in told["linear"]}) >= 8
    assert {status for status, _ in told["linear"]} == {200, 403}
