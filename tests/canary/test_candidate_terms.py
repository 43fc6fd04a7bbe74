"""Terms of a candidate: written, read from anybody, and said."""

import json
from fractions import Fraction
from typing import Any

import pytest

from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.candidate_terms import CandidateTerms, read_terms, write_terms

GOOD: dict[str, Any] = {"base": 7, "share": "5%", "workloads": ["a", "b"], "abort_above": "0.25%", "abort_window": 60}


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (CandidateTerms(8, 7), "in shadow alone"),
        (CandidateTerms(8, 7, CanarySelection(Fraction(1, 20))), "for 5%"),
        (
            CandidateTerms(9, 1, CanarySelection(Fraction(1), frozenset({"b", "a"})), AbortBound(Fraction(1, 8), 30.0)),
            "for 100% and a and b, taken back above 12.5% in 30 s",
        ),
    ],
)
def test_what_is_written_is_read_the_same(terms: CandidateTerms, said: str) -> None:
    assert read_terms(json.loads(json.dumps(write_terms(terms))), terms.number) == terms
    assert str(terms) == said


def test_a_share_that_would_be_read_otherwise_is_not_written() -> None:
    with pytest.raises(ValueError, match="four digits"):
        write_terms(CandidateTerms(8, 7, CanarySelection(Fraction(1, 3))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "exactly the members"),
        ({"base": 8}, "`base`"),
        ({"base": 0}, "`base`"),
        ({"base": True}, "`base`"),
        ({"share": "0%"}, "`share` that is no share"),
        ({"share": 5}, "`share` that is no share"),
        ({"share": "5.0%"}, "not written as `5%`"),
        ({"workloads": "a"}, "`workloads`"),
        ({"workloads": ["a\n"]}, "`workloads`"),
        ({"workloads": [""]}, "`workloads`"),
        ({"workloads": ["b", "a"]}, "not in order"),
        ({"workloads": ["a", "a"]}, "one twice"),
        ({"abort_above": None}, "without the other"),
        ({"abort_window": None}, "without the other"),
        ({"abort_window": 0}, "`abort_window`"),
        ({"abort_window": 1e3}, "`abort_window`"),
        ({"abort_above": "200%"}, "`abort_above` that is no share"),
    ],
)
def test_anything_else_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_terms({**GOOD, **change}, 8)
    assert read_terms(GOOD, 8).base == 7
    with pytest.raises(ValueError, match="exactly the members"):
        read_terms([], 8)
