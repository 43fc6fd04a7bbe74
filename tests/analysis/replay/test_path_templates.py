"""Paths become templates where they must, and never wider than one segment."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.analysis.replay.path_templates import MAX_ODD, PathTemplates, is_id
from authz.core.matchers import path_strings
from authz.policy.value_checks import path

GET = ("GET", 80)


def learned(*paths: str, values: int = 3) -> list[str]:
    templates = PathTemplates(values)
    for one in paths:
        templates.add(one, GET)
    return [one for one, _ in templates]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/a"], ["/a"]),
        (["/reviews/0"], ["/reviews/0"]),  # one value is that value
        (["/reviews/0", "/reviews/17"], ["/reviews/{*}"]),
        (["/reviews/0", "/reviews/17", "/reviews/latest"], ["/reviews/latest", "/reviews/{*}"]),
        (["/a/1/x", "/a/2/y", "/a/3/x"], ["/a/{*}/x", "/a/{*}/y"]),
        (["/a/1/1", "/a/2/2", "/a/3/3"], ["/a/{*}/{*}"]),
        (["/a/b", "/a/c", "/a/d"], ["/a/b", "/a/c", "/a/d"]),
        (["/a/b", "/a/c", "/a/d", "/a/e"], ["/a/{*}"]),
        (["/a/b", "/a/c", "/a/d", "/a/e", "/a"], ["/a", "/a/{*}"]),
        (["/a/b/1", "/a/c/2", "/a/d/3", "/a/e/x"], ["/a/{*}/x", "/a/{*}/{*}"]),
        (["/1", "/2", "/"], ["/", "/{*}"]),
        (["/a/1/", "/a/2/", "/a/1"], ["/a/{*}", "/a/{*}/"]),
        (["//1", "//2"], ["//1", "//2"]),  # no template begins with two slashes
        (["/a//1", "/a//2"], ["/a//1", "/a//2"]),
        (["/é/1", "/é/2"], ["/é/1", "/é/2"]),  # nor has one a character outside of P
        (["/a/[1", "/a/[2"], ["/a/[1", "/a/[2"]),
        (["/x*y/1", "/x*y/2"], ["/x*y/1", "/x*y/2"]),
        (["/x*"], []),  # would be a prefix
        (["/{*}"], []),  # would be a template
        ([""], [""]),
        (["/" + "a" * 300], ["/" + "a" * 300]),
    ],
)
def test_paths_become_templates_where_there_are_ids_or_many_values(paths: list[str], expected: list[str]) -> None:
    assert learned(*paths) == expected


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ("0", True),
        ("1234567890", True),
        ("4b4e8c0a-9f0e-4a0e-8f55-1f7e0a2f9a11", True),
        ("9f86d081884c7d65", True),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("order-17", True),
        ("latest", False),
        ("deadbeef", False),  # a word
        ("v1", False),
        ("products", False),
        ("internationalisation-guide", False),
    ],
)
def test_ids_are_told_from_names(segment: str, expected: bool) -> None:
    assert is_id(segment) is expected


SEGMENTS = st.sampled_from(["a", "b", "c", "d", "e", "1", "2", "33", "", "é", "x*", "[", "latest", "order-1"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda segments: "/" + "/".join(segments))


@settings(max_examples=150)
@given(st.lists(PATHS, min_size=1, max_size=25), st.integers(1, 5))
def test_every_path_matches_what_was_learned_and_nothing_is_wider_than_a_segment(paths: list[str], values: int) -> None:
    templates = PathTemplates(values)
    for one in paths:
        templates.add(one, GET)
    written = [one for one, _ in templates]
    assert all((fault := path(one)) is None or fault.severity != "error" for one in written)
    matcher = path_strings(written)
    unwritten = [one for one in paths if not matcher.matches((one,))]
    assert len(unwritten) <= templates.unwritten
    assert all(one.endswith("*") for one in unwritten)
    seen = {len(one.split("/")) for one in paths}
    assert {len(one.split("/")) for one in written} <= seen


def test_memory_is_bounded_by_the_number_of_names_and_not_of_paths() -> None:
    templates = PathTemplates(8)
    for number in range(5000):
        templates.add(f"/users/{number}/orders/{number * 7}", GET)
        templates.add(f"/names/name-{number}x/{number % 9}", GET)
    assert [one for one, _ in templates] == ["/names/{*}/{*}", "/users/{*}/orders/{*}"]
    for number in range(MAX_ODD + 5):
        templates.add(f"/é/{number}", GET)
    assert templates.unwritten == 5
