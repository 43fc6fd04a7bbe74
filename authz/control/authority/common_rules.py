"""
Entries and revocations that all authorities have in common: taken from the bucket, judged, kept.

    <directory>/common/entries.yaml, revocations.txt    as they are in force
    <directory>/common/taken.json                       the number of the signed ones that were taken last

With keys, only what one of them signed is taken, for this fleet, and never an older one: then neither whoever runs the
servers of NATS nor another authority decides who gets which identity. What is refused leaves the last good ones.
Revocations that were kept back are as if they had not been made, and so an authority that has keys does not begin
without any: nobody could tell a list that is not there from one that was taken away.
"""

from collections.abc import Iterator
from pathlib import Path

from authz.bundles.bundle_signatures import VerifyingKey
from authz.bundles.manifest import BundleRefused, time_text
from authz.bundles.signed_rules import SignedRules, looks_signed, read_signed_rules
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.taken_rules import TakenRules, read_taken, write_taken
from authz.core.errors import AuthzError, LoadError, Problem, SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.registration import read_entries
from authz.identity.revocation import read_revocations
from authz.identity.secret_files import write_file
from authz.truth.truth_bucket import TruthBucket

ENTRIES_KEY, REVOCATIONS_KEY = "entries", "revocations"
UNSIGNED = (
    "entries and revocations in common are taken without a signature: whoever may write where they are decides who "
    "gets which identity; sign them, and give --entries-public-keys"
)


class RulesRefused(AuthzError):
    """Entries or revocations that are not taken; the message says why."""


class CommonRules:
    """Those of one authority, whose directory is locked while it takes."""

    def __init__(self, files: AuthorityFiles, fleet: str, keys: tuple[VerifyingKey, ...]) -> None:
        """``keys``: by which they must be signed; none: whoever may write there is believed."""
        self._paths = dict(zip((ENTRIES_KEY, REVOCATIONS_KEY), files.common, strict=True))
        self._record = files.taken
        self._fleet = fleet
        self._keys = keys

    def check(self) -> str:
        """
        A warning if nobody has to sign them.

        Raises:
            SettingsError: signed ones were taken before, so that the keys were left out by mistake.
        """
        if self._keys:
            return ""
        if read_taken(self._record):
            raise SettingsError(
                f"signed entries or revocations were taken before: give --entries-public-keys, or remove "
                f"`{self._record}` to believe whoever may write there"
            )
        return UNSIGNED

    def take(self, bucket: TruthBucket, own: TrustDomain, now: float) -> Iterator[str]:
        """
        Take what is new, and say what is wrong. ``own``: whose identities they give.

        Raises:
            SettingsError: what was taken before cannot be read.
            TruthAway, TruthRefused, OSError.
        """
        taken = read_taken(self._record)
        for key, path in self._paths.items():
            found = bucket.get(key)
            in_force = path.read_bytes() if path.exists() else None
            if found is None:
                yield from self._nothing(key, in_force, bucket.name)
            else:
                try:
                    content, judged = self._judge(key, found.value, taken.get(key), now)
                    if content != in_force:
                        refuse_rules(key, content, own)
                    if judged is not None and judged != taken.get(key):  # first: a crash after it must not lead back
                        taken[key] = judged
                        _write(self._record, write_taken(taken))
                    if content != in_force:
                        _write(path, content)
                except RulesRefused as error:
                    yield f"`{key}` cannot be used, the last ones stay in force: {error}"
            last = taken.get(key)
            if self._keys and last is not None and last.expires is not None and now >= last.expires:
                yield f"`{key}` in force are good until {time_text(last.expires)} only: push newer ones"

    def _nothing(self, key: str, in_force: bytes | None, bucket: str) -> Iterator[str]:
        if in_force:
            yield f"`{key}` are gone from {bucket}; the last ones stay in force"
        elif in_force is None and self._keys and key == REVOCATIONS_KEY:
            yield "no `revocations` are signed yet: `authz ca revocation push FILE --key KEY`, where FILE may be empty"
        elif in_force is None:
            _write(self._paths[key], b"")

    def _judge(self, key: str, data: bytes, last: TakenRules | None, now: float) -> tuple[bytes, TakenRules | None]:
        """The text, and what is to be remembered of it. Raises RulesRefused."""
        if not self._keys:
            return plain_rules(data), None
        if not looks_signed(data):
            raise RulesRefused(f"nobody signed them: `authz ca {_command(key)} push FILE --key KEY`")
        found = _read(data)
        if not found.signed_by(self._keys):
            named = ", ".join(f"`{one.key_id}`" for one in found.signatures) or "nobody"
            raise RulesRefused(f"none of the keys given here signed them; they name {named}")
        if found.fleet != self._fleet:
            raise RulesRefused(f"they are for the fleet `{found.fleet}`, and this is `{self._fleet}`")
        if found.kind != key:
            raise RulesRefused(f"they are signed as `{found.kind}`")
        if last is not None and last.fleet == found.fleet:
            if found.number < last.number:
                raise RulesRefused(f"number {found.number} is older than {last.number}, which was taken")
            if found.number == last.number and found.digest != last.digest:
                raise RulesRefused(f"others were taken with the same number {found.number}")
        is_new = last is None or last.digest != found.digest
        if is_new and found.expires is not None and now >= found.expires:
            raise RulesRefused(f"they expired at {time_text(found.expires)}")
        return found.content, TakenRules(found.fleet, found.number, found.digest, found.expires)


def plain_rules(data: bytes) -> bytes:
    """The text of signed or unsigned ones, whoever signed it. Raises RulesRefused."""
    return _read(data).content if looks_signed(data) else data


def refuse_rules(key: str, data: bytes, own: TrustDomain) -> None:
    """Check a text of entries or revocations. Raises RulesRefused with every problem."""
    if problems := judge_rules(key, data, own):
        raise RulesRefused("; ".join(str(problem) for problem in problems))


def judge_rules(key: str, data: bytes, own: TrustDomain) -> tuple[Problem, ...]:
    """Every problem of entries or revocations. Never raises on content."""
    try:
        if key == ENTRIES_KEY:
            return read_entries(key, data, own)[1]
        return read_revocations(key, data.decode(errors="replace"))[1]
    except LoadError as error:
        return error.problems


def _read(data: bytes) -> SignedRules:
    try:
        return read_signed_rules(data)
    except BundleRefused as error:
        raise RulesRefused(str(error)) from error


def _command(key: str) -> str:
    return "entry" if key == ENTRIES_KEY else "revocation"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o755)
    write_file(path, data)
