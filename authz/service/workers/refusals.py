"""
Refused TLS handshakes of a worker whose port is Envoy's: its statistics become lines of our log and our count.

Envoy says how many there were of each kind, not who it was.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from authz.service.ports.handshakes import HANDSHAKES
from authz.service.workers.envoy_host import HostedAt, refused_handshakes

ASK_SECONDS = 2.0
"""The time between two questions; a question costs Envoy less than a millisecond."""
_WORDS = {
    "connection_error": "no TLS, or a version, cipher or message that the port does not take",
    "fail_verify_no_cert": "the peer did not return a certificate",
    "fail_verify_error": "the peer's certificate is not vouched for, or not valid now",
    "fail_verify_san": "the peer's certificate has a different name from the one asked for",
    "fail_verify_cert_hash": "the peer's certificate is not the pinned one",
}


async def follow_refusals(directory: str) -> None:
    """Ask the Envoy whose files are in ``directory`` again and again, until cancelled; nothing where there is none."""
    if not directory:
        return
    at, before = HostedAt((), Path(directory)), dict[str, int]()
    while True:
        with suppress(OSError, ValueError):  # it is just starting or ending
            counts = await refused_handshakes(at)
            for name, count in counts.items():
                if (more := count - before.get(name, 0)) > 0:
                    HANDSHAKES.note("gRPC port", f"{_WORDS.get(name, 'refused')} (Envoy's {name})", more)
            before = counts
        await asyncio.sleep(ASK_SECONDS)
