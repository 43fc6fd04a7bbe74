"""What holds for all tests."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.offers"]

# A busy machine is no finding: examples have no deadline, and slow generation is not an error.
settings.register_profile("authz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("authz")

# Hundreds of processes import the same files: what one has compiled, the others need not compile again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell's background job ignores Ctrl-C, and so would everything that tests start and want to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_PROCESSES = frozenset(
    {"admin", "control", "demo", "envoy", "fleet", "mesh", "packaging", "service", "sources", "truth", "up"}
)
"""Rooms whose tests start real Envoys, servers and browsers on a machine that others use too."""
FIRST = ("fleet", "envoy", "service", "control", "admin", "up")
"""Rooms that wait longest, which begin, so that no process of two is left alone with one of them at the end."""
LONGEST_SECONDS = {"demo": 900.0, "fleet": 400.0}
"""A test that hangs ends after this time with the stacks of all threads, and the others go on."""


def pytest_collection_finish() -> None:
    """Thousands of collected tests are kept to the end: nobody need look for garbage among them again and again."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Such a test may fail once for want of time; a test that fails twice has found something. None may hang."""
    rooms = {item: item.path.relative_to(Path(__file__).parent).parts[0] for item in items}
    for item, room in rooms.items():
        if room in REAL_PROCESSES or item.get_closest_marker("slow"):  # those of other rooms start processes too
            item.add_marker(pytest.mark.flaky(reruns=1))
        if room in LONGEST_SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONGEST_SECONDS[room]))
    items.sort(key=lambda item: FIRST.index(rooms[item]) if rooms[item] in FIRST else len(FIRST))
