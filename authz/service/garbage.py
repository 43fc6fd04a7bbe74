"""
When Python looks for reference cycles: seldom, and never at what policies are made of.

Nearly everything here dies by reference counting; the collector only walks live objects, and with thousands of
policies one walk stops every check for as long as half a second.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 10, 50)
"""
Objects made and not freed before the young are walked, and how often the next generation is: some thousand requests
under way do not reach the first number, which by default (700) fifty do.
"""


def settle() -> None:
    """
    Set aside what lives now, so that no walk comes by it; after the first snapshot is in force.

    Once only: what is set aside can still die, but a cycle in it would stay for ever.
    """
    gc.set_threshold(*THRESHOLDS)
    gc.collect()
    gc.freeze()


@contextmanager
def pause() -> Iterator[None]:
    """Walk nothing while much is made that will stay: each walk would find all of it alive."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
