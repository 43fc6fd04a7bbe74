"""The record of what was signed and refused: the ledger, the log ``authz.issuance``, and the counts of both."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from authz.control.authority.figures import Issuances
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import JWT_SVID, Cause, Issuance, SigningLimit

log = logging.getLogger("authz.control.authority.server")
audit = logging.getLogger("authz.issuance")
"""One JSON line for every SVID issued or refused."""


@dataclass(slots=True)
class IssuanceRecord:
    """Takes every answer of one authority."""

    directory: Path
    counts: Issuances = field(default_factory=Issuances)
    _refusals: SigningLimit = field(default_factory=lambda: SigningLimit(1.0, 10, 20.0, 200))
    """The same buckets, for records instead of signatures: a stranger who knocks in a loop must not fill the disk."""

    def note(self, issuance: Issuance) -> None:
        """Record SVIDs always, and refusals until somebody floods the record with them."""
        if issuance.is_issued and issuance.kind == JWT_SVID:
            self.counts.jwts += 1
        elif issuance.is_issued:
            self.counts.issued += 1
        else:
            self.counts.refused[Cause(issuance.cause)] += 1
        if not issuance.is_issued and not self._refusals.take(issuance.evidence, issuance.time):
            self.counts.unrecorded += 1
            return
        level = logging.INFO if issuance.is_issued else logging.WARNING
        audit.log(level, "%s", json.dumps(asdict(issuance) | {"serial": f"{issuance.serial:x}"}))
        try:
            Ledger(self.directory / LEDGER_FILE).record(issuance)
        except OSError as error:
            log.error("the ledger cannot be written: %s", error)
