"""Invariants that are proved, refuted by a request, or not decided."""

import pytest

from authz.analysis.invariants.invariant import Invariant
from authz.analysis.invariants.invariant_reader import read_invariants
from authz.analysis.invariants.proof import Proof, prove
from tests.analysis.sets.compiled import allow, deny, pair, paths, peer, source, tokens, when

WEB = "principals: [cluster.local/ns/shop/sa/web]"
TOKENS = tokens("{issuer: https://a.test, jwksUri: https://a.test/keys}")
CUSTOM = allow(paths("/a"), name="c", action="CUSTOM")


def invariant(text: str) -> Invariant:
    read = read_invariants("i.yaml", f"format: 1\ninvariants:\n- {{id: i, {text}}}\n".encode())
    assert read.problems == ()
    return read.invariants[0]


def proof(text: str, *documents: str) -> Proof:
    return prove(invariant(text), pair(documents, documents))


PROVED: dict[str, tuple[str, tuple[str, ...]]] = {
    "nobody else": ('never: {to: "*", unless: {sourcePrincipal: cluster.local/ns/shop/sa/web}}', (allow(source(WEB)),)),
    "spiffe:// may stand before it": (
        'never: {to: "*", unless: {sourcePrincipal: spiffe://cluster.local/ns/shop/sa/web}}', (allow(source(WEB)),)),
    "no path": ('never: {to: "*", when: {path: /x/*, protocol: http}}', (allow(), deny(paths("/x*")))),
    "STRICT": ('never: {to: "*", when: {tls: [plaintext, simple]}}', (peer("STRICT"),)),
    "a role": (
        'onlyIf: {to: "*", when: {path: /admin}, has: {claims: {role: admin}}}',
        (TOKENS, allow("{to: [{operation: {paths: [/admin]}}], "
                       "when: [{key: 'request.auth.claims[role]', values: [admin]}]}"))),
    "one of two sets": (
        'never: {to: "*", unless: [{sourcePrincipal: "*/sa/web"}, {path: /health}]}',
        (allow(source(WEB), paths("/health")),)),
    "always, whoever asks": ('always: {to: "*", when: {path: /health}}', (allow(paths("/health")),)),
    "always, if the provider allows": ('always: {to: "*", when: {path: /a}}', (CUSTOM,)),
    "nothing is allowed": ('never: {to: "*"}', (allow(),)),
    "a claim where no token is accepted": ('never: {to: "*", when: {claims: {a: b}}}', ()),
    "an absent header": (
        'never: {to: "*", when: {headers: {x-a: null}}}', (allow(when("request.headers[x-a]", "*")),)),
    "not a method": ('never: {to: "*", when: {notMethod: GET, protocol: http}}',
                     (allow("{to: [{operation: {methods: [GET]}}]}"),)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROVED)
def test_what_holds_for_all_requests_is_proved(name: str) -> None:
    text, documents = PROVED[name]
    assert proof(text, *documents).is_proved


REFUTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "everything is allowed": ('never: {to: "*"}', ()),
    "a neighbour": ('never: {to: "*", unless: {path: /a}}', (allow(paths("/a*")),)),
    "TCP has no path": ('never: {to: "*", unless: {path: "*"}}', (allow(source(WEB)),)),
    "PERMISSIVE": ('never: {to: "*", when: {tls: plaintext}}', (peer("STRICT", "8080: {mode: PERMISSIVE}"),)),
    "a provider may refuse": ('never: {to: "*", when: {path: /a}}', (CUSTOM,)),
    "always, but for a DENY": ('always: {to: "*", when: {path: /a*, protocol: http}}', (deny(paths("/ab")),)),
    "always, but STRICT": ('always: {to: "*", when: {path: /a}}', (peer("STRICT"),)),
    "a token that is refused": ('always: {to: "*", when: {protocol: http}}', (TOKENS,)),
    "another role": (
        'onlyIf: {to: "*", has: {claims: {role: admin}}}',
        (TOKENS, allow(when("request.auth.claims[role]", "admin", "reader")))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUTED)
def test_what_some_request_breaks_is_refuted_by_it(name: str) -> None:
    text, documents = REFUTED[name]
    found = proof(text, *documents)
    assert found.witness is not None
    assert found.decision is not None
    assert found.decision.is_allowed is not text.startswith("always")


def test_a_refutation_is_natural() -> None:
    found = proof('never: {to: "*", unless: {path: /a}}', allow(paths("/a", "/b")))
    assert found.witness is not None
    assert found.witness.request.path == "/b"
    assert found.witness.request.method == "GET"


def test_what_is_not_modelled_is_not_decided() -> None:
    found = proof('never: {to: "*"}', allow(when("request.headers[:path]", "/a")))
    assert found.undecided == ("policies ask for the header `:path`, which depends on other facts",)
    assert not found.is_proved


def test_rules_that_have_nothing_to_do_with_it_are_left_out() -> None:
    many = tuple(allow(paths(f"/x{at}/*", f"*/y{at}", f"/{{*}}/{at}"), name=f"p{at}") for at in range(60))
    assert not proof('never: {to: "*", when: {path: /a/b}, unless: {path: "/{*}/b"}}', *many).undecided


def test_a_time_limit_leaves_it_undecided() -> None:
    many = tuple(allow(paths(f"/a/{at}*", f"*/{at}"), name=f"p{at}") for at in range(40))
    documents = pair(many, many)
    found = prove(invariant('never: {to: "*", when: {path: "*"}, unless: {path: "*x"}}'), documents, lambda: True)
    assert found.undecided == ("the time limit is reached",)
