"""Which faults one rule may have."""

import pytest

from authz.analysis.mutants.rule_mutations import changed_rules, narrower, wider
from authz.core.resources import Condition, Operation, Rule, Source


@pytest.mark.parametrize(
    ("value", "kind", "wide", "narrow"),
    [
        ("/carts", "paths", ["/carts*"], []),
        ("/carts/*", "paths", ["/carts*"], ["/carts/"]),
        ("/carts*", "paths", ["*"], ["/carts"]),
        ("/*", "paths", ["*"], ["/"]),
        ("*", "paths", [], []),
        ("/carts/{*}", "paths", ["/carts/{**}"], []),
        ("/carts/{**}", "paths", [], ["/carts/{*}"]),
        ("/{*}/items", "paths", [], []),
        ("*.example.com", "hosts", ["*example.com"], [".example.com"]),
        ("cluster.local/ns/shop/*", "principals", ["cluster.local/ns/shop*"], ["cluster.local/ns/shop/"]),
        ("GET", "methods", [], []),
        ("8080", "ports", [], []),
        ("10.0.0.0/8", "ipBlocks", ["10.0.0.0/7"], ["10.0.0.0/9"]),
        ("10.1.2.3", "remote.ip", ["10.1.2.2/31"], []),
        ("0.0.0.0/0", "source.ip", [], ["0.0.0.0/1"]),
        ("", "request.headers[x]", [], []),
    ],
)
def test_a_value_is_made_wider_and_narrower(value: str, kind: str, wide: list[str], narrow: list[str]) -> None:
    assert (list(wider(value, kind)), list(narrower(value, kind))) == (wide, narrow)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (Rule(), []),
        (
            Rule(operations=(Operation(methods=("GET",)),)),
            ["to[0] dropped", "to[0].operation: `methods` and `notMethods` exchanged"],
        ),
        (
            Rule(operations=(Operation(methods=("GET", "PUT"), not_paths=("/a",)),)),
            [
                "to[0] dropped",
                "to[0].operation: `methods` and `notMethods` exchanged",
                "to[0].operation.methods dropped",
                "to[0].operation.methods: `GET` dropped",
                "to[0].operation.methods: `PUT` dropped",
                "to[0].operation: `paths` and `notPaths` exchanged",
                "to[0].operation.notPaths dropped",
                "to[0].operation.notPaths: `/a` widened to `/a*`",
            ],
        ),
        (
            Rule(sources=(Source(service_accounts=("shop/web",)), Source(remote_ip_blocks=("10.0.0.1",)))),
            [
                "from dropped",
                "from[0] dropped",
                "from[0].source: `serviceAccounts` and `notServiceAccounts` exchanged",
                "from[0].source.serviceAccounts dropped",
                "from[1] dropped",
                "from[1].source: `remoteIpBlocks` and `notRemoteIpBlocks` exchanged",
                "from[1].source.remoteIpBlocks dropped",
                "from[1].source.remoteIpBlocks: `10.0.0.1` widened to `10.0.0.0/31`",
            ],
        ),
        (
            Rule(conditions=(Condition("request.headers[x]", values=("a",)),)),
            [
                "when[0] (`request.headers[x]`) dropped",
                "when[0]: `values` and `notValues` exchanged",
                "when[0].values: `a` widened to `a*`",
            ],
        ),
    ],
)
def test_every_entry_field_and_value_is_changed_once(rule: Rule, changes: list[str]) -> None:
    found = list(changed_rules(rule))
    assert [text for text, _, _ in found] == changes
    assert all(changed != rule for _, _, changed in found)
    assert len({repr(changed) for _, _, changed in found}) == len(found)
