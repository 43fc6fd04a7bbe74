"""Requests for rules: what meets a value, what lies just beside, and what nobody can send."""

import pytest

from authz.analysis.offline.request import OfflineWorkload
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify import edges
from authz.analysis.verify.requests import Sender, Tried, requests_of
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig

WORKLOAD = Workload("shop", frozenset(), "shop")


def tried(rule: str, more: str = "", action: str = "ALLOW") -> Tried:
    """What is tried for the first rule of one policy."""
    policy = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop}}
spec: {{action: {action}, rules: [{rule}]}}
---
{more}
"""
    engine = compile_texts([PolicyText("p.yaml", policy)], MeshConfig())
    assert isinstance(engine, Engine), engine
    return next(requests_of(Sender(engine.for_workload(WORKLOAD), 8080, gateway=False)))


@pytest.mark.parametrize(
    ("written", "met", "beside"),
    [
        ("/a/b", "/a/b", "/a/bx"),
        ("/a/*", "/a/x", "/a"),
        ("*/b", "/b", "/bx"),
        ("/a/{*}/c", "/a/x/c", "/a//c"),
        ("/a/{**}", "/a/x/y", "/A/X"),
    ],
)
def test_paths_are_met_and_missed_by_a_hair(written: str, met: str, beside: str) -> None:
    assert {met, beside} <= set(edges.paths(written))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.0/24", {"192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"}),
        ("192.0.2.7", {"192.0.2.7", "192.0.2.6", "192.0.2.8"}),
        ("2001:db8::/32", {"2001:db8::", "2001:db9::"}),
    ],
)
def test_blocks_are_tried_at_both_ends_and_outside(written: str, expected: set[str]) -> None:
    assert expected <= set(edges.addresses(written))


@pytest.mark.parametrize(
    "rule",
    [
        "{to: [{operation: {paths: [/a], methods: [PUT], hosts: ['*.shop'], ports: ['9000']}}]}",
        "{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}",
        "{from: [{source: {namespaces: ['pr*'], notPrincipals: [cluster.local/ns/pr/sa/someone]}}]}",
        "{from: [{source: {serviceAccounts: [prod/api]}}]}",
        "{from: [{source: {remoteIpBlocks: [192.0.2.0/24], notRemoteIpBlocks: [192.0.2.1]}}]}",
        "{from: [{source: {ipBlocks: [127.9.0.0/16]}}]}",
        "{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}",
        "{when: [{key: 'request.headers[x-a]', values: [v], notValues: [w]}]}",
        "{when: [{key: 'connection.sni', values: [www.example.com]}]}",
        "{when: [{key: 'destination.ip', values: [10.9.0.0/16]}]}",
    ],
)
def test_every_kind_of_value_has_a_request_that_fires_the_rule(rule: str) -> None:
    found = tried(rule)
    assert found.unsendable == []
    (witness,) = found.witnesses
    attributes = witness.attributes(OfflineWorkload(WORKLOAD, 8080), MeshConfig(), None, gateway=False)
    assert found.rule.fires(attributes)
    assert found.beside


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}", "from[0].source.ipBlocks: no client of this machine"),
        ("{from: [{source: {requestPrincipals: ['*']}}]}", "no RequestAuthentication accepts a token here"),
        ("{when: [{key: 'experimental.envoy.filters.f[k]', values: [v]}]}", "when[0]: no client chooses"),
        ("{to: [{operation: {paths: [/a], notPaths: ['*']}}]}", "is one of /a and none of *"),
    ],
)
def test_what_cannot_be_sent_is_said(rule: str, why: str) -> None:
    found = tried(rule)
    assert found.witnesses == []
    assert why in found.unsendable[0]


def test_a_strict_port_gets_no_request_without_a_certificate() -> None:
    strict = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""
    found = tried("{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}", strict)
    assert all(one.identity for one in (*found.witnesses, *found.beside))
    anonymous = tried("{from: [{source: {notPrincipals: ['*']}}]}", strict)
    assert "PeerAuthentication lets in" in anonymous.unsendable[0]
