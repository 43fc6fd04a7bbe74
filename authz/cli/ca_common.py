"""What several authorities have in common, from the command line: entries, revocations, tokens, changes of the root."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from authz.bundles.bundle_signatures import BundleKey, VerifyingKey, key_id
from authz.bundles.manifest import BundleRefused, time_text
from authz.bundles.signed_rules import looks_signed, read_signed_rules, sign_rules
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.announcement import read_announcement
from authz.identity.bundle import TrustBundle
from authz.identity.join_tokens import JoinToken
from authz.identity.registrar import Issuance

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

PAUSE_SECONDS = 0.3
"""Between two looks at what the authorities say."""
CLOCKS_DIFFER_SECONDS = 24 * 3600
"""By more than this no clock of somebody who pushes is wrong."""


@dataclass(frozen=True, slots=True)
class RulesSigning:
    """By what entries or revocations are signed when they are pushed."""

    key: BundleKey
    expires_seconds: int | None
    """How long from now they may be taken; None: for ever."""
    number: int | None
    """None: of the clock, or the one after that which it replaces."""


@dataclass(frozen=True, slots=True)
class PushedRules:
    """What was pushed."""

    said: str
    """For people."""
    number: int
    """0: nobody signed it."""


def push_rules(
    truth: "TruthClient", key: str, file: Path, own: TrustDomain, if_revision: int | None, signing: RulesSigning | None
) -> PushedRules:
    """
    Replace the entries or revocations that all authorities have in common, if they are those that were looked at.

    ``truth`` must have begun. Raises LoadError for what cannot be used, TruthChanged when somebody else was faster,
    SettingsError when a signature is missing, BundleRefused, TruthAway, OSError.
    """
    from authz.control.authority.common_rules import judge_rules
    from authz.truth.truth_bucket import SECURITY, TruthBucket
    from authz.truth.truth_client import TruthChanged

    data = file.read_bytes()
    if problems := judge_rules(key, data, own):
        raise LoadError(problems)
    if not data.strip():
        data = b"# none\n"  # an empty value would be a deleted one
    said, number = "", 0
    bucket = TruthBucket(truth, SECURITY)
    before = bucket.get(key)
    if signing is not None:
        number = _next_number(signing, before.value if before is not None else b"", int(time.time()))
        data = _signed(data, signing, truth.address.fleet, key, number, int(time.time()))
        said = f", number {number}, signed by key {key_id(signing.key.public_key())}"
    elif before is not None and looks_signed(before.value):
        raise SettingsError(f"`{key}` are signed, and without --key authorities would not take them")
    revision = before.revision if before is not None else 0
    try:
        if if_revision is not None and if_revision != revision:
            raise TruthChanged(f"it is revision {revision}")
        new = bucket.update(key, data, revision) if before is not None else bucket.create(key, data)
    except TruthChanged as error:
        raise TruthChanged(f"`{key}` were changed by somebody else, nothing was done: {error}") from None
    return PushedRules(f"{key}: revision {new}{said}", number)


def wait_for_rules(
    truth: "TruthClient", key: str, number: int, bundle: TrustBundle, seconds: float
) -> tuple[tuple[str, float], ...]:
    """
    Wait until every authority has said, signed, that it has these in force, or newer ones.

    Return the names of those that have not after so many seconds, and for how long each was silent. ``truth`` must have
    begun. Raises TruthAway, TruthRefused.
    """
    from authz.control.authority.known_authorities import known_authorities
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    deadline = time.monotonic() + seconds
    while True:
        late = tuple(
            (one.name, one.silent_seconds)
            for one in known_authorities(TruthBucket(truth, SECURITY))
            if _number_at(one.name, one.announced, key, bundle) < number
        )
        if not late or time.monotonic() >= deadline:
            return late
        time.sleep(PAUSE_SECONDS)


def _number_at(name: str, announced: bytes, key: str, bundle: TrustBundle) -> int:
    try:
        told = read_announcement(announced, bundle)
    except ValueError:
        return 0
    return told.taken.get(key, 0) if told.name == name else 0


def _signed(data: bytes, signing: RulesSigning, fleet: str, key: str, number: int, now: int) -> bytes:
    until = now + signing.expires_seconds if signing.expires_seconds is not None else None
    return sign_rules(data, signing.key, fleet=fleet, kind=key, number=number, created=now, expires=until)


def _next_number(signing: RulesSigning, before: bytes, now: int) -> int:
    """
    The time, so that it grows although somebody took away what was there; more than before if clocks differ.

    A number far in the future counts only if the same key signed it: by another one, authorities would not take it.
    """
    if signing.number is not None:
        return signing.number
    try:
        found = read_signed_rules(before) if looks_signed(before) else None
    except BundleRefused:
        return now
    if found is None or (
        found.number > now + CLOCKS_DIFFER_SECONDS and not found.signed_by([signing.key.public_key()])
    ):
        return now
    return max(now, found.number + 1)


def show_rules(truth: "TruthClient", key: str, keys: tuple[VerifyingKey, ...]) -> tuple[bytes, str]:
    """
    What all authorities have in common, and what can be said of it.

    Raises BundleRefused when there are keys and none of them signed it; TruthAway.
    """
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with truth:
        found = TruthBucket(truth, SECURITY).get(key)
    if found is None:
        return b"", f"{key}: revision 0"
    said = f"{key}: revision {found.revision}"
    if not looks_signed(found.value):
        if keys:
            raise BundleRefused(f"{said}: nobody signed them")
        return found.value, f"{said}, not signed"
    signed = read_signed_rules(found.value)
    by = signed.signed_by(keys)
    if keys and not by:
        raise BundleRefused(f"{said}: none of the keys given here signed them")
    named = ", ".join(by or (one.key_id for one in signed.signatures))
    until = f", until {time_text(signed.expires)}" if signed.expires is not None else ""
    checked = "" if by else ", which --public-key checks"
    return signed.content, f"{said}, number {signed.number}{until}, signed by key {named}{checked}"


def issued_anywhere(truth: "TruthClient") -> tuple[Issuance, ...]:
    """What any authority signed and refused, oldest first. Raises TruthAway, TruthRefused."""
    from authz.control.authority.common_ledger import read_common_ledger
    from authz.truth.truth_bucket import LEDGER, TruthBucket

    with truth:
        return tuple(read_common_ledger(TruthBucket(truth, LEDGER)))


def store_common_token(truth: "TruthClient", token: JoinToken, directory: Path) -> None:
    """Keep a join token where any authority takes it, signed by that of ``directory``. Raises as its store."""
    from authz.control.authority.common_tokens import CommonTokens
    from authz.truth.truth_bucket import SECURITY, TruthBucket

    with truth:
        CommonTokens(TruthBucket(truth, SECURITY), directory).store(token)
