"""Join tokens that several authorities share: of several who take one at the same time, one deletes its record."""

from authz.identity.join_tokens import UNKNOWN, JoinToken, TakenToken, digest_of, judge_token, write_token
from authz.identity.svid_validation import Rejection
from authz.truth.truth_bucket import TruthBucket
from authz.truth.truth_client import TruthChanged

TOKEN_KEY = "tokens."  # noqa: S105  # the beginning of a key in a bucket


class CommonTokens:
    """A ``TokenStore`` in the bucket of the authorities. Only digests are in it."""

    def __init__(self, bucket: TruthBucket) -> None:
        """Nothing is asked yet."""
        self._bucket = bucket

    def store(self, token: JoinToken) -> None:
        """Keep a token. Raises TruthAway, TruthRefused."""
        self._bucket.create(TOKEN_KEY + token.digest, write_token(token))

    def take(self, text: str, now: float) -> TakenToken | Rejection:
        """
        Take a token by deleting this very revision of its record.

        Raises TruthAway: nobody can say whether it was used; it may be spent, and is never good twice.
        """
        key = TOKEN_KEY + digest_of(text)
        found = self._bucket.get(key)
        if found is None:
            return Rejection(UNKNOWN)
        try:
            self._bucket.delete(key, found.revision)
        except TruthChanged:
            return Rejection(UNKNOWN)
        judged = judge_token(found.value, now)
        if isinstance(judged, Rejection):
            return judged
        return TakenToken(judged, _nothing, lambda: self._give_back(key, found.value))

    def _give_back(self, key: str, value: bytes) -> None:
        self._bucket.create(key, value)


def _nothing() -> None:
    """Whoever has taken it has spent it."""
