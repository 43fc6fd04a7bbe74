"""Checks 4 and 5 of certificates: of files, of an authority, and of what Envoys serve."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from authz.analysis.hardening.checklist import Finding
from authz.core.errors import Severity
from authz.identity.ca import CertificateAuthority
from authz.identity.drift import Served
from authz.identity.svid_validation import Rejection, read_chain
from authz.settings.settings import Settings

DAY = 86_400
LONGEST_DAYS = 398
"""What browsers accept of web servers; a workload's lives a day by default and at most thirty."""
LONGEST_SVID_DAYS = 30
LEFT_SHARE = 1 / 3
"""Renewed at half of its life, a certificate with less left was not."""
ROOT_LEFT_DAYS = 180
SIGNING_LEFT_DAYS = 30
MAX_CERTIFICATES = 1_000


@dataclass(frozen=True, slots=True)
class Life:
    """One certificate's time, by what it is called."""

    where: str
    begin: float
    end: float
    is_svid: bool = False


def lives_of(settings: Settings) -> Iterator[Life]:
    """The certificates that a server's settings name; what is no certificate is passed over."""
    files = [file for file in (settings.tls_certificate, settings.admin_tls_certificate) if file is not None]
    for directory in settings.certificates:
        files += sorted(directory.glob("*/*.crt"))[:MAX_CERTIFICATES] if directory.is_dir() else []
    for file in files:
        if (leaf := _leaf(file)) is not None:
            yield _life(str(file), leaf)


def lives_served(proxy: str, served: Iterable[Served]) -> Iterator[Life]:
    """What a proxy serves, each once."""
    found = {
        one.serial: Life(f"proxy {proxy}, {one.identity}", one.begin, one.end, one.is_svid)
        for context in served
        for one in context.certificates
    }
    yield from found.values()


def judge_lives(lives: Iterable[Life], now: float) -> Iterator[Finding]:
    """Yield what has expired, was not renewed, or lives too long. ``now``: seconds since the epoch."""
    for life in lives:
        left, whole = life.end - now, life.end - life.begin
        longest = LONGEST_SVID_DAYS if life.is_svid else LONGEST_DAYS
        if left <= 0:
            yield Finding(5, life.where, f"expired {_span(-left)} ago", "renew it", Severity.ERROR)
        elif left < whole * LEFT_SHARE:
            yield Finding(5, life.where, f"expires in {_span(left)}, of {_span(whole)}: it was not renewed", "renew it")
        if whole > longest * DAY:
            what = f"is valid for {_span(whole)}, more than {longest} days"
            yield Finding(5, life.where, what, "issue it for a shorter time, and renew it automatically")


def judge_authority(directory: Path, ca: CertificateAuthority, now: float) -> Iterator[Finding]:
    """Yield what ages in an authority, and a root's key that lies where it is not needed."""
    for authority in ca.authorities:
        where = f"{directory}, authority {authority.id}"
        root_left = authority.root.not_valid_after_utc.timestamp() - now
        signing_left = authority.signing.not_valid_after_utc.timestamp() - now
        if root_left < ROOT_LEFT_DAYS * DAY:
            yield Finding(5, where, f"its root expires in {_span(root_left)}", "authz ca root prepare, then activate")
        if authority.signing != authority.root and signing_left < SIGNING_LEFT_DAYS * DAY:
            what = f"its signing certificate expires in {_span(signing_left)}"
            yield Finding(5, where, what, "authz ca intermediate renew")
        if (key := directory / authority.id / "root.key").exists():
            yield Finding(4, str(key), "nothing that runs needs the root's key", "move it to a safe place")


def _leaf(file: Path) -> x509.Certificate | None:
    try:
        chain = read_chain(file.read_bytes())
    except OSError:
        return None
    return None if isinstance(chain, Rejection) else chain[0]


def _life(where: str, leaf: x509.Certificate) -> Life:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    is_svid = any(uri.startswith("spiffe://") for uri in uris)
    return Life(where, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), is_svid)


def _span(seconds: float) -> str:
    return f"{seconds / DAY:.0f} days" if abs(seconds) >= 2 * DAY else f"{seconds / 3600:.1f} hours"
