"""
The certificate authority of one trust domain: a value of authorities, one of them active, and what it issues.

It asks neither the clock nor who may have what (``registration`` does). A change gives a new value; ``save`` replaces
the directory's files by rename, the list of authorities last, so that a reader never sees half a rotation.

    <directory>/authorities.json     trust domain, and the state of each authority
    <directory>/<authority id>/      root.crt, root.key (may be taken away), signing….crt (chain), signing….key,
                                     former.crt (intermediates that signed before)
    <directory>/bundle.pem           every trusted root
    <directory>/intermediates.pem    for the authorization server, which is shown leaves only (XA-35)

There may be several below the same roots, each with a name and intermediates of its own (``announcement``).
"""

import json
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.attributes import Json
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.announcement import FIRST_NAME, Announcement, check_name, read_others
from authz.identity.authority import (
    Authority,
    AuthorityState,
    RandomBytes,
    adopt_authority,
    create_authority,
)
from authz.identity.bundle import TrustBundle
from authz.identity.certificate_template import (
    INTERMEDIATE_TTL_SECONDS,
    SERVER_TTL_SECONDS,
    SVID_TTL_SECONDS,
    CertificateTemplate,
    server_template,
    svid_template,
)
from authz.identity.keys import KeyType, PublicKey, generate_key, read_key, write_key
from authz.identity.secret_files import SECRET_MODE, read_secret, write_file, write_secret_files
from authz.identity.sign import SERIAL_BYTES, read_serial, sign
from authz.identity.svid_validation import MAX_CHAIN, Rejection, is_signed_by, validate_svid
from authz.identity.trusted_root import AWAITED_KEY, TrustedRoot, read_trusted_root, write_trusted_roots

STATE_FILE = "authorities.json"
LOCK_FILE = "authorities.lock"
"""Held by whoever reads the authorities to change them, where several processes may."""
BUNDLE_FILE = "bundle.pem"
FORMER_FILE = "former.crt"
INTERMEDIATES_FILE = "intermediates.pem"
_FILES = re.compile(r"signing(?:-[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just signed. ``repr`` omits the private key."""

    chain_pem: bytes = field(repr=False)
    """The leaf first, then the intermediates; no root."""
    key_pem: bytes = field(repr=False)
    """PKCS#8; empty when the applicant kept its own key."""
    not_before: float
    not_after: float
    serial: int
    authority_id: str
    spiffe_id: SpiffeId | None = None
    """None for a web server's certificate."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """``authorities``: oldest first; exactly one is active."""

    trust_domain: TrustDomain
    authorities: tuple[Authority, ...]
    random: RandomBytes = field(default=os.urandom, repr=False)
    name: str = FIRST_NAME
    """Among the authorities of this trust domain."""
    others: tuple[Announcement, ...] = ()
    """The other authorities below our roots, as far as they are known here."""
    disbelieved: tuple[str, ...] = ()
    """What is not believed of what others are said to have announced, and why."""
    trusted: tuple[TrustedRoot, ...] = ()
    """Roots that others prepared, below which this authority cannot sign yet."""
    plan: int = 0
    """The sequence of the last change of the root that all authorities follow (``rotation_plan``)."""

    def __post_init__(self) -> None:
        active = sum(authority.state is AuthorityState.ACTIVE for authority in self.authorities)
        if active != 1:
            raise ValueError(f"expected exactly one active authority, got {active}")

    @classmethod
    def create(
        cls,
        trust_domain: TrustDomain | str,
        now: float,
        *,
        key_type: KeyType = KeyType.ECDSA_P256,
        intermediate_ttl_seconds: float = INTERMEDIATE_TTL_SECONDS,
        random: RandomBytes = os.urandom,
    ) -> "CertificateAuthority":
        """Make a root and an intermediate in memory; ``save`` writes them. Raises ValueError for a bad trust domain."""
        domain = TrustDomain(trust_domain) if isinstance(trust_domain, str) else trust_domain
        authority = create_authority(
            domain,
            now,
            random,
            key_type=key_type,
            intermediate_ttl_seconds=intermediate_ttl_seconds,
            state=AuthorityState.ACTIVE,
        )
        return cls(domain, (authority,), random)

    @classmethod
    def load(cls, directory: Path | str, random: RandomBytes = os.urandom) -> "CertificateAuthority":
        """
        Read what ``save`` wrote.

        Raises ValueError when the files are not what they should be, OSError when they cannot be read.
        """
        path = Path(directory)
        try:
            state = json.loads((path / STATE_FILE).read_bytes())
            trust_domain = TrustDomain(state["trustDomain"])
            own = check_name(str(state.get("name", FIRST_NAME)))
            listed = [
                (str(entry["id"]), AuthorityState(entry["state"]), str(entry.get("signing", "signing")))
                for entry in state["authorities"]
            ]
            trusted, plan = [str(name) for name in state.get("trusted", ())], int(state.get("plan", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"`{path / STATE_FILE}` is not a list of authorities: {error}") from error
        authorities = tuple(_read_authority(path / name, name, st, files) for name, st, files in listed)
        roots = tuple(read_trusted_root(path / name) for name in trusted)
        alone = cls(trust_domain, authorities, random, own, trusted=roots, plan=plan)
        others, disbelieved = read_others(path, own, alone.trust_bundle)
        return replace(alone, others=others, disbelieved=disbelieved)

    def save(self, directory: Path | str) -> None:
        """Write everything; directories of authorities that are gone are removed last. Raises OSError."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for authority in self.authorities:
            place = path / authority.id
            chain = authority.chain_pem or authority.root_pem
            write_secret_files(place, authority.files, chain, write_key(authority.key))
            former = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in authority.former)
            if former or (place / FORMER_FILE).exists():
                write_file(place / FORMER_FILE, former)
            write_file(place / "root.crt", authority.root_pem)
            if authority.root_key is not None:
                write_file(place / "root.key", write_key(authority.root_key), SECRET_MODE)
        listed: list[Json] = [{"id": a.id, "state": a.state.value, "signing": a.files} for a in self.authorities]
        write_trusted_roots(path, self.trusted)
        state: dict[str, Json] = {"trustDomain": self.trust_domain.name, "name": self.name, "authorities": listed}
        if self.trusted or self.plan:
            state |= {"trusted": [one.id for one in self.trusted], "plan": self.plan}
        self.save_intermediates(path)
        write_file(path / BUNDLE_FILE, self.bundle_pem)
        write_file(path / STATE_FILE, json.dumps(state, indent=2).encode() + b"\n")
        kept = {authority.id: authority.files for authority in self.authorities}
        for awaited in list(path.glob(f"*/{AWAITED_KEY}")):
            if awaited.parent.name in kept:
                awaited.unlink()
            elif awaited.parent.name not in {one.id for one in self.trusted}:
                shutil.rmtree(awaited.parent, ignore_errors=True)
        for key in list(path.glob("*/signing*.key")):  # the list is whole before anything of it goes
            if key.parent.name not in kept:
                shutil.rmtree(key.parent, ignore_errors=True)  # a second key of it was seen before
            elif key.stem != kept[key.parent.name]:
                key.unlink()
                key.with_suffix(".crt").unlink(missing_ok=True)

    def save_intermediates(self, directory: Path) -> None:
        """Write what signs in this trust domain, if it is not there. Raises OSError."""
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in self.trust_bundle.intermediates)
        path = directory / INTERMEDIATES_FILE
        if not path.exists() or path.read_bytes() != pem:
            write_file(path, pem)

    @property
    def active(self) -> Authority:
        """The authority that signs now."""
        return next(authority for authority in self.authorities if authority.state is AuthorityState.ACTIVE)

    @property
    def sound_pem(self) -> bytes:
        """
        What signs now, ours first; the others' below the same root, too: a certificate of theirs need not be renewed.

        No more than ``MAX_CHAIN``, which is what readers take.
        """
        root = self.active.root
        theirs = [c for other in self.others for c in other.intermediates if c not in self.active.chain]
        below = [c for c in theirs if is_signed_by(c, root)]
        own = self.active.chain or (root,)
        return b"".join(c.public_bytes(Encoding.PEM) for c in (*own, *below)[:MAX_CHAIN])

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """Roots of all authorities that are still trusted."""
        return (*(one.root for one in self.authorities), *(one.root for one in self.trusted))

    @property
    def bundle_pem(self) -> bytes:
        """Every trusted root, prepared and old ones too: rotation overlaps (XA-160)."""
        return b"".join(root.public_bytes(Encoding.PEM) for root in self.roots)

    @property
    def trust_bundle(self) -> TrustBundle:
        """The roots, intermediates for peers of whom only the leaf is known, and the others' keys of JWT-SVIDs."""
        own = tuple(c for authority in self.authorities for c in (*authority.chain, *authority.former))
        theirs = tuple(c for other in self.others for c in other.intermediates)
        keys = tuple(key for other in self.others for key in other.jwt_keys)
        return TrustBundle(self.trust_domain, self.roots, (*own, *theirs), keys)

    def authority(self, authority_id: str) -> Authority:
        """Find an authority by its id. Raises ValueError when there is none."""
        for authority in self.authorities:
            if authority.id == authority_id:
                return authority
        raise ValueError(
            f"there is no authority `{authority_id}`; known are {', '.join(a.id for a in self.authorities)}"
        )

    def issue_svid(
        self,
        spiffe_id: SpiffeId,
        now: float,
        *,
        dns: tuple[str, ...] = (),
        ttl_seconds: float = SVID_TTL_SECONDS,
        public_key: PublicKey | None = None,
        key_type: KeyType = KeyType.ECDSA_P256,
    ) -> Issued:
        """
        Issue a workload's certificate; without ``public_key`` a key pair is made for it.

        Raises ValueError for an ID of another trust domain or without a path.
        """
        if spiffe_id.trust_domain != self.trust_domain:
            raise ValueError(f"`{spiffe_id}` is not in the trust domain `{self.trust_domain}`")
        template = svid_template(spiffe_id, now, ttl_seconds, dns)
        return replace(self._issue(template, public_key, key_type), spiffe_id=spiffe_id)

    def issue_server_certificate(
        self,
        dns_names: tuple[str, ...],
        now: float,
        *,
        addresses: tuple[str, ...] = (),
        ttl_seconds: float = SERVER_TTL_SECONDS,
        key_type: KeyType = KeyType.ECDSA_P256,
    ) -> Issued:
        """Issue a web server's certificate for a gateway's outer side; it has no SPIFFE ID and is not for clients."""
        return self._issue(server_template(dns_names, now, ttl_seconds, addresses), None, key_type)

    def _issue(self, template: CertificateTemplate, public_key: PublicKey | None, key_type: KeyType) -> Issued:
        key = generate_key(key_type) if public_key is None else None
        owner = key.public_key() if key is not None else public_key
        assert owner is not None
        serial = read_serial(self.random(SERIAL_BYTES))
        authority = self.active
        certificate = sign(template, owner, serial, authority.issuer)
        return Issued(
            chain_pem=certificate.public_bytes(Encoding.PEM) + authority.chain_pem,
            key_pem=write_key(key) if key is not None else b"",
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            serial=serial,
            authority_id=authority.id,
        )


def judge_by_trial(authority: Authority, trust_domain: TrustDomain, now: float) -> str | None:
    """
    Sign a certificate that nobody gets, and say why it would be refused, or None.

    What somebody else made may be an authority in every respect and yet be for other names, or allow none below it.
    """
    trial = CertificateAuthority(trust_domain, (replace(authority, state=AuthorityState.ACTIVE),))
    issued = trial.issue_svid(SpiffeId(trust_domain, "/trial"), now)
    answer = validate_svid(issued.chain_pem, {trust_domain: trial.trust_bundle}, now)
    return answer.reason if isinstance(answer, Rejection) else None


def _read_authority(place: Path, name: str, state: AuthorityState, files: str) -> Authority:
    if not _FILES.fullmatch(files):
        raise ValueError(f"`{files}` is not the name of a signing certificate's files")
    root = x509.load_pem_x509_certificate((place / "root.crt").read_bytes())
    chain = tuple(x509.load_pem_x509_certificates((place / f"{files}.crt").read_bytes()))
    root_key_file = place / "root.key"
    root_key = read_key(read_secret(root_key_file)) if root_key_file.exists() else None
    # Validity is not judged here: an expired root must still be loaded to be rotated away.
    midway = root.not_valid_before_utc.timestamp()
    signing = () if chain == (root,) else chain
    if signing:
        midway = max(midway, *(certificate.not_valid_before_utc.timestamp() for certificate in signing))
    authority = adopt_authority(root, signing, read_key(read_secret(place / f"{files}.key")), midway, state, root_key)
    if authority.id != name:
        raise ValueError(f"`{place}` holds the authority `{authority.id}`, not `{name}`")
    former = (place / FORMER_FILE).read_bytes() if (place / FORMER_FILE).exists() else b""
    return replace(authority, former=tuple(x509.load_pem_x509_certificates(former)) if former.strip() else ())
