"""Several authorities below one root: how another one is made, and what each announces of itself."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.attributes import Json
from authz.core.spiffe import AUTHORITY_PATH, SpiffeId
from authz.identity.announcement import KIND, OWN_FILE, TRUSTED, check_name
from authz.identity.authority import renew_intermediate
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import write_bundle_document
from authz.identity.ca import CertificateAuthority
from authz.identity.certificate_template import INTERMEDIATE_TTL_SECONDS, SVID_TTL_SECONDS
from authz.identity.delivered import Delivered
from authz.identity.jwt_keys import JwtKeys
from authz.identity.keys import KeyType, generate_key
from authz.identity.secret_files import FILE_NAME, write_file, write_secret_files
from authz.identity.signed_document import seal, unseal

SERVER_DIRECTORY = "server"
"""Below an authority's: its own certificate."""
OWN_SECONDS = 60.0
"""A certificate that ends sooner is of no use to a command."""


def another_authority(
    ca: CertificateAuthority,
    name: str,
    now: float,
    *,
    key_type: KeyType = KeyType.ECDSA_P256,
    ttl_seconds: float = INTERMEDIATE_TTL_SECONDS,
) -> CertificateAuthority:
    """
    Make another authority below the same roots: intermediates of its own, the same states, never a root's key.

    Raises ValueError for a name that is taken or no name, and when the key of a root is not here.
    """
    if check_name(name) in {ca.name, *(other.name for other in ca.others)}:
        raise ValueError(f"there is an authority `{name}` already")
    lacking = [authority.id for authority in ca.authorities if authority.root_key is None]
    if lacking:
        raise ValueError(f"the key of the root `{lacking[0]}` is not here, so nothing below it can be signed")
    made = [
        replace(
            renew_intermediate(a, ca.trust_domain, now, ca.random, key_type=key_type, ttl_seconds=ttl_seconds),
            root_key=None,
            former=(),
        )
        for a in ca.authorities
    ]
    return CertificateAuthority(ca.trust_domain, tuple(made), ca.random, name=name, plan=ca.plan)


def sign_document(
    ca: CertificateAuthority,
    kind: str,
    payload: Mapping[str, Json],
    now: float,
    *,
    ttl_seconds: float = SVID_TTL_SECONDS,
) -> bytes:
    """Sign a document for the other authorities of this trust domain. Raises ValueError."""
    key, own = generate_key(), SpiffeId(ca.trust_domain, AUTHORITY_PATH)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    issued = ca.issue_svid(own, now, public_key=key.public_key(), ttl_seconds=ttl_seconds)
    return seal(kind, payload, issued.chain_pem, key)


def own_svid(directory: Path, now: float) -> tuple[Path, Path]:
    """
    Files of the authority's own certificate and key, by which it is known elsewhere; made if they will not do.

    An authority that serves renews them. Raises ValueError, OSError.
    """
    certificate, key = (
        directory / SERVER_DIRECTORY / f"{FILE_NAME}.crt",
        directory / SERVER_DIRECTORY / f"{FILE_NAME}.key",
    )
    try:
        if Delivered.read(certificate.read_bytes()).end > now + OWN_SECONDS and key.exists():
            return certificate, key
    except (FileNotFoundError, ValueError):  # none, or something else
        pass
    ca = CertificateAuthority.load(directory)
    issued = ca.issue_svid(SpiffeId(ca.trust_domain, AUTHORITY_PATH), now)
    return write_secret_files(directory / SERVER_DIRECTORY, FILE_NAME, issued.chain_pem, issued.key_pem)


def keep_announced(
    directory: Path, ca: CertificateAuthority, keys: JwtKeys, now: float, taken: Mapping[str, int] | None = None
) -> bytes:
    """
    Write our announcement anew if it would say something new; answer what is there. Raises ValueError, OSError.

    ``taken``: numbers of the entries and revocations in force; None: as was said before.
    """
    path, says = directory / OWN_FILE, _said(ca, keys)
    before: Mapping[str, Json] = {}
    try:
        data = path.read_bytes()
        before = unseal(KIND, data, ca.trust_bundle)
    except (FileNotFoundError, ValueError):  # none, or one below a root that was retired
        data = b""
    says["taken"] = dict[str, Json](taken) if taken is not None else before.get("taken", {})
    if {name: before[name] for name in before if name != "sequence"} == says:
        return data
    last = before.get("sequence")
    sequence = max(int(now * 1000), int(last) + 1 if isinstance(last, int) else 0)
    data = sign_document(ca, KIND, says | {"sequence": sequence}, now)
    write_file(path, data)
    return data


def _said(ca: CertificateAuthority, keys: JwtKeys) -> dict[str, Json]:
    own = TrustBundle(ca.trust_domain, ca.roots, jwt_keys=keys.public)
    signs = [c for authority in ca.authorities for c in (*authority.chain, *authority.former)]
    states: dict[str, Json] = {one.id: one.state.value for one in ca.authorities}
    states |= {one.id: TRUSTED for one in ca.trusted}
    return {
        "name": ca.name,
        "intermediates": b"".join(c.public_bytes(Encoding.PEM) for c in signs).decode(),
        "bundle": write_bundle_document(own, 0, 0).decode(),
        "states": states,
        "awaited": dict[str, Json]((one.id, one.awaited) for one in ca.trusted),
        "plan": ca.plan,
    }
