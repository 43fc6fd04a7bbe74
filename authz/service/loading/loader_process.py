"""
The process that reads a large set of policies for a server: ``loader`` starts it and takes what it sends.

    python -m authz.service.loading.loader_process POLICIES [MESH] [--allow-empty]

Standard output carries pickled messages, for the server that started it and nobody else.
"""

import os
import signal
import sys
import time

TURN_SECONDS = 0.00025
"""How long this keeps a processor from a check that has come; left alone, the system would allow three milliseconds."""
PATIENCE = 3.0
"""
Giving way costs a turn each time, so where all processors are busy this would hardly run, and a new DENY must not wait
for ever: once it has taken this many times as long as its work alone, it stops giving way.
"""
NICE = 3
"""Even then a check is worth twice as much to the scheduler."""


def gives_way(elapsed_seconds: float, used_seconds: float) -> bool:
    """Whether a process of that age, with that much work done, still lets everybody go first."""
    return elapsed_seconds < PATIENCE * used_seconds


def main() -> int:
    """Read one set for the server that started this process; returns the exit code."""
    os.nice(NICE)
    began = time.monotonic() - time.process_time()

    def give_way(*_: object) -> None:
        if gives_way(time.monotonic() - began, time.process_time()):
            os.sched_yield()

    if hasattr(os, "sched_yield"):
        signal.signal(signal.SIGALRM, give_way)
        signal.setitimer(signal.ITIMER_REAL, TURN_SECONDS, TURN_SECONDS)
    import gc  # only now: checks are served while this loads its modules, too
    from pathlib import Path

    from authz.service.loading.transfer import ALLOW_EMPTY, send_snapshot

    gc.disable()  # what is read has no cycles, and this does not live long
    # With PYTHONUNBUFFERED, which containers have, `sys.stdout.buffer` writes a part where the timer interrupts it.
    stream = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = sys.stderr  # whatever else is printed must not fall among the messages
    try:
        paths = [Path(argument) for argument in sys.argv[1:] if argument != ALLOW_EMPTY]
        mesh_file = paths[1] if len(paths) > 1 else None
        send_snapshot(paths[0], mesh_file, stream, allow_empty=ALLOW_EMPTY in sys.argv)
    except BrokenPipeError:  # the server is gone
        os._exit(1)
    except Exception as error:  # its message may quote a key that stands in a policy
        from authz.service.ports.failure import where_it_failed

        print(where_it_failed(error), file=sys.stderr, flush=True)
        os._exit(1)
    stream.flush()
    os._exit(0)  # taking everything apart first would take a tenth of a second


if __name__ == "__main__":
    sys.exit(main())
