import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.normalize import client_address, join_headers, normalize_path
from authz.core.resources import PathNormalization as Mode

SAME = None
BAD = "answered 400"


@pytest.mark.parametrize(
    ("path", "none", "base", "merge", "decode"),
    [
        # PN-12, row by row
        ("/x/../y", SAME, "/y", "/y", "/y"),
        ("/x/%2E./y", SAME, "/y", "/y", "/y"),
        ("/x\\y", SAME, "/x/y", "/x/y", "/x/y"),
        ("/x//", SAME, "/x//", "/x/", "/x/"),
        ("/x/%2f", SAME, "/x/%2f", "/x/%2f", "/x/"),
        ("/x%5Cy", SAME, "/x%5Cy", "/x%5Cy", "/x/y"),
        ("/x%30y", SAME, "/x0y", "/x0y", "/x0y"),
        ("/x//../y", SAME, "/x/y", "/x/y", "/x/y"),
        ("/x//../../y", SAME, "/y", "/y", "/y"),
        ("/x%2f%2e%2e%2fy", SAME, "/x%2f..%2fy", "/x%2f..%2fy", "/y"),
        ("/%252e%252e/y", SAME, SAME, SAME, SAME),
        # PN-5 and PN-9, the edges
        ("/a/..;/b", SAME, "/b", "/b", "/b"),
        ("/a/.;x/b", SAME, "/a/b", "/a/b", "/a/b"),
        ("/a/%2e%2e;x/b", SAME, "/a/..;x/b", "/a/..;x/b", "/a/..;x/b"),
        ("/a%2f..;/b", SAME, SAME, SAME, "/b"),
        ("/a/...;x", SAME, SAME, SAME, SAME),
        ("/a/..", SAME, "/", "/", "/"),
        ("/a/.", SAME, "/a/", "/a/", "/a/"),
        ("/../../x", SAME, "/x", "/x", "/x"),
        ("//", SAME, SAME, SAME, SAME),
        ("///", SAME, SAME, "//", "//"),
        ("/%2F/", SAME, SAME, SAME, "//"),
        ("/%2%61", SAME, "/%252a", "/%252a", "/%252a"),
        ("/%%41B", SAME, "/%25AB", "/%25AB", "/%25AB"),
        ("/%%30%30", SAME, "/%2500", "/%2500", "/%2500"),
        ("/a/..;%00/b", SAME, "/b", "/b", "/b"),
        ('/"<>{}', SAME, "/%22%3C%3E%7B%7D", "/%22%3C%3E%7B%7D", "/%22%3C%3E%7B%7D"),
        ("/|^`", SAME, "/%7C%5E%60", "/%7C%5E%60", "/%7C%5E%60"),
        ("/a[b]*%zz%", SAME, SAME, SAME, SAME),
        ("/a%00b", SAME, BAD, BAD, BAD),
        ("/é", SAME, BAD, BAD, BAD),
        ("/a b", SAME, BAD, BAD, BAD),
        ("/a?x=/../b//c", SAME, SAME, SAME, SAME),
        ("/a/../b?x=//", SAME, "/b?x=//", "/b?x=//", "/b?x=//"),
        ("", SAME, SAME, SAME, SAME),
    ],
)  # fmt: skip
def test_paths_are_normalised_as_envoy_does(path: str, none: str, base: str, merge: str, decode: str) -> None:
    expected = (none, base, merge, decode)
    modes = (Mode.NONE, Mode.BASE, Mode.MERGE_SLASHES, Mode.DECODE_AND_MERGE_SLASHES)
    found = tuple(normalize_path(path, mode) for mode in modes)

    assert found == tuple(path if want is SAME else None if want == BAD else want for want in expected)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_fragment_goes_first_under_every_setting(mode: Mode) -> None:
    """PN-2."""
    assert normalize_path("/a#?x", mode) == "/a"


@given(st.text(alphabet="/.%2eEfFaA5cC\\;?#", max_size=24).map(lambda text: "/" + text))
def test_no_dot_segment_survives_base(path: str) -> None:
    found = normalize_path(path, Mode.BASE)

    assert found is None or not {".", ".."} & set(found.partition("?")[0].split("/"))


def test_headers_are_joined_only_where_envoy_keeps_one_entry() -> None:
    """AP-22."""
    found = join_headers([("Accept", " a "), ("accept", ""), ("ACCEPT", "b"), ("X-Role", "u"), ("x-role", "v")])

    assert found == {"accept": ("a,b",), "x-role": ("u", "v")}


@pytest.mark.parametrize(
    ("forwarded_for", "gateway", "proxies", "expected"),
    [
        (("1.1.1.1, 2.2.2.2",), False, 0, "2.2.2.2"),
        (("1.1.1.1", "2.2.2.2"), False, 0, "2.2.2.2"),
        ((), False, 0, "9.9.9.9"),
        (("unknown",), False, 0, "9.9.9.9"),
        (("1.1.1.1, 9.9.9.9",), True, 0, "9.9.9.9"),
        (("1.1.1.1, 2.2.2.2, 9.9.9.9",), True, 1, "2.2.2.2"),
        (("1.1.1.1, 2.2.2.2, 9.9.9.9",), True, 2, "1.1.1.1"),
        (("9.9.9.9",), True, 1, "9.9.9.9"),
        (("bad, 9.9.9.9",), True, 1, "9.9.9.9"),
    ],
)
def test_client_address(forwarded_for: tuple[str, ...], gateway: bool, proxies: int, expected: str) -> None:
    """CS-9, CS-10."""
    assert client_address("9.9.9.9", forwarded_for, gateway=gateway, trusted_proxies=proxies) == expected
