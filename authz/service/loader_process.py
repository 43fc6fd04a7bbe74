"""
The process that reads a large set of policies for a server: ``loader`` starts it and takes what it sends.

    python -m authz.service.loader_process POLICIES [MESH]

Standard output carries pickled messages, for the server that started it and nobody else.
"""

import os
import signal
import sys

NICE = 5
"""
A third of what a check is worth to the scheduler: enough to load under any load, for a new DENY must not wait for ever.
"""
TURN_SECONDS = 0.00025
"""How long this keeps a processor from a check that has come; the system alone would let it for three milliseconds."""


def main() -> int:
    os.nice(NICE)
    if hasattr(os, "sched_yield"):
        signal.signal(signal.SIGALRM, lambda *_: os.sched_yield())
        signal.setitimer(signal.ITIMER_REAL, TURN_SECONDS, TURN_SECONDS)
    import gc  # only now: checks are served while this loads its modules, too
    from pathlib import Path

    from authz.service.transfer import send_snapshot

    gc.disable()  # what is read has no cycles, and this does not live long
    stream = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever else is printed must not fall among the messages
    try:
        send_snapshot(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None, stream)
    except BrokenPipeError:  # the server is gone
        os._exit(1)
    stream.flush()
    os._exit(0)  # taking everything apart first would take a tenth of a second


if __name__ == "__main__":
    sys.exit(main())
