"""Waiting until a whole fleet has acknowledged a revision: for whoever has just pushed it."""

import time
from collections.abc import Callable

from authz.core.errors import AuthzError, SettingsError
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
    until = clock() + seconds
    while True:
        try:
            view, failure = look(), None
        except SettingsError:
            raise  # it will not mend itself
        except AuthzError as error:
            view, failure = None, error
        if view is not None and view.has(revision):
            return view
        if clock() >= until:
            if view is None:
                raise failure or AuthzError("no answer")
            return view
        sleep(PAUSE_SECONDS)
