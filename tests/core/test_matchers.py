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
