"""
Scheduling where a hosting Envoy and the thread that decides share a core. It does nothing outside Linux.

Envoy hands every call over through a thread of the host, which needs the interpreter to do so. Woken, it would push the
deciding thread off the core only to wait for the interpreter that this one holds, at every call and answer. As
a batch thread it waits its turn: calls are handed over, decided and answered several at a time, with warm caches.
"""

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path

WORKER = "wrk:"
"""How Envoy's names of its worker threads begin."""
_TASKS = Path("/proc/self/task")
_POLL_SECONDS, _MOST_POLLS = 0.1, 300


async def calm_host(*, workers: bool) -> None:
    """
    Make the host's own threads batch threads, once Envoy has started them; called from the deciding thread.

    A batch thread has the same share of the processor, it merely does not interrupt. A machine that forbids it is left
    as it is.

    Args:
        workers: Envoy's workers too. Not in a sidecar: there they carry traffic that does not wait for a decision.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    for _ in range(_MOST_POLLS):
        named = _threads()
        if any(name.startswith(WORKER) for name in named.values()):
            break
        await asyncio.sleep(_POLL_SECONDS)
    else:
        return
    main, ours = os.getpid(), {thread.native_id for thread in threading.enumerate()} | {threading.get_native_id()}
    for thread, name in named.items():
        is_messenger = name == named.get(main) and thread != main and thread not in ours
        if is_messenger or (workers and name.startswith(WORKER)):
            with suppress(OSError):  # it has ended, or a sandbox forbids it
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads() -> dict[int, str]:
    """Threads of this process by number, with the kernel's names; those to which Envoy gave none have Envoy's own."""
    found: dict[int, str] = {}
    if not _TASKS.exists():
        return found
    for task in _TASKS.iterdir():
        with suppress(OSError):
            found[int(task.name)] = (task / "comm").read_text().strip()
    return found
