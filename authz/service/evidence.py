"""
The files behind ``identity.peer``: trust bundles and the revocation list, read again when they change.

A broken change keeps what was in force and is reported; a missing file at the start refuses to start.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from authz.core.attributes import AttributeContext
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.bundle import Bundles, read_bundle
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE
from authz.identity.peer import judge_peer
from authz.identity.revocation import NO_REVOCATIONS, Revocations, read_revocations

log = logging.getLogger(__name__)

State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """What is trusted for one trust domain. Envoy sends leaves only (XA-35), so intermediates are needed too."""

    trust_domain: TrustDomain
    roots: Path
    intermediates: Path | None = None

    @classmethod
    def of_authority(cls, trust_domain: TrustDomain, directory: Path) -> "BundleFiles":
        """The files that ``authz ca`` keeps."""
        return cls(trust_domain, directory / BUNDLE_FILE, directory / INTERMEDIATES_FILE)


class PeerEvidence:
    """Judges peers by the files' present content. ``look`` is for a timer; ``judge`` reads no file."""

    def __init__(self, bundles: Sequence[BundleFiles], revocations: Path | None = None) -> None:
        """Raises SettingsError, LoadError."""
        self._files = tuple(bundles)
        self._revocations_file = revocations
        self._seen = self._states()
        try:
            self._bundles, self._revocations = self._read()
        except (OSError, ValueError) as error:
            raise SettingsError(f"the trust bundles cannot be used: {error}") from error

    def judge(self, attributes: AttributeContext, now: float) -> str | None:
        """Say why the peer must be denied, or None. Never raises."""
        identities = attributes.source.identities
        return judge_peer(
            attributes.certificate, identities[0] if identities else "", self._bundles, self._revocations, now
        )

    def look(self) -> bool:
        """Read again if a file changed; answer whether something new is in force."""
        states = self._states()
        if states == self._seen:
            return False
        self._seen = states
        try:
            self._bundles, self._revocations = self._read()
        except (OSError, ValueError) as error:
            log.error("a change of the trust bundles is not taken, the old ones stay: %s", error)
            return False
        except LoadError as error:
            listed = "; ".join(str(problem) for problem in error.problems)
            log.error("a change of the revocations is not taken, the old ones stay: %s", listed)
            return False
        return True

    def _read(self) -> tuple[Bundles, Revocations]:
        bundles = {}
        for files in self._files:
            intermediates = files.intermediates.read_bytes() if files.intermediates else b""
            bundles[files.trust_domain] = read_bundle(files.trust_domain, files.roots.read_bytes(), intermediates)
        revocations = NO_REVOCATIONS
        if self._revocations_file is not None:
            text = self._revocations_file.read_text(errors="replace")
            revocations, problems = read_revocations(str(self._revocations_file), text)
            if problems:
                raise LoadError(problems)
        return bundles, revocations

    def _states(self) -> tuple[State, ...]:
        paths = [path for files in self._files for path in (files.roots, files.intermediates) if path is not None]
        if self._revocations_file is not None:
            paths.append(self._revocations_file)
        return tuple(_state(path) for path in paths)


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_ino, status.st_size)
