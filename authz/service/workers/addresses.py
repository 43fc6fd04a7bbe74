"""How many workers there are, and the addresses at which each of them listens."""

import os
import re

from authz.settings.settings import Settings

_NUMBERED = re.compile(r"(.*?)(?:-(\d{1,6}))?(\.[^./]*)?", re.DOTALL)


def worker_count(settings: Settings) -> int:
    """The number of workers; 0 in the settings means one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


def worker_address(listen: str, index: int) -> str:
    """
    The address of one of several workers: they count up from the address given, which is the first worker's.

    ``127.0.0.1:9191``, ``:9192``; ``run/authz-0.sock``, ``run/authz-1.sock``; ``authz.sock``, ``authz-1.sock``;
    ``unix-abstract:authz``, ``authz-1``. A port chosen by the system is each worker's own.
    """
    if not index:
        return listen
    if not listen.startswith(("unix:", "unix-abstract:")):
        host, _, port = listen.rpartition(":")
        return f"{host}:{int(port) + index}" if port.isdigit() and int(port) else listen
    match = _NUMBERED.fullmatch(listen)
    assert match is not None, "the pattern takes every text"
    name, number, ending = match.groups()
    return f"{name}-{int(number or 0) + index}{ending or ''}"
