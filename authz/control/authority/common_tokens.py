"""
Join tokens that several authorities share: of several who take one at the same time, one deletes its record.

The record is signed by the authority that made the token (``identity.signed_document``): whoever may write there, but
is no authority, makes nobody a token. Whoever puts a record back that was deleted does not deceive the authority that
took it, which remembers that (``spent_tokens``), but another one.
"""

import logging
import time
from contextlib import suppress
from pathlib import Path

from authz.control.authority.spent_tokens import SpentTokens
from authz.core.errors import AuthzError, SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.announcing import sign_document
from authz.identity.bundle import TrustBundle
from authz.identity.ca import CertificateAuthority
from authz.identity.certificate_template import SVID_TTL_SECONDS
from authz.identity.join_tokens import (
    UNKNOWN,
    JoinToken,
    TakenToken,
    digest_of,
    expiry_of,
    judge_token,
    write_token,
)
from authz.identity.signed_document import unseal
from authz.identity.svid_validation import Rejection
from authz.truth.truth_bucket import TruthBucket
from authz.truth.truth_client import TruthChanged

log = logging.getLogger("authz.control.authority.server")  # the name that people search logs for

TOKEN_KEY = "tokens."  # noqa: S105  # the beginning of a key in a bucket
KIND = "join-token"


class CommonTokens:
    """A ``TokenStore`` in the bucket of the authorities. Only digests are in it."""

    def __init__(self, bucket: TruthBucket, directory: Path) -> None:
        """``directory``: of the authority that signs, and by whose roots is judged. Nothing is asked yet."""
        self._bucket = bucket
        self._directory = directory
        self._spent = SpentTokens(directory)

    def store(self, token: JoinToken) -> None:
        """Keep a token. Raises TruthAway, TruthRefused, SettingsError, OSError."""
        now = time.time()
        told = {"digest": token.digest, "token": write_token(token).decode()}
        try:
            life = max(SVID_TTL_SECONDS, token.expires_at - now)
            record = sign_document(self._authority(), KIND, told, now, ttl_seconds=life)
        except ValueError as error:
            raise SettingsError(f"the token cannot be signed: {error}") from error
        self._bucket.create(TOKEN_KEY + token.digest, record)

    def take(self, text: str, now: float) -> TakenToken | Rejection:
        """
        Take a token by deleting this very revision of its record.

        Raises TruthAway: nobody can say whether it was used; it may be spent, and is never good twice. SettingsError.
        OSError: it could not be remembered that it was taken, and so it was put back.
        """
        digest, bundle = digest_of(text), self._authority().trust_bundle
        found = self._bucket.get(TOKEN_KEY + digest)
        if found is None:
            return Rejection(UNKNOWN)
        try:
            self._bucket.delete(TOKEN_KEY + digest, found.revision)
        except TruthChanged:
            return Rejection(UNKNOWN)
        judged = _judge(digest, found.value, bundle, now)
        if isinstance(judged, Rejection):
            return judged
        spiffe_id, expires_at = judged
        try:
            is_first = self._spent.note(digest, expires_at, now)
        except OSError:
            with suppress(AuthzError):  # then it is spent
                self._bucket.create(TOKEN_KEY + digest, found.value)
            raise
        if not is_first:
            log.error("a join token of %s that was used here was in the truth again: who runs its servers?", spiffe_id)
            return Rejection(UNKNOWN)
        return TakenToken(spiffe_id, _nothing, lambda: self._give_back(digest, found.value))

    def _authority(self) -> CertificateAuthority:
        try:
            return CertificateAuthority.load(self._directory)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _give_back(self, digest: str, record: bytes) -> None:
        self._spent.forget(digest)
        self._bucket.create(TOKEN_KEY + digest, record)


def _judge(digest: str, record: bytes, bundle: TrustBundle, now: float) -> tuple[SpiffeId, float] | Rejection:
    """Whom it is for, and until when."""
    try:
        told = unseal(KIND, record, bundle, now=now)
    except ValueError as error:
        return Rejection(f"no authority made the join token: {error}")
    if told.get("digest") != digest:
        return Rejection("no authority made the join token: its record is of another one")
    kept = str(told.get("token")).encode()
    judged = judge_token(kept, now)
    return judged if isinstance(judged, Rejection) else (judged, expiry_of(kept))


def _nothing() -> None:
    """Whoever has taken it has spent it."""
