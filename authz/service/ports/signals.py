"""
What signals do to a server: the same for one worker, for a supervisor with many, and for the authority.

SIGTERM, SIGINT and SIGQUIT stop; USR1 and USR2 are what operators of log rotation expect of a server. Other signals
whose default would end the process are logged and change nothing.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_NAMES = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGXCPU")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Signals that end a process which does not handle them, which nobody means; some systems lack some of them."""

OnSignal = Callable[[], object]


def on_signals(
    stop: OnSignal,
    others: Mapping[signal.Signals, OnSignal],
    say: Callable[[str], object],
    *,
    leave: tuple[signal.Signals, ...] = (),
) -> None:
    """
    Handle signals in the running event loop.

    Args:
        stop: for each of ``STOPPING``, every time it comes.
        others: what further signals do, and those of ``STOPPING`` that do not stop anything here.
        say: called with one line for a signal that changes nothing.
        leave: signals whose default stays.
    """
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, others.get(number) or stop)
    for number in ENDING:
        if number not in leave:
            loop.add_signal_handler(number, others.get(number) or _nothing(number, say))
    for real_time in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        loop.add_signal_handler(real_time, say, f"signal    {real_time} changes nothing here")


def ignore_ending(leave: tuple[signal.Signals, ...] = ()) -> None:
    """Ignore signals that would end this process; children inherit that. For the main thread."""
    for number in ENDING:
        if number not in leave:
            signal.signal(number, signal.SIG_IGN)


def _nothing(number: signal.Signals, say: Callable[[str], object]) -> OnSignal:
    return lambda: say(f"signal    {number.name} changes nothing here")
