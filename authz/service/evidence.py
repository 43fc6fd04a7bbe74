"""
The peer's certificate as evidence in the check: bundles and revocations as files, followed, and the answers remembered.

What Envoy verified when a connection began is judged again on every request, so that a revocation or an expiry takes
effect on connections that live on (XA-159). What is broken in a changed file is reported and the last good set kept.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from authz.core.attributes import AttributeContext
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.bundle_document import read_bundle_files
from authz.identity.peer import NO_SVID, Accepted, examine_peer, spiffe_uri
from authz.identity.revocation import NO_REVOCATIONS, Revocations, read_revocations
from authz.identity.svid_validation import Rejection
from authz.service.ports.failure import where_it_failed
from authz.settings.sections import PeerSettings
from authz.sources.policies.watching import watch
from authz.telemetry.status import PeerTrustStatus

_log = logging.getLogger("authz.evidence")
MAX_REMEMBERED = 4096
"""The most accepted certificates, about 1 kB each; beyond that all are forgotten."""
MAX_TOLD = 3
"""The most problems of one file that are named."""


@dataclass(frozen=True, slots=True)
class EvidenceFiles:
    """Where bundles and revocations are; a bundle may be several files, roots and intermediates in any order."""

    bundles: tuple[tuple[TrustDomain, tuple[Path, ...]], ...]
    revocations: Path | None = None

    def paths(self) -> list[Path]:
        """Every file whose change matters."""
        found = [path for _, paths in self.bundles for path in paths]
        return [*found, self.revocations] if self.revocations is not None else found


@dataclass(frozen=True, slots=True)
class Trusted:
    """One set of bundles and revocations, and who was accepted under it: a new set begins with nobody."""

    bundles: Bundles
    revocations: Revocations
    accepted: dict[str, Accepted]
    """
    Results by certificate in PEM: a whole certificate is its own best key, and wire hands out the same text every time.
    """
    callers: dict[str, Accepted] = field(default_factory=dict)
    """The same for those who ask us: they are not named by Envoy."""


class PeerEvidence:
    """``load`` once, then ``judge`` for every request while ``run`` follows the files."""

    def __init__(self, files: EvidenceFiles, *, is_required: bool, clock: Callable[[], float]) -> None:
        """``clock``: seconds since the epoch, for the status only; judging is told the time."""
        self._files = files
        self._is_required = is_required
        self._clock = clock
        self._trusted = Trusted({}, NO_REVOCATIONS, {})
        self.status = PeerTrustStatus()
        """Replaced whole, so it may be read from any thread."""

    @classmethod
    def of(cls, settings: PeerSettings, clock: Callable[[], float]) -> "PeerEvidence | None":
        """None when the settings ask for no evidence. Raises SettingsError."""
        if settings.certificate == "off":
            return None
        bundles = []
        for name, paths in settings.trust_bundles.items():
            try:
                bundles.append((TrustDomain(name), tuple(Path(path.strip()) for path in paths.split(","))))
            except ValueError as error:
                raise SettingsError(f"setting `peer_trust_bundles`: {error}") from error
        files = EvidenceFiles(tuple(bundles), settings.revocations)
        return cls(files, is_required=settings.certificate == "required", clock=clock)

    def load(self) -> None:
        """
        Read everything and put it in force.

        Raises:
            SettingsError: a bundle cannot be used, or a file cannot be read.
            LoadError: the revocation list has problems.
        """
        try:
            bundles = {domain: _read_bundle(domain, paths) for domain, paths in self._files.bundles}
            revocations = self._read_revocations()
        except OSError as error:
            raise SettingsError(f"`{error.filename}` cannot be read: {error.strerror}") from error
        self._trusted = Trusted(bundles, revocations, {})
        now = self._clock()
        self.status = PeerTrustStatus(now, "", self.status.successes + 1, self.status.failures)

    async def begin(self, tasks: list[asyncio.Task[None]]) -> None:
        """Follow the files in a task, which is put to the others, and read them. Raises as ``load``."""
        watching = asyncio.Event()
        tasks.append(asyncio.create_task(self.run(watching), name="evidence"))
        await watching.wait()
        self.load()  # after the watch began, so that no revocation falls in between

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Follow the files until cancelled; ``ready`` is set once no change can be missed."""
        async for _ in watch(self._files.paths(), ready=ready):
            self._load_again()

    def _load_again(self) -> None:
        try:
            self.load()
            _log.info("trust bundles and revocations are in force as they are now")
            return
        except LoadError as error:
            problem = _shortened(error)
        except SettingsError as error:
            problem = str(error)
        except Exception as error:  # a mistake of ours must not end the watch
            problem = where_it_failed(error)
        self.status = replace(self.status, problem=problem, failures=self.status.failures + 1)
        _log.error("trust bundles and revocations stay as they were: %s", problem)

    def judge(self, attributes: AttributeContext, now: float) -> str:
        """
        Why the peer is not believed; empty when it is. Never raises.

        A peer that was accepted before costs one lookup. Plaintext is not a question of evidence; nor, at a gateway,
        is a client whose identity is not a SPIFFE ID: the gateway's own authority vouches for it.
        """
        trusted = self._trusted  # one read: what belongs together
        certificate, principal = attributes.certificate, attributes.source.identities
        known = trusted.accepted.get(certificate)
        if known is not None and principal and known.holds(principal[0], now):
            return ""
        if not certificate and (not principal or not self._is_required):
            return ""
        if attributes.destination.is_gateway and not any(name.startswith("spiffe://") for name in principal):
            return ""
        claimed = principal[0] if principal else ""
        answer = examine_peer(certificate, claimed, trusted.bundles, trusted.revocations, now)
        if isinstance(answer, str):
            return answer
        if len(trusted.accepted) >= MAX_REMEMBERED:
            trusted.accepted.clear()
        trusted.accepted[certificate] = answer
        return ""

    def judge_caller(self, certificate: str, now: float) -> str:
        """
        Why whoever asks *us* over mutual TLS is not answered; empty when it is. Never raises.

        The handshake judged once; this judges expiry, bundle and revocation on every call. A certificate without a
        SPIFFE ID comes from another kind of authority, for which the handshake is all there is.
        """
        trusted = self._trusted
        known = trusted.callers.get(certificate)
        if known is not None and known.begin <= now < known.end:
            return ""
        claimed = spiffe_uri(certificate)
        if isinstance(claimed, Rejection):
            return claimed.reason
        answer = examine_peer(certificate, claimed, trusted.bundles, trusted.revocations, now) if claimed else NO_SVID
        if isinstance(answer, str):
            return answer
        if len(trusted.callers) >= MAX_REMEMBERED:
            trusted.callers.clear()
        trusted.callers[certificate] = answer
        return ""

    def _read_revocations(self) -> Revocations:
        path = self._files.revocations
        if path is None:
            return NO_REVOCATIONS
        revocations, problems = read_revocations(str(path), path.read_text(encoding="utf-8", errors="replace"))
        if problems:
            raise LoadError(problems)
        return revocations


def _shortened(error: LoadError) -> str:
    """The first problems in one line; in a list with a thousand bad lines the first ones are fixed first."""
    lines = [str(problem).partition("\n")[0] for problem in error.problems[:MAX_TOLD]]
    more = len(error.problems) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def _read_bundle(domain: TrustDomain, paths: tuple[Path, ...]) -> TrustBundle:
    try:
        return read_bundle_files(domain, (path.read_bytes() for path in paths))
    except ValueError as error:
        raise SettingsError(f"setting `peer_trust_bundles`: {error}") from error
