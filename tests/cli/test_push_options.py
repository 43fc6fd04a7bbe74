"""Whom the options of a candidate mean, and which of them go together."""

from fractions import Fraction

import click
import pytest
from click.testing import CliRunner

from authz.canary.canary_judge import WINDOW_SECONDS, AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.cli.push_options import WantedCandidate, candidate_options

NOBODY = CanarySelection(Fraction(0), frozenset())
"""Servers decide it in shadow all the same."""


def wanted(*arguments: str) -> WantedCandidate | None:
    """What a command gets; raises what click says of a wrong use."""
    given: list[WantedCandidate | None] = []

    @click.command()
    @candidate_options
    def command(wanted: WantedCandidate | None) -> None:
        given.append(wanted)

    CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    (found,) = given
    return found


@pytest.mark.parametrize(
    ("arguments", "candidate"),
    [
        ((), None),
        (("--candidate",), WantedCandidate(NOBODY, None)),
        (
            ("--candidate", "--canary", "2.5%"),
            WantedCandidate(CanarySelection(Fraction(1, 40), frozenset()), None),
        ),
        (
            ("--candidate", "--canary-workload", "web", "--canary-workload", "api", "--abort-above", "1%"),
            WantedCandidate(
                CanarySelection(Fraction(0), frozenset({"web", "api"})), AbortBound(Fraction(1, 100), WINDOW_SECONDS)
            ),
        ),
        (
            ("--candidate", "--canary", "100%", "--abort-above", "50%", "--abort-window", "5"),
            WantedCandidate(CanarySelection(Fraction(1), frozenset()), AbortBound(Fraction(1, 2), 5)),
        ),
        (("--abort-window", "5"), None),  # it has a default, and alone it changes nothing
    ],
)
def test_the_options_say_for_whom_a_candidate_is(arguments: tuple[str, ...], candidate: WantedCandidate | None) -> None:
    assert wanted(*arguments) == candidate


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--canary", "5%"), "need --candidate"),
        (("--canary-workload", "web"), "need --candidate"),
        (("--abort-above", "5%"), "need --candidate"),
        (("--candidate", "--abort-above", "5%"), "for those that --canary or --canary-workload choose"),
    ],
)
def test_options_that_mean_nothing_alone_are_refused(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        wanted(*arguments)
