"""An authority and entries for trying things out on one machine, where one user runs everything."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority

NEEDED_SECONDS = 2 * 24 * 3600.0
"""An authority whose certificates end sooner than this is replaced."""
SVID_TTL_SECONDS = 3600
"""Life of a proxy's certificate by SDS, renewed at half of it."""


def kept_authority(directory: Path, trust_domain: str, now: float) -> CertificateAuthority:
    """
    Load the authority kept in a directory, or make one and keep it; a damaged or foreign one is replaced.

    Raises OSError.
    """
    try:
        kept = CertificateAuthority.load(directory)
        ends = min(c.not_valid_after_utc.timestamp() for c in (kept.active.root, *kept.active.chain))
        if kept.trust_domain == TrustDomain(trust_domain) and ends > now + NEEDED_SECONDS:
            return kept
    except (FileNotFoundError, ValueError):  # a file that merely cannot be read now must not cost us the authority
        pass
    shutil.rmtree(directory, ignore_errors=True)
    made = CertificateAuthority.create(trust_domain, now)
    made.save(directory)
    return made


def entries_for_this_user(spiffe_ids: Iterable[SpiffeId]) -> str:
    """
    Grant identities to the user who runs this.

    All proxies are processes of one user, so the kernel can vouch for no more than that: docs/demo.md says what is
    proved and what is not.
    """
    lines = [
        "# Who may have which certificate. Edited, it is in force within a second; the next start writes it anew.",
        "entries:",
    ]
    for spiffe_id in sorted({str(spiffe_id) for spiffe_id in spiffe_ids}):
        lines += [
            f"- spiffeID: {spiffe_id}",
            f"  selectors: [unix:uid:{os.getuid()}, unix:gid:{os.getgid()}]",
            f"  x509SVIDTTL: {SVID_TTL_SECONDS}",
        ]
    return "\n".join(lines) + "\n"
