"""What a change of policies opens and closes, and what is proved to change nothing."""

from dataclasses import replace
from typing import Any

import pytest

from authz.analysis.sets.difference import Difference, Direction, difference
from authz.core.errors import Location
from authz.core.introspection import Introspection
from authz.core.resources import PathNormalization
from tests.analysis.sets.compiled import MESH, allow, deny, pair, paths, peer, source, tokens, when

ALLOWED, DENIED, STATUS = Direction.ALLOWED, Direction.DENIED, Direction.STATUS
ISSUER = "{issuer: https://a.test, jwksUri: https://a.test/keys}"
OTHER = "{issuer: https://b.test, jwksUri: https://b.test/keys}"
WEB = "principals: [cluster.local/ns/shop/sa/web]"
Documents = tuple[str, ...]

EQUAL: dict[str, tuple[Documents, Documents]] = {
    "nothing at all": ((), ()),
    "a policy is renamed": ((allow(paths("/a")),), (allow(paths("/a"), name="b"),)),
    "rules are in another order": ((allow(paths("/a"), paths("/b")),), (allow(paths("/b"), paths("/a")),)),
    "one rule becomes two": ((allow(paths("/a", "/b")),), (allow(paths("/a")), allow(paths("/b"), name="b"))),
    "a value that another covers": ((allow(paths("/a*")),), (allow(paths("/a*", "/a/b", "/a/{*}")),)),
    "a path that no request has": ((allow(paths("/a")),), (allow(paths("/a", "/a/../b", "/%61", "/a b")),)),
    "an identity that none is": ((allow(source(WEB)),), (allow(source(WEB), source("principals: ['a b']")),)),
    "DENY of what no ALLOW admits": ((allow(paths("/a")),), (allow(paths("/a")), deny(paths("/b")))),
    "AUDIT and dry run": ((allow(paths("/a")),), (allow(paths("/a")), allow(paths("/b"), name="x", action="AUDIT"))),
    "a service account written as a pattern of principals": (
        (allow(source("serviceAccounts: [web]")),), (allow(source("principals: ['*/ns/shop/sa/web']")),)),
    "a CIDR in halves": (
        (allow(source("ipBlocks: [10.0.0.0/8]")),), (allow(source("ipBlocks: [10.0.0.0/9, 10.128.0.0/9]")),)),
    "host in another case": (
        (allow("{to: [{operation: {hosts: [A.test]}}]}"),), (allow("{to: [{operation: {hosts: [a.TEST]}}]}"),)),
    "a claim without a rule for tokens": ((allow(),), (allow(when("request.auth.claims[a]", "b")),)),
    "a rule of HTTP under DENY and for TCP": (
        (deny(paths("/a", "/b")),), (deny(paths("/a")), deny(paths("/b"), name="e"))),
    "JWT rules in another order": (
        (tokens(ISSUER, OTHER), allow(source("requestPrincipals: ['*']"))),
        (tokens(OTHER, ISSUER), allow(source("requestPrincipals: ['*']")))),
    "STRICT per port and for all": (
        (peer("STRICT"), allow(source(WEB))), (peer("STRICT", "8080: {mode: STRICT}"), allow(source(WEB)))),
    "PERMISSIVE where every rule asks for an identity": (
        (peer("STRICT"), allow(source(WEB))), (peer("PERMISSIVE"), allow(source(WEB)))),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_what_changes_no_answer_is_proved_equal(name: str) -> None:
    old, new = EQUAL[name]
    found = difference(pair(old, new))
    assert found.is_equal, found


CHANGED: dict[str, tuple[Documents, Documents, set[Direction]]] = {
    "a first ALLOW": ((), (allow(paths("/a")),), {DENIED}),
    "a star": ((allow(paths("/a/*")),), (allow(paths("/a*")),), {ALLOWED}),
    "a path for another": ((allow(paths("/a")),), (allow(paths("/b")),), {ALLOWED, DENIED}),
    "a template is narrower than a prefix": ((allow(paths("/a/*")),), (allow(paths("/a/{*}")),), {DENIED}),
    "a DENY": ((allow(paths("/a*")),), (allow(paths("/a*")), deny(paths("*b"))), {DENIED}),
    "a DENY for HTTP is wider on TCP": (
        (allow(source(WEB)), deny(paths("/a", "/b"))), (allow(source(WEB)), deny(paths("/b"))), {ALLOWED}),
    "a negation for several occurrences": (
        (allow(when("request.headers[x-a]", "b")),),
        (allow("{when: [{key: 'request.headers[x-a]', values: [b], notValues: [c]}]}"),), {DENIED}),
    "two elements of one list claim": (
        (tokens(ISSUER), allow("{when: [{key: 'request.auth.claims[g]', values: [a]}, "
                               "{key: 'request.auth.claims[g]', values: [b]}]}")),
        (tokens(ISSUER), allow()), {DENIED}),
    "a header that is present with any value": (
        (allow(when("request.headers[x-a]", "*")),), (allow(when("request.headers[x-a]", "b*", "*a")),), {DENIED}),
    "a neighbour address": (
        (allow(source("ipBlocks: [10.0.0.0/24]")),), (allow(source("ipBlocks: [10.0.0.0/23]")),), {ALLOWED}),
    "the identity of another trust domain": (
        (allow(source(WEB)),), (allow(source("principals: ['*/ns/shop/sa/web']")),), {ALLOWED}),
    "a port that is not STRICT": (
        (peer("STRICT"),), (peer("STRICT", "8080: {mode: PERMISSIVE}"),), {ALLOWED}),
    "mutual TLS that is not read any more": (
        (allow(source(WEB)),), (peer("DISABLE"), allow(source(WEB))), {DENIED}),
    "a token that nobody looks at any more": (
        (tokens(ISSUER),), (), {ALLOWED}),
    "an audience": (
        (tokens("{issuer: https://a.test, jwksUri: https://a.test/keys, audiences: [web]}"),), (tokens(ISSUER),),
        {ALLOWED}),
    "an issuer": (
        (tokens(ISSUER), allow(source("requestPrincipals: ['*']"))),
        (tokens(ISSUER, OTHER), allow(source("requestPrincipals: ['*']"))), {ALLOWED, STATUS}),
    "a provider": ((allow("{}"),), (allow("{}"), allow(paths("/a"), name="c", action="CUSTOM")), {DENIED}),
    "CONNECT has no path": (
        (allow("{to: [{operation: {methods: [CONNECT]}}]}"),),
        (allow("{to: [{operation: {methods: [CONNECT], paths: ['*']}}]}"),), {DENIED}),
    "a claim with dots in its name": (
        (tokens(ISSUER), allow(when("request.auth.claims[https://a.test/roles]", "a"))),
        (tokens(ISSUER), allow(when("request.auth.claims[https://a.test/roles]", "a", "b*"))), {ALLOWED}),
    "a claim within a claim": (
        (tokens(ISSUER), allow(when("request.auth.claims[realm][roles]", "a"))),
        (tokens(ISSUER), allow(when("request.auth.claims[realm][roles]", "b"))), {ALLOWED, DENIED}),
    "metadata": (
        (allow(when("experimental.envoy.filters.a.b[c]", "x")),),
        (allow(when("experimental.envoy.filters.a.b[c]", "x", "y*")),), {ALLOWED}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_an_answer_is_shown_by_a_request_that_the_engine_confirms(name: str) -> None:
    old, new, directions = CHANGED[name]
    found = difference(pair(old, new))
    assert not found.undecided
    assert not found.unconfirmed
    assert {change.direction for change in found.changes} == directions
    for change in found.changes:
        assert (change.old.effect, change.old.status) != (change.new.effect, change.new.status)


def test_a_request_of_each_reason_is_shown_and_each_is_the_natural_one() -> None:
    old = allow("{to: [{operation: {methods: [GET], paths: [/a]}}]}", paths("/c"))
    new = allow("{to: [{operation: {methods: [GET, POST], paths: [/a, /b]}}]}", paths("/c"))
    found = difference(pair((old,), (new,)))
    requests = {(change.witness.request.method, change.witness.request.path) for change in found.changes}
    assert requests == {("POST", "/a"), ("GET", "/b")}
    assert all(change.because for change in found.changes)


def test_the_rules_of_both_sides_are_told() -> None:
    found = difference(pair((allow("{}"),), (allow("{}"), deny(paths("/x"), name="refuse"))))
    (change,) = (one for one in found.changes if one.witness.request.path == "/x")
    assert change.old.rule is not None
    assert change.new.rule is not None
    assert (change.old.rule.short, change.new.rule.short) == ("shop/a/0", "shop/refuse/0")
    assert change.new.rule.location.file == "policies.yaml"


def test_an_answer_that_stays_and_is_given_by_another_rule_is_no_change() -> None:
    found = difference(pair((allow(paths("/a", "/b")),), (allow(paths("/a")), allow(paths("/b"), name="b"))))
    assert found.is_equal
    (moved,) = found.moved
    assert moved.old.rule is not None
    assert moved.new.rule is not None
    assert (moved.old.rule.short, moved.new.rule.short) == ("shop/a/0", "shop/b/0")


def test_a_preflight_needs_no_token_where_others_do() -> None:
    required = tokens("{issuer: https://a.test, jwksUri: https://a.test/keys, presence: REQUIRED}")
    anonymous = when("request.auth.claims[iss]", "*", negated=True).replace(
        "{when", "{to: [{operation: {methods: [OPTIONS], paths: [/a]}}], when"
    )
    found = difference(pair((required, allow()), (required, allow(anonymous))))
    names = {name for change in found.changes for name, _ in change.witness.request.headers}
    assert {change.direction for change in found.changes} == {ALLOWED}
    assert names >= {"origin", "access-control-request-method"}


def test_a_target_that_is_no_path_is_refused_where_http_is_read_only() -> None:
    found = difference(
        pair((deny(paths("/*")),), (peer("DISABLE"), deny(paths("/*"), "{to: [{operation: {ports: ['1']}}]}")))
    )
    assert not found.unconfirmed
    found = difference(pair((), (peer("DISABLE"),)))
    assert "*" in {change.witness.request.path for change in found.changes}


UNDECIDED: dict[str, tuple[Documents, Documents]] = {
    "a claim and one within it": (
        (tokens(ISSUER), allow(when("request.auth.claims[a]", "b"))),
        (tokens(ISSUER), allow(when("request.auth.claims[a][c]", "b")))),
    "a path with its query": ((allow(when("request.headers[:path]", "/a")),), (allow(paths("/a")),)),
    "the header that holds the token": (
        (tokens(ISSUER), allow(when("request.headers[authorization]", "*"))), (tokens(ISSUER), allow())),
    "a claim that is split at blanks on one side": (
        (tokens(ISSUER), allow(when("request.auth.claims[g]", "a"))),
        (tokens(ISSUER.replace("}", ", spaceDelimitedClaims: [g]}")), allow(when("request.auth.claims[g]", "a")))),
    "x-forwarded-for beside the address in it": (
        (allow(source("remoteIpBlocks: [10.0.0.0/8]")),), (allow(when("request.headers[x-forwarded-for]", "10.*")),)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDECIDED)
def test_facts_that_depend_on_each_other_leave_it_undecided(name: str) -> None:
    old, new = UNDECIDED[name]
    found = difference(pair(old, new))
    assert found.undecided
    assert not found.is_equal


def test_paths_are_not_decided_when_their_normalisation_changes() -> None:
    old, new = (
        pair((allow(paths("/a")),), (allow(paths("/a")),)),
        replace(MESH, path_normalization=PathNormalization.NONE),
    )
    other = pair((allow(paths("/a")),), (allow(paths("/a")),), mesh=new)
    found = difference(replace(old, new=other.new))
    assert found.undecided == ["the normalisation of paths changes (PN-1)"]


def other_mesh(*documents: str, **changes: Any) -> Difference:
    """The same policies under other mesh settings on the new side."""
    before, after = pair(documents, documents), pair(documents, documents, mesh=replace(MESH, **changes))
    return difference(replace(before, new=after.new))


CUSTOM = allow(paths("/x"), name="c", action="CUSTOM")
EXT = MESH.extension_providers[0]


@pytest.mark.parametrize(
    ("documents", "changes", "found"),
    [
        ((), {"trust_domain": "td1"}, set()),
        ((allow(source("namespaces: [shop]")),), {"trust_domain": "td1"}, set()),
        ((allow(source(WEB)),), {"trust_domain": "td1"}, {ALLOWED, DENIED}),
        ((allow(source(WEB)),), {"trust_domain": "td1", "trust_domain_aliases": ("cluster.local",)}, {ALLOWED}),
        ((allow(source(WEB)),), {"trust_domain_aliases": ("td1",)}, {ALLOWED}),
        ((allow(source("principals: ['*/sa/web']")),), {"trust_domain_aliases": ("td1",)}, set()),
        ((deny(source(WEB)),), {"trust_domain_aliases": ("td1",)}, {DENIED}),
        ((allow(), deny(paths("/a"))), {"num_trusted_proxies": 2}, set()),
        ((allow(source(WEB)),), {"path_normalization": PathNormalization.MERGE_SLASHES}, set()),
        ((CUSTOM,), {"extension_providers": (replace(EXT, fail_open=True),)}, {ALLOWED}),
        ((CUSTOM,), {"extension_providers": (replace(EXT, status_on_error=503),)}, {STATUS}),
        ((CUSTOM,), {"extension_providers": (replace(EXT, location=Location("x")),)}, set()),
        ((CUSTOM,), {"extension_providers": ()}, {DENIED}),
    ],
)
def test_mesh_settings_are_compared(documents: Documents, changes: dict[str, Any], found: set[Direction]) -> None:
    told = other_mesh(*documents, **changes)
    assert (told.undecided, told.unconfirmed) == ([], [])
    assert {change.direction for change in told.changes} == found


@pytest.mark.parametrize(
    ("documents", "changes", "reason"),
    [
        ((allow(source(WEB)),), {"path_normalization": PathNormalization.NONE}, "the normalisation of paths changes"),
        ((allow(paths("/a")),), {"path_normalization": PathNormalization.MERGE_SLASHES}, "the normalisation of paths"),
        (
            (CUSTOM,),
            {"extension_providers": (replace(EXT, service="other.test"),)},
            "the provider `ext` is asked in another way",
        ),
    ],
)
def test_mesh_settings_that_are_not_modelled_are_not_decided(
    documents: Documents, changes: dict[str, Any], reason: str
) -> None:
    told = other_mesh(*documents, **changes)
    assert len(told.undecided) == 1
    assert told.undecided[0].startswith(reason)


def test_changed_rules_of_an_issuer_that_is_asked_about_its_tokens_are_not_decided() -> None:
    mesh = replace(MESH, introspections=(Introspection("https://a.test", "https://a.test/introspect", "c", "/s"),))
    same = pair((tokens(ISSUER), allow()), (tokens(ISSUER), allow(paths("/a"))), mesh=mesh)
    assert not difference(same).undecided, "every token is taken or refused alike"
    other = ISSUER.replace("}", ", audiences: [shop]}")
    (reason,) = difference(pair((tokens(ISSUER), allow()), (tokens(other), allow()), mesh=mesh)).undecided
    assert "https://a.test is asked about opaque tokens" in reason


def test_a_time_limit_leaves_it_undecided() -> None:
    many = tuple(allow(paths(f"/{at}/*", f"*/{at}"), name=f"p{at}") for at in range(40))
    found = difference(pair(many, tuple(text.replace("/*", "/x*") for text in many)), lambda: True)
    assert found.undecided == ["the time limit is reached"]
    assert not found.is_equal


def test_a_gateway_takes_its_own_tls_and_a_sidecar_does_not() -> None:
    documents = ((peer("STRICT"),), (peer("PERMISSIVE"),))
    assert difference(pair(*documents, gateway=True)).is_equal
    assert {change.direction for change in difference(pair(*documents)).changes} == {ALLOWED}


def test_only_the_ports_of_the_workload_are_asked_about() -> None:
    rules = [f"{{to: [{{operation: {{ports: ['{port}']}}}}]}}" for port in (80, 81)]
    documents = ((allow(rules[0]),), (allow(*rules),))
    assert difference(pair(*documents, ports=(80, 8080))).is_equal
    assert not difference(pair(*documents)).is_equal


def test_a_provider_that_fails_with_another_status_is_told() -> None:
    custom = allow(paths("/a"), name="c", action="CUSTOM")
    other = replace(MESH, extension_providers=(replace(MESH.extension_providers[0], status_on_error=503),))
    before, after = pair((custom,), (custom,)), pair((custom,), (custom,), mesh=other)
    found = difference(replace(before, new=after.new))
    assert {change.direction for change in found.changes} == {STATUS}
