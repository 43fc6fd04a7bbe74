"""A child process that ends with its parent, even if that is killed: Linux signals it then."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = getattr(_libc, "prctl", None)  # only Linux has it
_parent = os.getpid()


def die_with_parent() -> None:
    """
    Ask for SIGTERM at the parent's death; to be called in the child before it becomes the command.

    Not SIGKILL: the child has decisions to record.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != _parent:  # it died before
        os._exit(1)
