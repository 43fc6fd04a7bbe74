import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import identities

TEXT = st.text(alphabet="ab*/.\nA", max_size=6)


@pytest.mark.parametrize(
    ("pattern", "identity", "matches"),
    [
        ("td/ns/a/sa/b", "spiffe://td/ns/a/sa/b", True),
        ("td/ns/a/sa/b", "td/ns/a/sa/b", False),
        ("spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b", False),
        ("td/ns/*", "spiffe://td/ns/a/sa/b", True),
        ("*/sa/b", "spiffe://td/ns/a/sa/b", True),
        ("*/sa/b", "urn:x/sa/b", False),
        ("*", "CN=legacy", True),
        ("*", "", False),
        ("t.d/ns/a/sa/*b", "spiffe://tXd/ns/a/sa/xb", False),
        ("*.b", "spiffe://td/Xb", False),
    ],
)
def test_principals(pattern: str, identity: str, matches: bool) -> None:
    """AP-25, AP-26, SE-22."""
    assert identities.principal_strings([pattern]).matches((identity,)) is matches


@pytest.mark.parametrize(
    ("pattern", "identity", "matches"),
    [
        ("prod", "spiffe://td/ns/prod/sa/x", True),
        ("prod", "spiffe://td/ns/prod2/sa/x", False),
        ("prod-*", "spiffe://td/ns/prod-eu/sa/x", True),
        ("*-prod", "spiffe://td/ns/eu-prod/sa/x", True),
        ("a*b", "spiffe://td/ns/ax/sa/yb/z", True),  # a star crosses segments, AP-32
        ("te.m", "spiffe://td/ns/team/sa/x", False),
        ("*", "spiffe://td/x", False),
        ("prod", "other:/x/ns/prod/y", True),  # not anchored, AP-31
    ],
)
def test_namespaces(pattern: str, identity: str, matches: bool) -> None:
    """AP-30 to AP-32."""
    assert identities.namespace_strings([pattern]).matches((identity,)) is matches


@pytest.mark.parametrize(
    ("value", "identity", "matches"),
    [
        ("a/b", "spiffe://td/ns/a/sa/b", True),
        ("b", "spiffe://td/ns/home/sa/b", True),
        ("b", "spiffe://td/ns/a/sa/b", False),
        ("a/b", "spiffe://td/ns/a/x/sa/b/y", True),
        ("a/b", "spiffe://td/ns/a/sa/b-x", False),
        ("a/b", "spiffe:///ns/a/sa/b", False),
        ("a/b", "spiffe://td/ns/a/sa/b/", False),
    ],
)
def test_service_accounts(value: str, identity: str, matches: bool) -> None:
    """AP-33."""
    assert identities.service_account_strings([value], "home").matches((identity,)) is matches


@pytest.mark.parametrize(
    ("value", "identity", "matches"),
    [
        ("*", "spiffe://x/y", True),
        ("*", "CN=legacy", False),
        ("td", "spiffe://td/ns/a/sa/b", True),
        ("td", "spiffe://td2/ns/a/sa/b", False),
        ("td", "spiffe://td", False),
        ("old", "spiffe://new/ns/a/sa/b", True),  # members of the mesh stand for one another, AP-36
        ("*.corp", "spiffe://eu.corp/x", True),
        ("*.corp", "spiffe://eu/x.corp/y", False),
        ("eu*", "spiffe://eu.corp/x", True),
    ],
)
def test_trust_domains(value: str, identity: str, matches: bool) -> None:
    """AP-35 to AP-37."""
    assert identities.trust_domain_strings([value], ("new", "old")).matches((identity,)) is matches


@pytest.mark.parametrize(
    ("pattern", "issuer", "subject", "matches"),
    [
        ("*", "i", "s", True),
        ("*", "", "s", False),
        ("*", "i", "", False),
        ("*/s", "i", "s", True),
        ("*/s", "", "s", False),
        ("*x/s", "i/x", "s", True),
        ("*x", "i", "sx", True),
        ("i/*", "i", "any/thing", True),
        ("i/*", "j", "s", False),
        ("i/s*", "i", "sub", True),
        ("ht*", "https://i", "s", True),
        ("i/s", "i", "s", True),
        ("https://i//s", "https://i/", "s", True),
        ("x", "x", "", True),
        ("x", "x", "s", False),
        ("*/*", "i", "*", True),
        ("*/*", "i", "s", False),
        ("i/*s", "i", "*s", True),
        ("*i/s*", "xi", "s*", True),
    ],
)
def test_request_principals(pattern: str, issuer: str, subject: str, matches: bool) -> None:
    """AP-38, AP-39."""
    assert identities.request_principals([pattern]).matches((issuer, subject)) is matches
    assert not identities.request_principals([pattern]).matches(())


@given(TEXT.filter(bool), TEXT, TEXT)
def test_terms_are_necessary_for_request_principals(pattern: str, issuer: str, subject: str) -> None:
    found = identities.request_principals([pattern])
    if found.terms is not None and found.matches((issuer, subject)):
        joined = f"{issuer}/{subject}"
        assert (
            joined in found.terms.exact
            or joined.startswith(found.terms.prefixes)
            or joined.endswith(found.terms.suffixes)
        )


def test_many_stars_take_no_longer_than_one() -> None:
    """Each star of a plain expression would multiply the time by the length of the identity."""
    matcher = identities.namespace_strings(["*" * 100, "a*" * 30, "*a*b*c*d*e*f"])
    assert not matcher.matches(("spiffe://cluster.local/ns/" + "ab" * 2000,))
    assert matcher.matches(("spiffe://cluster.local/ns/" + "ab" * 2000 + "/sa/x",))
