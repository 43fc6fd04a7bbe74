"""The texts that are taken for possible are those that the rest of the house takes for possible."""

from random import Random

import pytest

from authz.analysis.sets.possible import HEADER, HOST, METHOD, SNI, Identity, Path
from authz.analysis.sets.words import Automaton, Repeat, distinct, is_possible
from authz.core.normalize import normalize_path
from authz.core.resources import PathNormalization
from authz.core.spiffe import SpiffeId


@pytest.mark.parametrize("mode", PathNormalization)
def test_a_path_is_possible_when_normalisation_leaves_it_as_it_is(mode: PathNormalization) -> None:
    rng, path = Random(str(mode)), Path(mode)
    pieces = (
        "/",
        "/",
        "a",
        ".",
        "..",
        ";",
        "%",
        "%2",
        "%2f",
        "%5C",
        "%00",
        "%41",
        "%7e",
        "\\",
        "[",
        '"',
        " ",
        "é",
        "?",
    )
    seen = {True: 0, False: 0}
    for _ in range(5000):
        text = "/" + "".join(rng.choice(pieces) for _ in range(rng.randint(0, 6)))
        text = text.replace("#", "")
        visible = all("!" <= letter <= "~" for letter in text) and "?" not in text
        expected = visible and normalize_path(text, mode) == text
        assert is_possible(text, path) is expected, text
        seen[expected] += 1
    assert min(seen.values()) > 100
    assert not is_possible("a", path)


def test_an_identity_is_possible_when_it_is_a_spiffe_id_of_one_namespace_or_none() -> None:
    rng = Random(1)
    pieces = ("td", "td", "ns", "sa", "a", "n", "nsa", ".", "..", "a.b", "A", "")
    seen = {True: 0, False: 0}
    for _ in range(5000):
        segments = [rng.choice(pieces) for _ in range(rng.randint(1, 6))]
        text = "spiffe://" + "/".join(segments)
        try:
            SpiffeId.parse(text)
            is_spiffe = True
        except ValueError:
            is_spiffe = False
        path = segments[1:]
        is_istio = len(path) == 4 and path[0] == "ns" and path[2] == "sa"
        expected = is_spiffe and segments[0] != "ns" and (is_istio or "ns" not in path)
        assert is_possible(text, Identity()) is expected, text
        seen[expected] += 1
    assert min(seen.values()) > 100


@pytest.mark.parametrize(
    ("possible", "good", "bad"),
    [
        (METHOD, ("GET", "get", "M-SEARCH"), ("", "A B", "A\n")),
        (HOST, ("a.test", "a.test:80", "[::1]:80"), ("", "a/b", "a b", "é")),
        (SNI, ("", "a.test"), ("A.test", "a:1", "a/b")),
        (HEADER, ("", "a", "a b", "a\tb", "é"), (" a", "a ", "a\n", "\x00", "\x7f")),
    ],
)
def test_values_that_cannot_be_sent_are_impossible(
    possible: object, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    assert [text for text in good if not is_possible(text, possible)] == []  # type: ignore[arg-type]  # one of several automata
    assert [text for text in bad if is_possible(text, possible)] == []  # type: ignore[arg-type]  # the same


def test_a_pattern_that_no_path_has_is_in_no_combination() -> None:
    automaton = Automaton()
    automaton.add(("/a//b", Repeat("any")))
    automaton.add(("/%61",))
    assert distinct(automaton, Path(PathNormalization.MERGE_SLASHES)) == ["/"]
