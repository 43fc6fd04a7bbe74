"""
A whole bundle, and whether a replica takes it: pure, with the time and what it had before as arguments.

    build_bundle(files, …) → bytes      sign_bundle(bytes, key) → bytes
    read_bundle(bytes) → Bundle         refuse_bundle(bundle, …) raises BundleRefused
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from authz.bundles.bundle_signatures import BundleSignature, read_signatures, sign, signers, write_signatures
from authz.bundles.manifest import (
    MAX_FILES,
    BundledFile,
    BundleRefused,
    Manifest,
    Provenance,
    fleet_name,
    read_manifest,
    refuse_names,
    time_text,
    write_manifest,
)
from authz.bundles.packing import MANIFEST, SIGNATURES, pack, unpack
from authz.canary.candidate_terms import CandidateTerms

MAX_REASONS = 10
"""Files that are told of in one message."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is whole; who signed it is another question."""

    manifest: Manifest
    manifest_bytes: bytes
    """What is signed."""
    signatures: tuple[BundleSignature, ...]
    files: Mapping[str, bytes]
    """Exactly those of the manifest, in its order."""

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, in hexadecimal: the same for the same content, whoever signed it."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()


@dataclass(frozen=True, slots=True)
class Taken:
    """The bundle that a replica took last."""

    revision: int
    digest: str


def build_bundle(
    files: Mapping[str, bytes],
    *,
    fleet: str,
    revision: int,
    created: int,
    expires: int | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008  # frozen
    candidate: CandidateTerms | None = None,
) -> bytes:
    """
    Pack files by name; nobody has signed it yet. The order of ``files`` does not matter.

    With ``candidate``, whose number is the revision, nobody takes it for what is in force for all.

    Raises:
        BundleRefused: a name, the fleet or a size is not possible, there is no policy, or it expires before it begins.
    """
    if len(files) > MAX_FILES:
        raise BundleRefused(f"a bundle has at most {MAX_FILES} files")
    if not any(name.startswith("policies/") for name in files):
        raise BundleRefused("there is no policy file, and without policies everything would be allowed")
    if expires is not None and expires <= created:
        raise BundleRefused("it would expire before it is made")
    ordered = dict(sorted(files.items()))
    refuse_names(list(ordered))
    listed = tuple(BundledFile(name, len(data), _digest(data)) for name, data in ordered.items())
    manifest = Manifest(fleet_name(fleet), revision, created, expires, provenance, listed, candidate)
    return pack({MANIFEST: write_manifest(manifest), SIGNATURES: write_signatures(()), **ordered})


def sign_bundle(data: bytes, key: Ed25519PrivateKey) -> bytes:
    """
    Add a signature, or replace that of the same key; the manifest's bytes stay.

    Raises:
        BundleRefused: it is no whole bundle.
    """
    bundle = read_bundle(data)
    own = sign(bundle.manifest_bytes, key)
    others = (one for one in bundle.signatures if one.key_id != own.key_id)
    return pack({MANIFEST: bundle.manifest_bytes, SIGNATURES: write_signatures((*others, own)), **bundle.files})


def read_bundle(data: bytes) -> Bundle:
    """
    Read a bundle from anybody: every file is that of the manifest, none is missing and none is added.

    Raises:
        BundleRefused: it is not whole.
    """
    members = unpack(data)
    if list(members)[:2] != [MANIFEST, SIGNATURES]:
        raise BundleRefused(f"the archive does not begin with `{MANIFEST}` and `{SIGNATURES}`: it is no bundle")
    manifest_bytes, signature_bytes = members.pop(MANIFEST), members.pop(SIGNATURES)
    manifest, signatures = read_manifest(manifest_bytes), read_signatures(signature_bytes)
    reasons = []
    listed = {file.name: file for file in manifest.files}
    for name, file in listed.items():
        if name not in members:
            reasons.append(f"`{name}` is missing")
        elif len(members[name]) != file.size:
            reasons.append(f"`{name}` has {len(members[name])} bytes and not {file.size}")
        elif _digest(members[name]) != file.digest:
            reasons.append(f"`{name}` has another digest than the manifest says")
    added = len(members.keys() - listed.keys())
    if added:
        reasons.append("1 file is not in the manifest" if added == 1 else f"{added} files are not in the manifest")
    if not reasons and list(members) != list(listed):
        reasons.append("the files are not in the order of their names")
    if not any(name.startswith("policies/") for name in listed):
        reasons.append("there is no policy file")
    if reasons:
        more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
        raise BundleRefused("; ".join(reasons[:MAX_REASONS]) + more)
    return Bundle(manifest, manifest_bytes, signatures, members)


def refuse_bundle(
    bundle: Bundle,
    keys: Sequence[Ed25519PublicKey],
    *,
    fleet: str,
    now: float,
    last: Taken | None = None,
    allowed_older: int | None = None,
) -> tuple[str, ...]:
    """
    Refuse a bundle that a replica must not take; the ids of the keys that signed it otherwise.

    Args:
        keys: one of them must have signed.
        fleet: whose it must be.
        now: seconds since the epoch.
        last: what it took before; None at the first time.
        allowed_older: the one revision that may be older than the last, because somebody said so.

    Raises:
        BundleRefused: names every reason; only that nobody we know signed it, if so, for then it says nothing.
    """
    found, reasons = _signed_reasons(bundle, keys, fleet, now)
    manifest = bundle.manifest
    if manifest.candidate is not None:
        reasons.append("it is a candidate, which is not in force for all: `authz candidate promote` does that")
    if last is not None and manifest.revision != allowed_older:
        if manifest.revision < last.revision:
            reasons.append(
                f"its revision {manifest.revision} is older than {last.revision}, which was taken: publish a newer "
                "revision, or let this one in once with `authz bundle allow`"
            )
        elif manifest.revision == last.revision and bundle.digest != last.digest:
            reasons.append(f"its revision {manifest.revision} was taken with other files: publish a newer revision")
    if reasons:
        raise BundleRefused("; ".join(reasons))
    return found


def refuse_candidate(bundle: Bundle, keys: Sequence[Ed25519PublicKey], *, fleet: str, now: float) -> CandidateTerms:
    """
    Refuse what must not be a candidate; what is said of it otherwise. Arguments are those of ``refuse_bundle``.

    Raises:
        BundleRefused: as ``refuse_bundle``; what is for all is no candidate, for it does not say who gets it.
    """
    _, reasons = _signed_reasons(bundle, keys, fleet, now)
    terms = bundle.manifest.candidate
    if terms is None:
        reasons.append("it is no candidate: it was signed to be in force for all")
    if reasons or terms is None:
        raise BundleRefused("; ".join(reasons))
    return terms


def _signed_reasons(
    bundle: Bundle, keys: Sequence[Ed25519PublicKey], fleet: str, now: float
) -> tuple[tuple[str, ...], list[str]]:
    """Who signed it, and why it is refused whatever it is for. Raises BundleRefused: nobody we know signed it."""
    found = signers(bundle.manifest_bytes, bundle.signatures, keys)
    if not found:
        raise BundleRefused(_unsigned(bundle))
    manifest, reasons = bundle.manifest, []
    if manifest.fleet != fleet:
        reasons.append(f"it is for the fleet `{manifest.fleet}`, and this is `{fleet}`")
    if manifest.expires is not None and now >= manifest.expires:
        reasons.append(f"it expired at {time_text(manifest.expires)}: publish a newer one")
    return found, reasons


def _unsigned(bundle: Bundle) -> str:
    if not bundle.signatures:
        return "nobody signed it: `authz bundle sign` does"
    ids = ", ".join(f"`{one.key_id}`" for one in bundle.signatures)
    return f"none of the keys given here signed it; it names {ids}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
