"""
Compare what was issued with what proxies serve and trust, as their administration says (``/certs``).

An SDS stream that died silently shows here long before its certificate expires. Nothing is fetched here.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from cryptography import x509

from authz.identity.leaf import read_parts
from authz.identity.registrar import X509_SVID, Issuance
from authz.identity.svid_validation import Rejection, read_chain

GRACE_SECONDS = 30.0
"""How long a proxy may serve what it had before a newer certificate was issued."""
EXPIRING_SHARE = 1 / 3
"""A certificate is renewed at half of its life; when less than this share is left, renewal has failed for a while."""


class DriftKind(StrEnum):
    """How what a proxy serves differs from what was issued."""

    EXPIRED = "expired"
    EXPIRING = "expiring"
    SUPERSEDED = "superseded"
    """A newer certificate was issued and is not served."""
    FOREIGN = "foreign"
    """The identity is ours, the certificate was never issued here."""
    MISSING_ROOT = "missing-root"
    EXTRA_ROOT = "extra-root"
    NOTHING_SERVED = "nothing-served"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that differs from what it should be."""

    proxy: str
    kind: DriftKind
    subject: str
    """SPIFFE ID, or the serial number of a root."""
    message: str


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """One certificate of a proxy; times in seconds since the epoch."""

    serial: int
    names: tuple[str, ...]
    """Its URIs; without any, its DNS names."""
    begin: float
    end: float

    @property
    def identity(self) -> str:
        """Its first name, or its serial number when it has none."""
        return self.names[0] if self.names else f"serial {self.serial:x}"

    @property
    def is_svid(self) -> bool:
        """Whether it carries a SPIFFE ID."""
        return self.identity.startswith("spiffe://")


@dataclass(frozen=True, slots=True)
class Served:
    """One TLS context of a proxy."""

    certificates: tuple[ServedCertificate, ...]
    roots: tuple[ServedCertificate, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """The certificates that proxies should serve and trust. None stands for unknown, and is not compared."""

    serials: Mapping[str, frozenset[int]] | None = None
    """Serial numbers by SPIFFE ID; an identity that is missing was not issued here."""
    roots: frozenset[int] | None = None


def read_served(text: str) -> tuple[Served, ...]:
    """Read the answer of ``/certs``. Raises ValueError when it is something else."""
    try:
        found = json.loads(text)["certificates"]
        return tuple(
            Served(
                tuple(_certificate(item) for item in entry.get("cert_chain", [])),
                tuple(_certificate(item) for item in entry.get("ca_cert", [])),
            )
            for entry in found
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not an answer of Envoy's /certs: {error}") from error


def expected_serials(issued: Iterable[Issuance], now: float) -> dict[str, frozenset[int]]:
    """
    Find what should be served by now, from the ledger, oldest first: the last certificate of each holder.

    One that was followed within the last ``GRACE_SECONDS`` still counts.
    """
    current: dict[tuple[str, str], list[Issuance]] = {}
    for issuance in issued:
        if issuance.is_issued and issuance.kind == X509_SVID:
            holder = issuance.evidence.removeprefix("join-token:")  # whoever joined by a token renews by its SVID
            current.setdefault((issuance.spiffe_id, holder), []).append(issuance)
    serials: dict[str, set[int]] = {}
    for (spiffe_id, _), history in current.items():
        last = history[-1]
        followed = (before for before, after in pairwise(history) if _is_fresh(after, now))
        serials.setdefault(spiffe_id, set()).update({last.serial, *(issuance.serial for issuance in followed)})
    return {spiffe_id: frozenset(found) for spiffe_id, found in serials.items()}


def serials_of_files(chains: Iterable[bytes]) -> dict[str, frozenset[int]]:
    """The same for certificates delivered as files: what lies there should be served. Others' files are left out."""
    serials: dict[str, set[int]] = {}
    for pem in chains:
        chain = read_chain(pem)
        if isinstance(chain, Rejection):
            continue
        leaf = chain[0]
        for spiffe_id in _spiffe_ids(leaf):
            serials.setdefault(spiffe_id, set()).add(leaf.serial_number)
    return {spiffe_id: frozenset(found) for spiffe_id, found in serials.items()}


def find_drift(
    proxy: str, served: Iterable[Served], expected: Expected, now: float, expiring_seconds: float | None = None
) -> tuple[Drift, ...]:
    """
    Judge one proxy.

    Args:
        proxy: for messages.
        served: its TLS contexts.
        expected: what was issued, as far as it is known.
        now: seconds since the epoch.
        expiring_seconds: report certificates with less than this left; None: less than a third of their life.

    """
    found: dict[tuple[DriftKind, str], Drift] = {}
    served = tuple(served)
    if not any(context.certificates for context in served):
        found[DriftKind.NOTHING_SERVED, ""] = Drift(
            proxy, DriftKind.NOTHING_SERVED, "", "serves no certificate: secrets have not arrived"
        )
    for context in served:
        for certificate in context.certificates:
            for kind, message in _judge(certificate, expected, now, expiring_seconds):
                found[kind, certificate.identity] = Drift(proxy, kind, certificate.identity, message)
        if expected.roots is not None and any(certificate.is_svid for certificate in context.certificates):
            for kind, serial, message in _judge_roots(context, expected.roots):
                found[kind, f"{serial:x}"] = Drift(proxy, kind, f"{serial:x}", message)
    return tuple(found.values())


def trusts(served: Iterable[Served], root: int) -> bool:
    """Whether every context with an SVID trusts the root with this serial number; False when there is none."""
    contexts = [c for c in served if any(certificate.is_svid for certificate in c.certificates)]
    return bool(contexts) and all(any(r.serial == root for r in context.roots) for context in contexts)


def still_served(served: Iterable[Served], issued: Iterable[Issuance], kept: Iterable[str]) -> tuple[str, ...]:
    """
    The identities served with certificates that none of the authorities in ``kept`` (ids) is known to have signed.

    Empty: every other authority can be retired. A certificate that is not in the ledger counts as served by another.
    """
    kept = frozenset(kept)
    sound = {issuance.serial for issuance in issued if issuance.is_issued and issuance.authority_id in kept}
    certificates = [certificate for context in served for certificate in context.certificates if certificate.is_svid]
    return tuple(sorted({c.identity for c in certificates if c.serial not in sound}))


def _judge(
    certificate: ServedCertificate, expected: Expected, now: float, expiring_seconds: float | None
) -> Iterable[tuple[DriftKind, str]]:
    left = certificate.end - now
    enough = (certificate.end - certificate.begin) * EXPIRING_SHARE if expiring_seconds is None else expiring_seconds
    if left <= 0:
        yield DriftKind.EXPIRED, f"serves a certificate that expired {-left:.0f} s ago"
    elif left < enough:
        yield DriftKind.EXPIRING, f"serves a certificate that expires in {left:.0f} s and was not renewed"
    if expected.serials is None or not certificate.is_svid:
        return
    serials = expected.serials.get(certificate.identity)
    if serials is None:
        yield DriftKind.FOREIGN, f"serves serial {certificate.serial:x}, which was not issued here"
    elif certificate.serial not in serials:
        newest = ", ".join(f"{serial:x}" for serial in sorted(serials))
        yield DriftKind.SUPERSEDED, f"serves serial {certificate.serial:x}, issued since: {newest}"


def _judge_roots(context: Served, expected: frozenset[int]) -> Iterable[tuple[DriftKind, int, str]]:
    trusted = {root.serial for root in context.roots}
    for serial in expected - trusted:
        yield DriftKind.MISSING_ROOT, serial, f"does not trust the root with serial {serial:x}"
    for serial in trusted - expected:
        yield DriftKind.EXTRA_ROOT, serial, f"trusts a root with serial {serial:x}, which is not in the bundle"


def _is_fresh(issuance: Issuance, now: float) -> bool:
    return issuance.time > now - GRACE_SECONDS


def _spiffe_ids(certificate: x509.Certificate) -> list[str]:
    parts = read_parts(certificate, "the certificate")
    return [] if isinstance(parts, str) else [uri for uri in parts.uris if uri.startswith("spiffe://")]


def _certificate(item: Mapping[str, object]) -> ServedCertificate:
    names = item.get("subject_alt_names", [])
    assert isinstance(names, list)
    uris = [str(name["uri"]) for name in names if "uri" in name]
    dns = [str(name["dns"]) for name in names if "dns" in name]
    return ServedCertificate(
        int(str(item["serial_number"]), 16),
        tuple(uris or dns),
        datetime.fromisoformat(str(item["valid_from"])).timestamp(),
        datetime.fromisoformat(str(item["expiration_time"])).timestamp(),
    )
