"""Who can do something: what the words of grants say is what the engine lets through."""

from collections.abc import Mapping
from functools import cache
from random import Random

import pytest

from authz.analysis.access.grant import Excepted, Granted, Phrase, RuleGrant, Way
from authz.analysis.access.granted import AccessQuestions
from authz.analysis.invariants.invariant import AskedValues, RequestSet
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.witness import Witness, attributes_of, judge
from authz.core.attributes import AttributeContext
from authz.core.catalog import HOSTS, METHODS, PATHS, CompileContext, condition_attribute
from authz.core.decision import RuleReference
from authz.core.resources import Action, MeshConfig
from authz.core.rules import CompiledRule
from tests.analysis.sets.compiled import allow, deny, pair, paths, peer, source, tokens, when
from tests.analysis.sets.exhaustive import combinations
from tests.analysis.sets.random_pairs import random_pair

EVERYTHING = RequestSet()
OPERATIONS = {attribute.key: attribute for attribute in (METHODS, PATHS, HOSTS)}
WEB = "cluster.local/ns/shop/sa/web"
API = "cluster.local/ns/shop/sa/api"
TOKENS = tokens("{issuer: https://a.test, jwksUri: https://a.test/keys}")


def access(*documents: str, question: RequestSet = EVERYTHING, ports: tuple[int, ...] = ()) -> Granted:
    both = pair(documents, documents, ports=ports)
    return AccessQuestions(both, [question]).access(question)


def asked(key: str, *values: str) -> RequestSet:
    """Requests that have one of the values."""
    return RequestSet((AskedValues(OPERATIONS.get(key) or condition_attribute(key), values),))


def said(grant: RuleGrant) -> tuple[str, str, str, str]:
    """A grant in words: sources, operations, conditions, exceptions."""
    alternatives = ["; ".join(", ".join(map(str, one)) for one in some) for some in (grant.sources, grant.operations)]
    exceptions = "; ".join(", ".join(map(str, one.phrase)) for one in grant.exceptions)
    return alternatives[0], alternatives[1], ", ".join(map(str, grant.conditions)), exceptions


def ways(grant: RuleGrant) -> list[str]:
    return list(map(str, grant.ways))


# --- words -----------------------------------------------------------------------------------------------------------

WORDS: dict[str, tuple[tuple[str, ...], list[tuple[str, str, str, str]]]] = {
    "a source": ((allow(source(f"principals: [{WEB}]")),), [(f"principal {WEB}", "", "", "")]),
    "every source with every operation": (
        (allow(f"{{from: [{{source: {{principals: [{WEB}]}}}}, {{source: {{namespaces: [ops]}}}}], "
               "to: [{operation: {methods: [GET]}}, {operation: {paths: [/a]}}]}"),),
        [(f"principal {WEB}; namespace ops", "method GET; path /a", "", "")]),
    "a value that DENY takes away is not said": (
        (allow(source(f"principals: [{WEB}, {API}]")), deny(source(f"principals: [{API}]"))),
        [(f"principal {WEB}", "", "", "")]),
    "what DENY takes away in part": (
        (allow(source(f"principals: [{WEB}]")), deny(paths("/admin*"))),
        [(f"principal {WEB}", "", "", "path /admin*")]),
    "a path that DENY takes away is not said": (
        (allow(paths("/a", "/b")), deny(paths("/b"))), [("", "path /a", "", "")]),
    "of a DENY that holds for the whole grant in part, the rest": (
        (allow("{from: [{source: {namespaces: [shop]}}], to: [{operation: {paths: [/a*]}}]}"),
         deny("{from: [{source: {namespaces: [shop]}}], to: [{operation: {paths: [/a/b]}}]}")),
        [("namespace shop", "path /a*", "", "path /a/b")]),
    "a condition": (
        (TOKENS, allow(when("request.auth.claims[role]", "admin"))), [("", "", "claim role admin", "")]),
    "an excluded value": (
        (allow("{to: [{operation: {paths: [/a*], notPaths: [/a/b, /c]}}]}"),),
        [("", "path /a* but not /a/b", "", "")]),
    "absent": ((allow(when("request.headers[x-a]", "*", negated=True)),), [("", "", "no header x-a", "")]),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_grants_are_said_in_the_words_of_the_rules(name: str) -> None:
    documents, words = WORDS[name]
    found = access(*documents)
    assert [said(grant) for grant in found.grants if grant.ways[0].is_http] == words
    assert found.answer == "with conditions"
    for grant in found.grants:
        assert grant.decision.is_allowed
        assert grant.rule is not None
        assert grant.rule.location.file == "policies.yaml"


def test_only_the_values_that_a_question_meets_are_said() -> None:
    sources = f"from: [{{source: {{principals: [{WEB}, {API}]}}}}]"
    policies = allow(f"{{{sources}, to: [{{operation: {{paths: [/a, /b*]}}}}]}}")
    (grant,) = access(policies, question=asked("paths", "/b/c")).grants
    assert said(grant) == (f"principal {WEB} or {API}", "path /b*", "", "")
    (grant,) = access(policies, question=asked("source.principal", API)).grants
    assert said(grant)[0] == f"principal {API}"


def test_nobody_can_where_it_is_proved() -> None:
    policies = (allow(paths("/a")), deny(paths("/a*")))
    assert access(*policies) == Granted()
    assert access(*policies).answer == "no"
    assert access(allow(paths("/a")), question=asked("paths", "/b")).answer == "no"


def test_everybody_can_where_no_policy_applies() -> None:
    found = access()
    assert found.answer == "yes"
    (grant,) = found.grants
    assert (grant.rule, said(grant)) == (None, ("", "", "", ""))
    assert ways(grant) == [
        *("HTTP over mutual TLS", "HTTP without identity", "TCP over mutual TLS", "TCP without identity"),
    ]


def test_one_identity_that_may_do_everything_has_the_answer_yes() -> None:
    policies = allow(source(f"principals: [{WEB}]"))
    assert access(policies, question=asked("source.principal", WEB)).answer == "yes"
    assert access(policies, deny(paths("/x")), question=asked("source.principal", WEB)).answer == "with conditions"


def test_a_bad_token_makes_no_condition_and_a_required_one_does() -> None:
    question = asked("source.principal", WEB)
    assert access(TOKENS, question=question).answer == "yes"
    required = tokens("{issuer: https://a.test, jwksUri: https://a.test/keys, presence: REQUIRED}")
    found = access(required, question=question)
    assert found.answer == "with conditions"
    assert "HTTP over mutual TLS with a token" in [way for grant in found.grants for way in ways(grant)]


def test_ports_of_other_modes_are_told_apart() -> None:
    (grant,) = access(peer("STRICT", "8080: {mode: PERMISSIVE}")).grants
    assert ways(grant)[1] == "HTTP without identity to port 8080"
    (grant,) = access(peer("PERMISSIVE", "8080: {mode: STRICT}")).grants
    assert ways(grant)[1] == "HTTP without identity to ports other than 8080"


def test_a_provider_is_an_exception() -> None:
    found = access(allow(), allow(paths("/a"), action="CUSTOM", name="c"), question=asked("paths", "/a*"))
    assert found.answer == "no"  # ALLOW without rules lets nobody through
    found = access(allow(paths("/a"), action="CUSTOM", name="c"), question=asked("paths", "/a*"))
    ((exception,),) = (grant.exceptions for grant in found.grants)
    assert (exception.action, exception.provider, said(found.grants[0])[3]) == (Action.CUSTOM, "ext", "path /a")
    assert found.grants[0].witness.answers["ext"] == "allow"


def test_what_is_not_modelled_is_not_decided() -> None:
    found = access(allow(when("request.headers[:path]", "/a")))
    assert found.answer == "not decided"
    assert found.undecided == ("policies ask for the header `:path`, which depends on other facts",)


def test_out_of_time_is_not_decided() -> None:
    both = pair((allow(paths(*(f"/a{n}" for n in range(400)))),), ())
    both = PolicyPair(both.old, both.old)
    assert AccessQuestions(both, [EVERYTHING], lambda: True).access(EVERYTHING).undecided == (
        "the time limit is reached",
    )


def test_a_caller_is_one_identity_and_no_alias_of_it() -> None:
    mesh = MeshConfig(trust_domain="new", trust_domain_aliases=("old",))
    documents = (allow(source("principals: [old/ns/shop/sa/web]")), deny(source('trustDomains: ["o*"]')))
    both = pair(documents, documents, mesh=mesh)
    questions = [asked("source.principal", f"{domain}/ns/shop/sa/web") for domain in ("old", "new")]
    about = AccessQuestions(both, questions)
    assert [about.access(question).answer for question in questions] == ["no", "yes"]
    (grant,) = about.access(questions[1]).grants
    assert said(grant)[0] == "principal new/ns/shop/sa/web"


# --- words against the engine ----------------------------------------------------------------------------------------


def _holds(words: Phrase, seen: AttributeContext, context: CompileContext) -> bool:
    one = tuple(
        AskedValues(OPERATIONS.get(key) or condition_attribute(key), values, others) for key, values, others in words
    )
    return all(asked.compiled(context).holds(seen) for asked in one)


def _is_said(
    grant: RuleGrant, arrived: Way, seen: AttributeContext, answers: Mapping[str, str], domains: tuple[str, ...]
) -> bool:
    """Whether a grant says that a request is let through."""
    if not any(_fits(way, arrived) for way in grant.ways):
        return False

    def some(alternatives: tuple[Phrase, ...], rule: RuleReference | None) -> bool:
        context = CompileContext(rule.namespace if rule is not None else "shop", domains)
        return any(_holds(one, seen, context) for one in alternatives)

    def excepts(one: Excepted) -> bool:
        passes = ("allow", "error") if one.fails_open else ("allow",)
        refuses = not one.provider or answers[one.provider] not in passes
        return refuses and some((one.phrase,), one.rule)

    asked = (grant.sources, grant.operations, (grant.conditions,))
    return all(some(alternatives, grant.rule) for alternatives in asked) and not any(map(excepts, grant.exceptions))


def _fits(way: Way, arrived: Way) -> bool:
    (port,) = arrived.ports
    return (
        (way.is_http, way.has_identity) == (arrived.is_http, arrived.has_identity)
        and way.has_token <= arrived.has_token
        and way.has_path >= arrived.has_path
        and (not way.ports or port in way.ports)
        and port not in way.other_ports
    )


def _arrived(seen: AttributeContext, witness: Witness) -> Way:
    has_path = seen.http is None or bool(seen.http.path)
    has_token = seen.http is not None and has_path and witness.token.new == 200
    ports = (str(seen.destination.port),)
    return Way(seen.http is not None, bool(seen.source.identities), has_token, ports, has_path=has_path)


def _requests(both: PolicyPair, question: RequestSet, seed: int) -> list[Witness]:
    context = CompileContext("shop", ("cluster.local",))
    conditions = tuple(one.compiled(context) for one in question.asked)
    rule = CompiledRule(RuleReference("", "", 0, ""), conditions=conditions)
    model = Model(both, about=(rule,), extra=conditions)
    return [] if model.undecided else list(combinations(model, Random(seed), 8))


@cache
def questions_about(seed: int) -> tuple[PolicyPair, AccessQuestions] | None:
    """A random set of policies, and all questions of ``ASKED`` about it; None where it is refused."""
    made = random_pair(seed)
    if made is None:
        return None
    both = PolicyPair(made.pair.new, made.pair.new, made.pair.is_gateway, made.pair.ports)
    return both, AccessQuestions(both, list(ASKED.values()))


def compare(seed: int, question: RequestSet) -> tuple[str, list[str]]:
    """One random set of policies: the answer, and the requests of which the words say something else."""
    about = questions_about(seed)
    if about is None:
        return "refused", []
    both, questions = about
    found = questions.access(question)
    wrong = [] if found.unconfirmed is None else [f"seed {seed}: not confirmed"]
    for witness in _requests(both, question, seed) if found.answer != "not decided" else ():
        if witness.token.new not in (0, 200):
            continue
        decision = judge(both, witness, of_old=False)
        seen = attributes_of(both, witness, both.new, witness.token.new)
        protocol, tls = witness.request.protocol, witness.request.tls
        if not question.holds(seen, protocol, tls, CompileContext("shop", ("cluster.local",))):
            continue
        domains = both.new.mesh.trust_domains
        if found.answer == "yes" and not decision.is_allowed:
            wrong.append(f"seed {seed}: not everything: {witness}")
        arrived = _arrived(seen, witness)
        if not arrived.has_path and not decision.is_allowed:
            continue  # of CONNECT without a path it is only told where a grant goes beyond requests with one
        said_by = [one for one in found.grants if _is_said(one, arrived, seen, witness.answers, domains)]
        if bool(said_by) != decision.is_allowed:
            words = [(said(one), ways(one)) for one in said_by or found.grants]
            wrong.append(f"seed {seed}: {decision.reason}: {witness}: {words}")
    return found.answer, wrong


ASKED = {
    "everything": EVERYTHING,
    "one caller": asked("source.principal", "cluster.local/ns/shop/sa/web"),
    "nobody known": RequestSet((AskedValues(condition_attribute("source.principal"), not_values=("*",)),)),
    "a path and a method": RequestSet((AskedValues(PATHS, ("/a*",)), AskedValues(METHODS, ("GET",)))),
}


@pytest.mark.parametrize("seed", range(0, 40, 10))
@pytest.mark.parametrize("question", ASKED)
def test_the_words_of_grants_are_what_the_engine_lets_through(question: str, seed: int) -> None:
    ended = [compare(number, ASKED[question]) for number in range(seed, seed + 10)]
    assert [line for _, wrong in ended for line in wrong][:1] == []
    assert {answer for answer, _ in ended} & {"with conditions", "yes"}
