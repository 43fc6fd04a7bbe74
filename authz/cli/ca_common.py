"""What several authorities have in common, from the command line: entries, revocations, tokens, changes of the root."""

from pathlib import Path
from typing import TYPE_CHECKING

from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.join_tokens import JoinToken
from authz.identity.registrar import Issuance

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

PAUSE_SECONDS = 0.2
"""Between two looks at what the other authorities say."""


def push_rules(truth: "TruthClient", key: str, file: Path, own: TrustDomain, if_revision: int | None) -> int:
    """
    Replace the entries or revocations that all authorities have in common, if they are those that were looked at.

    Raises LoadError for what cannot be used, SettingsError when somebody else was faster, TruthAway, OSError.
    """
    from authz.control.authority.common_state import judge_rules
    from authz.truth.truth_bucket import SECURITY, TruthBucket
    from authz.truth.truth_client import TruthChanged

    data = file.read_bytes()
    if problems := judge_rules(key, data, own):
        raise LoadError(problems)
    if not data.strip():
        data = b"# none\n"  # an empty value would be a deleted one
    with truth:
        bucket = TruthBucket(truth, SECURITY)
        before = bucket.get(key)
        revision = before.revision if before is not None else 0
        try:
            if if_revision is not None and if_revision != revision:
                raise TruthChanged(f"it is revision {revision}")
            return bucket.update(key, data, revision) if before is not None else bucket.create(key, data)
        except TruthChanged as error:
            raise SettingsError(f"`{key}` were changed by somebody else, nothing was done: {error}") from None


def show_rules(truth: "TruthClient", key: str) -> tuple[bytes, int]:
    """What all authorities have in common, and its revision; 0 when there is nothing."""
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with truth:
        found = TruthBucket(truth, SECURITY).get(key)
    return (found.value, found.revision) if found is not None else (b"", 0)


def issued_anywhere(truth: "TruthClient") -> tuple[Issuance, ...]:
    """What any authority signed and refused, oldest first. Raises TruthAway, TruthRefused."""
    from authz.control.authority.common_ledger import read_common_ledger
    from authz.truth.truth_bucket import LEDGER, TruthBucket

    with truth:
        return tuple(read_common_ledger(TruthBucket(truth, LEDGER)))


def store_common_token(truth: "TruthClient", token: JoinToken) -> None:
    """Keep a join token where any authority takes it. Raises TruthAway, TruthRefused."""
    from authz.control.authority.common_tokens import CommonTokens
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with truth:
        CommonTokens(TruthBucket(truth, SECURITY)).store(token)
