import pytest

from authz.core.attributes import HttpRequest
from authz.core.errors import LoadError, Location, Problem, Severity, sort_problems
from authz.core.resources import JwtRule, MeshConfig
from authz.core.spiffe import SpiffeId, TrustDomain


@pytest.mark.parametrize("name", ["", "Example.org", "a b", "example.org\n", "a" * 256, "ex/ample"])
def test_bad_trust_domains_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a trust domain"):
        TrustDomain(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://td/a", "begin with `spiffe://`"),
        ("td/ns/a", "begin with `spiffe://`"),
        ("spiffe://td//a", "empty segment"),
        ("spiffe://td/a/", "empty segment"),
        ("spiffe://td/../a", "dot segment"),
        ("spiffe://td/a%20b", "character outside"),
        ("spiffe://td/a\n", "character outside"),
        ("spiffe://td:80/a", "is not a trust domain"),
        ("spiffe://td/" + "a" * 2048, "at most 2048 bytes"),
        ("spiffe://", "is not a trust domain"),
    ],
)
def test_bad_spiffe_ids_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpiffeId.parse(text)


def test_an_istio_id_has_namespace_and_account() -> None:
    found = SpiffeId.for_workload("td", "a", "b")

    assert str(found) == "spiffe://td/ns/a/sa/b"
    assert (found.namespace, found.service_account) == ("a", "b")
    assert SpiffeId.parse("spiffe://td/other").namespace is None
    assert SpiffeId.parse("spiffe://td/other").service_account is None
    with pytest.raises(ValueError, match="begins with a slash"):
        SpiffeId(TrustDomain("td"), "other")


def test_a_problem_says_where_what_and_what_to_do() -> None:
    problem = Problem(
        Severity.ERROR, "VA-24", "`10.0.0.0/33` is not a CIDR block", Location("p.yaml", 14, 11), 2,
        "AuthorizationPolicy a/b", "spec.rules[0]", "a prefix length is 0 to 32",
    )  # fmt: skip

    assert str(problem) == (
        "p.yaml:14:11: document 2, AuthorizationPolicy a/b: error: spec.rules[0]: "
        "`10.0.0.0/33` is not a CIDR block [VA-24]\n  help: a prefix length is 0 to 32"
    )
    assert str(Problem(Severity.WARNING, "X", "odd", Location("p.yaml"))) == "p.yaml: warning: odd [X]"


def test_problems_are_sorted_by_place_and_counted() -> None:
    late = Problem(Severity.ERROR, "A", "late", Location("b", 1))
    early = Problem(Severity.ERROR, "B", "early", Location("a", 9))

    assert sort_problems([late, early]) == (early, late)
    assert str(LoadError([late, early])) == "2 errors in the given documents"
    assert str(LoadError([late])) == "1 error in the given documents"


@pytest.mark.parametrize(("path", "portion"), [("/a?x#y", "/a"), ("/a#y?x", "/a"), ("/a", "/a"), ("", "")])
def test_the_path_portion_ends_at_query_or_fragment(path: str, portion: str) -> None:
    """AP-46."""
    assert HttpRequest("GET", "h", path).url_path == portion


def test_keys_come_from_inline_uri_or_discovery_in_that_order() -> None:
    """RA-38."""
    assert JwtRule("i", jwks="{}", jwks_uri="u", name="n").keys_from == "inline:n"
    assert JwtRule("i", jwks_uri="u").keys_from == "uri:u"
    assert JwtRule("i").keys_from == "oidc:i"


def test_trust_domains_hold_no_duplicates() -> None:
    assert MeshConfig(trust_domain="a", trust_domain_aliases=("b", "a")).trust_domains == ("a", "b")
