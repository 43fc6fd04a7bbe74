"""
When certificates expire: those of a directory, ``NAME/tls.crt`` as the mesh keeps them, and the server's own.

Looked at every ten seconds in a thread; only changed files are read.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from authz.audit.telemetry import CertificateStatus
from authz.core.spiffe import SpiffeId
from authz.identity.leaf import read_identity, read_parts
from authz.identity.validate import Rejection, read_chain

_log = logging.getLogger(__name__)
AGAIN_SECONDS = 10.0
MAX_CERTIFICATES = 1_000


class CertificateFiles:
    """``status`` is replaced whole, so it may be read from any thread."""

    def __init__(self, directory: Path | None, own: Mapping[str, Path | None] | None = None) -> None:
        """``own`` are files by the name they are shown under; None is none."""
        self._directory = directory
        self._own = {file: name for name, file in (own or {}).items() if file is not None}
        self._known: dict[Path, tuple[int, CertificateStatus | None]] = {}
        self.status: tuple[CertificateStatus, ...] = ()
        """Every certificate that can be read."""

    async def run(self) -> None:
        """Look again and again, until cancelled; not at all when there is nothing to look at."""
        while self._directory is not None or self._own:
            try:
                await asyncio.to_thread(self.read)
            except Exception:  # what is shown must not end because of one file that nobody thought of
                _log.exception("the certificates could not be read")
            await asyncio.sleep(AGAIN_SECONDS)

    def read(self) -> None:
        """Look once."""
        known: dict[Path, tuple[int, CertificateStatus | None]] = {}
        for file in (*self._own, *self._files()):
            try:
                changed = file.stat().st_mtime_ns
                before = self._known.get(file)
                if before is None or before[0] != changed:
                    before = (changed, _read_file(file, self._own.get(file, "")))
                known[file] = before
            except OSError:  # it went between listing and reading
                continue
        self._known = known
        self.status = tuple(status for _, status in known.values() if status is not None)

    def _files(self) -> list[Path]:
        try:
            return sorted(self._directory.glob("*/*.crt"))[:MAX_CERTIFICATES] if self._directory is not None else []
        except OSError:
            return []


def _read_file(file: Path, own: str) -> CertificateStatus | None:
    chain = read_chain(file.read_bytes())
    if isinstance(chain, Rejection):
        return None
    leaf = chain[0]
    name, not_after = own or file.parent.name, leaf.not_valid_after_utc.timestamp()
    if own:
        return CertificateStatus("server", not_after, workload=own)
    if file.name.startswith("ca"):
        return CertificateStatus("root", not_after, workload=name)
    parts = read_parts(leaf, name)
    identity = read_identity(parts) if not isinstance(parts, str) and len(parts.uris) == 1 else ""
    if isinstance(identity, SpiffeId):
        return CertificateStatus("workload", not_after, identity.namespace or "", name, str(identity))
    return CertificateStatus("server", not_after, workload=name)
