"""
Revocations, which take effect long before a certificate expires: serial numbers and SPIFFE IDs (XA-159: only the
authorization server can).

A text file, one entry per line, ``#`` begins a comment:

    serial:4f7f59…                          hexadecimal, colons allowed, as openssl prints it
    spiffe://cluster.local/ns/shop/sa/old   every certificate of this identity
"""

import re
from dataclasses import dataclass

from authz.core.errors import Location, Problem, Severity
from authz.core.spiffe import SpiffeId

_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")


@dataclass(frozen=True, slots=True)
class Revocations:
    """Serial numbers and SPIFFE IDs that are no longer accepted."""

    serials: frozenset[int] = frozenset()
    spiffe_ids: frozenset[str] = frozenset()

    def __or__(self, other: "Revocations") -> "Revocations":
        """What either of them revokes."""
        return Revocations(self.serials | other.serials, self.spiffe_ids | other.spiffe_ids)

    def judge(self, spiffe_id: SpiffeId, serial: int) -> str | None:
        """Say what is revoked, or None."""
        if serial in self.serials:
            return f"the certificate with serial number {serial:x} is revoked"
        if self.spiffe_ids and str(spiffe_id) in self.spiffe_ids:
            return f"the identity `{spiffe_id}` is revoked"
        return None


NO_REVOCATIONS = Revocations()


def read_revocations(file: str, text: str) -> tuple[Revocations, tuple[Problem, ...]]:
    """Read a revocation list. Any problem is an error: a list that is only half understood revokes too little."""
    serials, identities, problems = set(), set(), []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        serial = entry.removeprefix("serial:").replace(":", "").strip()
        if entry.startswith("serial:") and _SERIAL.fullmatch(serial):
            serials.add(int(serial, 16))
            continue
        try:
            identities.add(str(SpiffeId.parse(entry)))
        except ValueError as error:
            message = f"`{entry}` is not a serial number" if entry.startswith("serial:") else str(error)
            help_text = "write `serial:` and hexadecimal digits, or a SPIFFE ID"
            place = Location(file, number, 1)
            problems.append(Problem(Severity.ERROR, "ID-1", message, place, help=help_text))
    return Revocations(frozenset(serials), frozenset(identities)), tuple(problems)
