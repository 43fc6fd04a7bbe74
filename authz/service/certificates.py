"""
When the certificates of a directory expire: ``NAME/tls.crt``, as the mesh keeps them.

Looked at every ten seconds in a thread; only changed files are read.
"""

import asyncio
from pathlib import Path

from authz.audit.telemetry import CertificateStatus
from authz.core.spiffe import SpiffeId
from authz.identity.leaf import read_identity, read_parts
from authz.identity.validate import Rejection, read_chain

AGAIN_SECONDS = 10.0
MAX_CERTIFICATES = 1_000


class CertificateFiles:
    """``status`` is replaced whole, so it may be read from any thread. ``directory`` None has no certificates."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._known: dict[Path, tuple[int, CertificateStatus | None]] = {}
        self.status: tuple[CertificateStatus, ...] = ()
        """Every certificate that can be read."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.to_thread(self.read)
            await asyncio.sleep(AGAIN_SECONDS)

    def read(self) -> None:
        """Look once."""
        if self._directory is not None:
            self.status = self._read(self._directory)

    def _read(self, directory: Path) -> tuple[CertificateStatus, ...]:
        known: dict[Path, tuple[int, CertificateStatus | None]] = {}
        try:
            files = sorted(directory.glob("*/*.crt"))[:MAX_CERTIFICATES]
        except OSError:
            files = []
        for file in files:
            try:
                changed = file.stat().st_mtime_ns
                before = self._known.get(file)
                if before is None or before[0] != changed:
                    before = (changed, _read_file(file))
                known[file] = before
            except OSError:  # it went between listing and reading
                continue
        self._known = known
        return tuple(status for _, status in known.values() if status is not None)


def _read_file(file: Path) -> CertificateStatus | None:
    chain = read_chain(file.read_bytes())
    if isinstance(chain, Rejection):
        return None
    leaf = chain[0]
    name, not_after = file.parent.name, leaf.not_valid_after_utc.timestamp()
    if file.name.startswith("ca"):
        return CertificateStatus("root", not_after, workload=name)
    parts = read_parts(leaf, name)
    identity = read_identity(parts) if not isinstance(parts, str) else ""
    if isinstance(identity, SpiffeId):
        return CertificateStatus("workload", not_after, identity.namespace or "", name, str(identity))
    return CertificateStatus("server", not_after, workload=name)
