"""
What one authority of a trust domain tells the others: JSON, signed with a key that an SVID of the authority certifies.

    {"payload": base64 of a JSON object, "chain": PEM, "signature": base64}

So it may come by any way, and whoever only holds that way can neither forge nor change it. The key is made for one
document and thrown away: a document stays good for as long as its chain leads to a trusted root, even if its SVID has
expired, because an authority that died is believed in what it said last.
"""

import base64
import binascii
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from authz.core.attributes import Json
from authz.core.spiffe import AUTHORITY_PATH
from authz.identity.bundle import TrustBundle
from authz.identity.svid_validation import Rejection, examine, read_chain
from authz.tokens.json_text import read_object

MAX_BYTES = 1024 * 1024


def seal(kind: str, payload: Mapping[str, Json], chain_pem: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a payload. ``kind`` is signed, too, so that no document passes for one of another kind."""
    data = json.dumps(payload, sort_keys=True).encode()
    signature = key.sign(_signed(kind, data), ec.ECDSA(SHA256()))
    document = {
        "payload": base64.b64encode(data).decode(),
        "chain": chain_pem.decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def unseal(
    kind: str,
    data: bytes,
    bundle: TrustBundle,
    *,
    path: str = AUTHORITY_PATH,
    now: float | None = None,
    has_members: bool = False,
) -> Mapping[str, Json]:
    """
    Read what an authority of this trust domain signed, or whoever has another path in its SPIFFE ID.

    Args:
        kind: as it was sealed.
        data: the document.
        bundle: whom to trust.
        path: of the SPIFFE ID that must have signed.
        has_members: whoever has a path one step below may have signed it, too.
        now: the signer's certificate must be valid then, seconds since the epoch; None: whenever it signed.

    Raises:
        ValueError: with a reason that fits after a colon.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        document = read_object(data)
        payload, chain_pem, signature = (
            base64.b64decode(_text(document, "payload"), validate=True),
            _text(document, "chain"),
            base64.b64decode(_text(document, "signature"), validate=True),
        )
    except (ValueError, RecursionError, binascii.Error) as error:
        raise ValueError(f"it is not a signed document: {error}") from None
    examined = examine(chain_pem, {bundle.trust_domain: bundle})
    if isinstance(examined, Rejection):
        raise ValueError(f"its signer is not trusted: {examined.reason}")
    above, _, name = examined.spiffe_id.path.rpartition("/")
    if examined.spiffe_id.path != path and not (has_members and name and above == path):
        raise ValueError(
            f"`{examined.spiffe_id}` signed it, which is no authority"
            if path == AUTHORITY_PATH
            else f"`{examined.spiffe_id}` signed it, and not one of `{path}`"
        )
    if now is not None and (rejection := examined.at(now)) is not None:
        raise ValueError(f"its signer is not trusted: {rejection.reason}")
    chain = read_chain(chain_pem)
    assert not isinstance(chain, Rejection), "examined before"
    key = chain[0].public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, _signed(kind, payload), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise ValueError("its signature does not fit") from None
    try:
        return read_object(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its content is not a JSON object: {error}") from None


def _signed(kind: str, payload: bytes) -> bytes:
    return f"authz {kind} 1\n".encode() + payload


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise ValueError(f"it has no text `{name}`")  # content, not a mistake in a program
    return value
