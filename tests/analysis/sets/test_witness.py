"""A witness as the command that decides it: with all that ``authz check`` needs, and nothing that it would refuse."""

import json
import shlex
from dataclasses import replace

import pytest

from authz.analysis.sets.difference import difference
from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.witness import command_of
from tests.analysis.sets.compiled import MESH, allow, pair, paths, source, tokens, when

TOKENS = tokens("{issuer: https://a.test, jwksUri: https://a.test/keys, audiences: [web]}")


def options(made: PolicyPair) -> list[str]:
    """The options of the command of the first change."""
    found = difference(made)
    return shlex.split(command_of(made, found.changes[0].witness, ["new.yaml"]).replace("\\\n", ""))


def after(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_an_identity_of_another_form_keeps_its_scheme() -> None:
    other = source("principals: [partner.example/pay]")
    assert after(options(pair((allow(),), (allow(other),))), "--source-principal") == "spiffe://partner.example/pay"
    istio = source("principals: [cluster.local/ns/shop/sa/web]")
    assert after(options(pair((allow(),), (allow(istio),))), "--source-principal") == "cluster.local/ns/shop/sa/web"


def test_claims_are_those_that_the_token_must_have() -> None:
    new = when("request.auth.claims[realm][roles]", "admin")
    words = options(pair((TOKENS, allow()), (TOKENS, allow(new))))
    claims = json.loads(after(words, "--claims"))
    assert claims == {"iss": "https://a.test", "aud": "web", "realm": {"roles": "admin"}}


def test_a_client_behind_trusted_proxies_is_found_by_the_gateway() -> None:
    mesh = replace(MESH, num_trusted_proxies=1)
    new = source("remoteIpBlocks: [10.0.0.1]")
    made = pair((allow(),), (allow(new, paths("/x")),), mesh=mesh, gateway=True)
    change = next(one for one in difference(made).changes if one.witness.request.headers)
    words = shlex.split(command_of(made, change.witness, ["new.yaml"]).replace("\\\n", ""))
    assert after(words, "--header") == f"x-forwarded-for: 10.0.0.1, {after(words, '--source-ip')}"


def test_tls_without_a_certificate_is_said_where_nothing_else_says_it() -> None:
    made = pair((), (allow(when("connection.sni", "a.test")),))
    commands = [command_of(made, change.witness, ["new.yaml"]) for change in difference(made).changes]
    assert commands
    assert all(("--tls simple" in text) is ("--sni" in text and "--source-principal" not in text) for text in commands)


def test_the_answer_of_a_provider_is_said() -> None:
    custom = allow(paths("/a"), name="c", action="CUSTOM")
    words = options(pair((allow("{}"),), (allow("{}"), custom)))
    assert after(words, "--provider") in ("ext=deny", "ext=error")


@pytest.mark.parametrize(
    ("asked", "caller"),
    [
        ("namespaces: [edge]", "cluster.local/ns/edge/sa/other"),
        ("namespaces: [edge], notPrincipals: [cluster.local/ns/edge/sa/gate]", "cluster.local/ns/edge/sa/other"),
        ("namespaces: ['team-*']", "cluster.local/ns/team-x/sa/other"),
        ("serviceAccounts: [edge/gate]", "cluster.local/ns/edge/sa/gate"),
    ],
)
def test_a_caller_is_one_of_this_mesh_where_its_trust_domain_does_not_matter(asked: str, caller: str) -> None:
    assert after(options(pair((allow(),), (allow(source(asked)),))), "--source-principal") == caller


def test_a_header_that_must_only_be_there_has_a_value() -> None:
    words = options(pair((allow(),), (allow(when("request.headers[x-team]", "*")),)))
    assert after(words, "--header") == "x-team: x"
