import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import matchers as m

TEXT = st.text(alphabet="ab*/.\nA", max_size=6)


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("*", "x", True),
        ("*", "", False),
        ("*", "a\nb", False),
        ("abc", "abc", True),
        ("abc", "ABC", False),
        ("abc*", "abc", True),
        ("abc*", "abcd", True),
        ("abc*", "ab", False),
        ("*abc", "abc", True),
        ("*abc", "xabc", True),
        ("*abc*", "xabc*", True),  # the leading star wins, AP-20
        ("*abc*", "xabcd", False),
        ("a*c", "a*c", True),
        ("a*c", "abc", False),
        ("/admin*", "/administrator", True),  # no notion of segments, AP-21
        ("*example.com", "notexample.com", True),
        ("**", "x*", True),
        ("**", "x", False),
    ],
)
def test_plain_form(pattern: str, value: str, matches: bool) -> None:
    """AP-19 to AP-21."""
    assert m.plain_strings([pattern]).matches((value,)) is matches


@pytest.mark.parametrize(
    ("pattern", "values", "matches"),
    [
        ("*", ("",), True),
        ("*", ("a\nb",), True),
        ("*", (), False),
        ("admin", ("user", "admin"), True),
        ("user,admin", ("user", "admin"), False),
    ],
)
def test_header_form_matches_occurrence_by_occurrence(pattern: str, values: tuple[str, ...], matches: bool) -> None:
    """AP-22, AP-59."""
    assert m.header_strings([pattern]).matches(values) is matches


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("example.com", "EXAMPLE.com", True),
        ("EXAMPLE.com", "example.com", True),
        ("example.com", "example.com:8080", False),
        ("example.com:*", "example.com:8080", True),
        ("*.example.com", "a.EXAMPLE.com", True),
        ("*.example.com", "example.com", False),
        ("example.com", "example.com.", False),
        ("k.example", "\u212a.example", False),  # the Kelvin sign is not a k
    ],
)
def test_host_form_folds_ascii_only(pattern: str, host: str, matches: bool) -> None:
    """AP-23, AP-42, AP-43."""
    assert m.header_strings([pattern], fold=True).matches((host,)) is matches


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/a/{*}", "/a/b", True),
        ("/a/{*}", "/a/", False),
        ("/a/{*}", "/a/b/c", False),
        ("/a/{**}", "/a/", True),
        ("/a/{**}", "/a/b/c", True),
        ("/a/{**}", "/a", False),
        ("/s/{**}/c", "/s//c", True),
        ("/s/{**}/c", "/s/x/y/c", True),
        ("/s/{**}/c", "/s/c", False),
        ("/a/{*}", "/a/*", True),  # P contains the star, SE-47
        ("/a/{*}", "/a/b[", False),
        ("/a/{*}", "/a/é", False),
        ("/a.b/{*}", "/aXb/c", False),
        ("/{*}/{**}/c", "/x//c", True),
    ],
)
def test_path_templates(template: str, path: str, matches: bool) -> None:
    """AP-50 to AP-55."""
    assert m.path_strings([template]).matches((path,)) is matches


@pytest.mark.parametrize("template", ["a/{*}", "//a/{*}", "/" + "a" * 256 + "/{*}"])
def test_templates_that_the_proxy_refuses_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        m.path_strings([template])


def test_templates_and_plain_paths_share_a_list() -> None:
    found = m.path_strings(["/x*", "/a/{*}", "*"])

    assert found.matches(("/xy",))
    assert found.matches(("/a/b",))
    assert found.terms is None
    assert m.path_strings(["/x*", "/a/{*}", "/{*}/longer"]).terms == m.Terms(
        prefixes=("/x", "/a/"), suffixes=("/longer",)
    )


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
    assert m.principal_strings([pattern]).matches((identity,)) is matches


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
    assert m.namespace_strings([pattern]).matches((identity,)) is matches


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
    assert m.service_account_strings([value], "home").matches((identity,)) is matches


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
    assert m.trust_domain_strings([value], ("new", "old")).matches((identity,)) is matches


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
    assert m.request_principals([pattern]).matches((issuer, subject)) is matches
    assert not m.request_principals([pattern]).matches(())


@pytest.mark.parametrize(
    ("block", "address", "matches"),
    [
        ("192.0.2.10", "192.0.2.10", True),
        ("192.0.2.10", "192.0.2.11", False),
        ("10.1.2.3/8", "10.200.0.1", True),  # host bits are ignored
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "10.0.0.1", False),
        ("2001:db8::/32", "2001:db8:1::9", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", False),  # section 10
        ("::ffff:0:0/96", "10.0.0.1", False),
        ("::ffff:0:0/96", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "no address", False),
        ("fe80::/10", "fe80::1%eth0", False),
    ],
)
def test_networks(block: str, address: str, matches: bool) -> None:
    """AP-40."""
    assert m.networks([block]).matches((address,)) is matches


@pytest.mark.parametrize("block", ["1.2.3", "01.2.3.4", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3.4/08", "fe80::1%a"])
def test_malformed_networks_are_refused(block: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        m.parse_network(block)


def test_ports_ignore_leading_zeros() -> None:
    found = m.port_strings(["0080"])

    assert found.matches(("80",))
    assert not found.matches(("8080",))


@pytest.mark.parametrize("port", ["65536", "+80", "-1", "http", "", "٨٠"])
def test_malformed_ports_are_refused(port: str) -> None:
    with pytest.raises(ValueError, match="not a port"):
        m.port_strings([port])


@pytest.mark.parametrize(
    ("pattern", "values", "matches"),
    [
        ("v", ("=v",), True),
        ("v", ("[v",), False),
        ("[v]", ("[v",), True),
        ("[v*]", ("[x", "[vw"), True),
        ("[v]", ("=v",), False),
    ],
)
def test_metadata_lists_need_brackets(pattern: str, values: tuple[str, ...], matches: bool) -> None:
    """AP-66."""
    assert m.metadata_strings([pattern]).matches(values) is matches


@given(TEXT, TEXT)
def test_terms_are_necessary_for_plain_strings(pattern: str, value: str) -> None:
    """What the index does not find cannot match."""
    found = m.plain_strings([pattern])
    if found.terms is not None and found.matches((value,)):
        assert (
            value in found.terms.exact or value.startswith(found.terms.prefixes) or value.endswith(found.terms.suffixes)
        )


@given(TEXT.filter(bool), TEXT, TEXT)
def test_terms_are_necessary_for_request_principals(pattern: str, issuer: str, subject: str) -> None:
    found = m.request_principals([pattern])
    if found.terms is not None and found.matches((issuer, subject)):
        joined = f"{issuer}/{subject}"
        assert (
            joined in found.terms.exact
            or joined.startswith(found.terms.prefixes)
            or joined.endswith(found.terms.suffixes)
        )
