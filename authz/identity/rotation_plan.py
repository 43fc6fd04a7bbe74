"""
A change of the root that several authorities follow: the roots as they are to be, numbered, signed by one of them.

    {"sequence": 3, "roots": [{"state": "active", "root": PEM}, {"state": "prepared", "root": PEM}]}

An authority that learns of a root below which it has no intermediate trusts it, makes a key, and announces that;
whoever has the root's key signs an intermediate for it. Only then can it follow when that root becomes active.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from authz.core.attributes import Json
from authz.identity.announcing import sign_document
from authz.identity.authority import AuthorityState, adopt_authority, root_id
from authz.identity.bundle import TrustBundle
from authz.identity.ca import CertificateAuthority, judge_by_trial
from authz.identity.certificate_template import intermediate_template
from authz.identity.keys import generate_key
from authz.identity.sign import SERIAL_BYTES, Issuer, read_serial, sign
from authz.identity.signed_document import unseal
from authz.identity.trusted_root import TrustedRoot

KIND = "plan"


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is trusted, and which of it signs."""

    sequence: int
    roots: tuple[tuple[AuthorityState, x509.Certificate], ...]
    """Oldest first; one of them is active."""

    @property
    def states(self) -> Mapping[str, AuthorityState]:
        """By id of a root."""
        return {root_id(root): state for state, root in self.roots}

    @property
    def active(self) -> str:
        """The id of the root below which all sign."""
        return next(name for name, state in self.states.items() if state is AuthorityState.ACTIVE)


def write_plan(ca: CertificateAuthority, now: float, *, signed_by: CertificateAuthority) -> bytes:
    """
    Say what this authority is: the others are to become the same. ``plan`` is the sequence.

    ``signed_by``: the authority as it was before the change, whom the others believe. Raises ValueError.
    """
    roots: list[Json] = [{"state": one.state.value, "root": one.root_pem.decode()} for one in ca.authorities]
    return sign_document(signed_by, KIND, {"sequence": ca.plan, "roots": roots}, now)


def read_plan(data: bytes, bundle: TrustBundle) -> RotationPlan:
    """Read and verify a plan. Raises ValueError with a reason."""
    payload = unseal(KIND, data, bundle)
    try:
        sequence, listed = payload["sequence"], payload["roots"]
        if isinstance(sequence, bool) or not isinstance(sequence, int) or not isinstance(listed, list):
            raise ValueError("it has no sequence and roots")
        roots = []
        for one in listed:
            if not isinstance(one, dict):
                raise ValueError("a root is not an object")
            root = x509.load_pem_x509_certificate(str(one["root"]).encode())
            roots.append((AuthorityState(str(one["state"])), root))
    except (KeyError, ValueError) as error:
        raise ValueError(f"it is not a plan: {error}") from None
    if sum(state is AuthorityState.ACTIVE for state, _ in roots) != 1:
        raise ValueError("it is not a plan: exactly one root must be active")
    return RotationPlan(sequence, tuple(roots))


def follow_plan(ca: CertificateAuthority, plan: RotationPlan) -> CertificateAuthority:
    """
    Become what the plan says, as far as that is possible here.

    Without an intermediate below the active root this authority goes on as it is, and trusts what is new.
    """
    if plan.sequence <= ca.plan:
        return ca
    own = {authority.id for authority in ca.authorities}
    known = own | {one.id for one in ca.trusted}
    new = tuple(TrustedRoot(root, generate_key()) for _, root in plan.roots if root_id(root) not in known)
    if plan.active not in own:
        return replace(ca, trusted=(*ca.trusted, *new)) if new else ca
    states = plan.states
    authorities = tuple(replace(a, state=states[a.id]) for a in ca.authorities if a.id in states)
    trusted = tuple(one for one in (*ca.trusted, *new) if one.id in states)
    return replace(ca, authorities=authorities, trusted=trusted, plan=plan.sequence)


def sign_intermediate(ca: CertificateAuthority, authority_id: str, awaited: str, now: float) -> bytes:
    """Sign an intermediate, as PEM, for the public key that another authority announced. Raises ValueError."""
    authority = ca.authority(authority_id)
    if authority.root_key is None:
        raise ValueError(f"the key of the root `{authority_id}` is not here, so nothing below it can be signed")
    try:
        key = load_pem_public_key(awaited.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise ValueError("an intermediate cannot have a key of this kind")
    issuer = Issuer(authority.root, authority.root_key)
    made = sign(intermediate_template(ca.trust_domain, now), key, read_serial(ca.random(SERIAL_BYTES)), issuer)
    return made.public_bytes(Encoding.PEM)


def is_for(pem: bytes, awaited: str) -> bool:
    """Whether an intermediate is for the public key that an authority announced."""
    try:
        key = x509.load_pem_x509_certificate(pem).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() == awaited


def take_intermediate(ca: CertificateAuthority, root: TrustedRoot, pem: bytes, now: float) -> CertificateAuthority:
    """Take the intermediate that was asked for: now this authority can sign below that root. Raises ValueError."""
    chain = tuple(x509.load_pem_x509_certificates(pem))
    authority = adopt_authority(root.root, chain, root.key, now, AuthorityState.PREPARED)
    if reason := judge_by_trial(authority, ca.trust_domain, now):
        raise ValueError(f"nobody would accept what is signed with the intermediate below `{root.id}`: {reason}")
    remaining = tuple(one for one in ca.trusted if one.id != root.id)
    return replace(ca, authorities=(*ca.authorities, authority), trusted=remaining)
