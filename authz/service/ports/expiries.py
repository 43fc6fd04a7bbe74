"""
When certificates expire: those in directories (``NAME/tls.crt``), those an authority issued, and the server's own.

Looked at every ten seconds in a thread; only what is new is read.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from authz.core.spiffe import SpiffeId
from authz.identity.leaf import read_identity, read_parts
from authz.identity.svid_validation import Rejection, read_chain
from authz.telemetry.status import CertificateStatus

_log = logging.getLogger(__name__)
AGAIN_SECONDS = 10.0
MAX_CERTIFICATES = 1_000
"""The most that are read from one directory or ledger."""
GONE_SECONDS = 3600.0
"""
This long after its end, a certificate that its authority did not renew belonged to a workload that no longer exists.
"""


class CertificateFiles:
    """``status`` is replaced whole, so it may be read from any thread."""

    def __init__(
        self, places: Sequence[Path], own: Mapping[str, Path | None] | None = None, *, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            places: directories of certificates, and ledgers of authorities (``issued.jsonl``).
            own: files by the name they are shown under; None where there is no file.
            clock: seconds since the epoch.
        """
        self._directories = [place for place in places if place.suffix != ".jsonl"]
        self._ledgers = [LedgerTail(place) for place in places if place.suffix == ".jsonl"]
        self._own = {file: name for name, file in (own or {}).items() if file is not None}
        self._clock = clock
        self._known: dict[Path, tuple[tuple[int, ...], CertificateStatus | None]] = {}
        self.status: tuple[CertificateStatus, ...] = ()
        """Every certificate that can be read."""

    async def run(self) -> None:
        """Look again and again, until cancelled; not at all when there is nothing to look at."""
        while self._directories or self._ledgers or self._own:
            try:
                await asyncio.to_thread(self.read)
            except Exception:  # what is shown must not end because of one file that nobody thought of
                _log.exception("the certificates could not be read")
            await asyncio.sleep(AGAIN_SECONDS)

    def read(self) -> None:
        """Look once."""
        known: dict[Path, tuple[tuple[int, ...], CertificateStatus | None]] = {}
        for file in (*self._own, *self._files()):
            try:
                facts = file.stat()
                changed = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                before = self._known.get(file)
                if before is None or before[0] != changed:
                    before = (changed, _read_file(file, self._own.get(file, "")))
                known[file] = before
            except OSError:  # it went between listing and reading
                continue
        self._known = known
        now = self._clock()
        issued = [status for ledger in self._ledgers for status in ledger.read(now)]
        self.status = (*(status for _, status in known.values() if status is not None), *issued)

    def _files(self) -> Iterator[Path]:
        for directory in self._directories:
            try:
                yield from sorted(directory.glob("*/*.crt"))[:MAX_CERTIFICATES]
            except OSError:
                continue


class LedgerTail:
    """The newest certificate of each identity in an authority's ledger, which grows and is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._position = 0
        self._newest: dict[str, CertificateStatus] = {}

    def read(self, now: float) -> tuple[CertificateStatus, ...]:
        """Read what was appended, and return what is in use. What cannot be read is left out."""
        try:
            with self._path.open("rb") as file:
                facts = self._path.stat()
                if facts.st_ino != self._file or facts.st_size < self._position:
                    self._file, self._position = facts.st_ino, 0
                file.seek(self._position)
                *lines, rest = file.read().split(b"\n")
                self._position = file.tell() - len(rest)
        except OSError:
            lines = []
        for line in lines:
            if (status := _read_issuance(line)) is not None:
                self._newest.pop(status.identity, None)  # so that the last one stands last
                self._newest[status.identity] = status
        kept = (item for item in self._newest.items() if item[1].not_after + GONE_SECONDS > now)
        self._newest = dict(list(kept)[-MAX_CERTIFICATES:])
        return tuple(self._newest.values())


def _read_issuance(line: bytes) -> CertificateStatus | None:
    try:
        told = json.loads(line)
        if not told["is_issued"]:
            return None
        identity = SpiffeId.parse(told["spiffe_id"])
        account = identity.service_account or identity.path
        times = float(told.get("not_before", 0.0)), float(told["not_after"])
        return CertificateStatus(
            "workload", times[1], identity.namespace or "", account, str(identity), not_before=times[0]
        )
    except (ValueError, TypeError, KeyError):
        return None


def _read_file(file: Path, own: str) -> CertificateStatus | None:
    chain = read_chain(file.read_bytes())
    if isinstance(chain, Rejection):
        return None
    leaf = chain[0]
    name, not_after = own or file.parent.name, leaf.not_valid_after_utc.timestamp()
    begin = leaf.not_valid_before_utc.timestamp()
    if own:
        return CertificateStatus("server", not_after, workload=own, not_before=begin)
    parts = read_parts(leaf, name)
    if isinstance(parts, str):
        return CertificateStatus("server", not_after, workload=name, not_before=begin)
    if parts.basic_constraints is not None and parts.basic_constraints.ca:
        # A bundle lasts until its first root ends: nobody then trusts what that root signed.
        kind = "root" if leaf.subject == leaf.issuer else "intermediate"
        first = min(chain, key=lambda one: one.not_valid_after_utc)
        begin, end = first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
        return CertificateStatus(kind, end, workload=name, not_before=begin)
    identity = read_identity(parts) if len(parts.uris) == 1 else ""
    if isinstance(identity, SpiffeId):
        return CertificateStatus("workload", not_after, identity.namespace or "", name, str(identity), not_before=begin)
    return CertificateStatus("server", not_after, workload=name, not_before=begin)
