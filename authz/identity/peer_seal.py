"""
What servers of the same SPIFFE ID tell each other by way of somebody whom they need not trust: signed documents.

Those that have a role in the truth by a name of their own, ``/authz/reader/web-1``, believe all others of that role.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.errors import AuthzError
from authz.core.spiffe import SpiffeId
from authz.identity.bundle import split_bundle
from authz.identity.keys import read_key
from authz.identity.signed_document import seal, unseal
from authz.identity.svid_validation import Rejection, identity_of_leaf, read_chain

_ROLE = re.compile(r"/authz/(?!ca\b|truth\b)[a-z0-9-]+(?=/|$)")
"""Of clients of the truth, whose members have a step more; authorities have none."""


class PeerSeal:
    """Signs by the certificate of this server, and believes those that have the same SPIFFE ID."""

    def __init__(self, kind: str, ca: Path, certificate: Path, key: Path) -> None:
        """
        PEM files, which are read again each time: SVIDs are short-lived.

        ``kind`` is signed, so that no document passes for one of another kind.
        """
        self._kind = kind
        self._ca, self._certificate, self._key = ca, certificate, key

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        """Sign a payload. Raises AuthzError when the files do not fit, OSError when they cannot be read."""
        try:
            key = read_key(self._key.read_bytes())
        except ValueError as error:
            raise AuthzError(f"`{self._key}`: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthzError(
                f"`{self._key}`: what servers tell each other is signed with ECDSA, as the keys of our SVIDs are"
            )
        chain = self._certificate.read_bytes()
        self._own(chain)
        return seal(self._kind, payload, chain, key)

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        """Read what one of the same SPIFFE ID or role signed. Raises ValueError, AuthzError, OSError."""
        own = self._own(self._certificate.read_bytes())
        bundle = split_bundle(own.trust_domain, self._ca.read_bytes())
        role = _ROLE.match(own.path)
        return unseal(self._kind, data, bundle, path=role[0] if role else own.path, now=now, has_members=bool(role))

    def _own(self, chain_pem: bytes) -> SpiffeId:
        chain = read_chain(chain_pem)
        found = chain if isinstance(chain, Rejection) else identity_of_leaf(chain[0].public_bytes(Encoding.DER))
        if isinstance(found, Rejection):
            raise AuthzError(f"`{self._certificate}`: {found.reason}")
        return found
