"""
When Python looks for reference cycles, and how much is made and freed at a time beside checks that must not wait.

Policies have no cycles and die by reference counting; the collector only walks them while everything stands still, half
a microsecond for each ten objects. It is needed nevertheless, because grpcio makes a small cycle at every call.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

SERVING = (50_000, 10, 5_000)
"""
Objects made and not freed before the young are walked, and how often the next generations are. A thousand requests
under way do not reach the first number; by default (700) fifty do. A walk of everything, half a second with 10,000
policies that came by a reload, is due after some dozen such reloads or many millions of calls.
"""
DISCOVERY = (500_000, 3, 5_000)
"""
The same where proxies are served and no checks are. A change of all replaces some forty objects of each proxy; what is
walked between the making and the dying of these is walked for nothing, at a tenth of the price of the change.
"""
LOADING = (1_000, 3, 1_000_000)
"""While policies are read: many walks over what is new, a millisecond each, and none over everything."""
SWITCH_SECONDS = 0.0001
"""How long a thread that loads keeps the interpreter from a check that has come; by default fifty times as long."""

PARTS_AT_ONCE, REST_SECONDS = 50, 0.0002
"""
How a large set is freed: so many parts, for a fifth of a millisecond, then as long a rest. A thread that does not rest
is not interrupted by the system for some three milliseconds, whatever waits for its processor.
"""


def settle(serving: tuple[int, int, int] = SERVING) -> None:
    """
    Set aside what lives now, so that no walk passes over it; for the start of the service, which is then ``serving``.

    Not for later: what is set aside can still die, but a cycle in it stays, and calls under way have some.
    """
    gc.set_threshold(*serving)
    gc.collect()
    gc.freeze()


@contextmanager
def beside_checks() -> Iterator[None]:
    """
    Run a thread that makes or drops very many objects, so that checks wait for it as little as possible.

    Where there are none (``DISCOVERY``), nothing is walked because of it.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(*(LOADING if thresholds != DISCOVERY else DISCOVERY))
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)


def let_go(parts: list[object]) -> None:
    """Empty a list piece by piece: at once, 10,000 policies would keep the interpreter for a tenth of a second."""
    with beside_checks():
        while parts:
            del parts[-PARTS_AT_ONCE:]
            sleep(REST_SECONDS)
