"""Waiting until a whole fleet has acknowledged a revision, or taken a candidate: for whoever has just pushed it."""

import time
from collections.abc import Callable

from authz.core.errors import AuthzError, SettingsError
from authz.truth.fleet_candidate import FleetCandidate
from authz.truth.fleet_merge import FleetView

PAUSE_SECONDS = 0.5
"""Between two looks."""


def await_revision(
    look: Callable[[], FleetView],
    revision: str,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FleetView:
    """
    Look until every live replica and proxy has acknowledged a revision, or the time is over.

    Args:
        look: asks who runs what now.
        revision: a number or a digest; where it is a number, a newer one will do.
        seconds: how long.
        clock: seconds, never going back.
        sleep: waits so many seconds.

    Returns:
        What was seen last: ``has(revision)`` says whether it is so, ``without(revision)`` who has not.

    Raises:
        AuthzError: the last look had no answer.
    """
    return _await(look, lambda view: view.has(revision), seconds, clock, sleep)


def await_candidate(
    look: Callable[[], FleetView],
    candidate: FleetCandidate,
    seconds: float,
    *,
    is_there: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FleetView:
    """
    Look until every live replica has taken a candidate, and every live proxy acknowledged it that it is in force for.

    Args:
        look: asks who runs what now.
        candidate: which one.
        seconds: how long.
        is_there: whether it still was the candidate of the fleet at the last look.
        clock: seconds, never going back.
        sleep: waits so many seconds.

    Returns:
        What was seen last: all have it, a live replica refuses it, it was not there any more, or the time was over.

    Raises:
        AuthzError: the last look had no answer.
    """

    def is_over(view: FleetView) -> bool:
        return candidate.is_taken(view) or not is_there() or any(True for _ in candidate.refusing(view))

    return _await(look, is_over, seconds, clock, sleep)


def _await(
    look: Callable[[], FleetView],
    is_over: Callable[[FleetView], bool],
    seconds: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> FleetView:
    until = clock() + seconds
    while True:
        try:
            view, failure = look(), None
        except SettingsError:
            raise  # it will not mend itself
        except AuthzError as error:
            view, failure = None, error
        if view is not None and is_over(view):
            return view
        if clock() >= until:
            if view is None:
                raise failure or AuthzError("no answer")
            return view
        sleep(PAUSE_SECONDS)
