"""A change of the root that all authorities of a trust domain follow."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from authz.cli import terminal
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.common_ledger import read_common_ledger
from authz.control.authority.common_state import AUTHORITIES_KEY, HOLDERS_KEY, INTERMEDIATES_KEY, PLAN_KEY, CommonState
from authz.control.authority.holders import HolderReport, read_holder_report
from authz.control.authority.known_authorities import known_authorities
from authz.core.errors import SettingsError
from authz.identity.announcing import keep_announced
from authz.identity.ca import LOCK_FILE, CertificateAuthority
from authz.identity.jwt_keys import read_jwt_keys
from authz.identity.locked import locked
from authz.identity.registrar import Issuance
from authz.identity.rotation_plan import is_for, read_plan, sign_intermediate, write_plan
from authz.truth.truth_bucket import LEDGER, SECURITY, TruthBucket, TruthEntry
from authz.truth.truth_client import TruthChanged, TruthClient

NOBODY = "no proxy has said what it trusts: give --admin for every Envoy, or --unchecked"
STALE_SECONDS = 30.0
"""An authority that has reported nothing for so long is gone."""
PAUSE_SECONDS = 0.2
"""Between two looks at what the other authorities say."""


class CommonRoots:
    """One change of the root that all authorities follow; ``truth`` must have begun."""

    def __init__(self, truth: TruthClient, directory: Path, wait_seconds: float) -> None:
        """``directory``: of the authority that makes the change."""
        self._truth = truth
        self._directory = directory
        self._seconds = wait_seconds
        self._bucket = TruthBucket(truth, SECURITY)
        self._state = CommonState(truth, AuthorityFiles(directory))

    def load(self) -> CertificateAuthority:
        """The authority, after it has followed what others changed. Raises SettingsError when it cannot."""
        self._state.look()
        ca = self._loaded()
        self._check_followed(ca)
        return ca

    def publish(self, change: Callable[[CertificateAuthority], CertificateAuthority]) -> CertificateAuthority:
        """
        Make a change for all authorities, and then here; of two at the same time one is made.

        Raises ValueError when it cannot be made, SettingsError when somebody else was faster, OSError.
        """
        with locked(self._directory / LOCK_FILE):
            before = CertificateAuthority.load(self._directory)
            found = self._check_followed(before)
            changed = replace(change(before), plan=before.plan + 1)
            # Signed by what is trusted everywhere already: the new root is not, before this is known.
            data = write_plan(changed, time.time(), signed_by=before)
            try:
                self._bucket.update(PLAN_KEY, data, found.revision) if found else self._bucket.create(PLAN_KEY, data)
            except TruthChanged:
                raise SettingsError("somebody else changes the root at the same time; nothing was done") from None
            changed.save(self._directory)
        self._announce(changed)
        return changed

    def wait(self, what: str, is_done: Callable[[Mapping[str, str]], bool]) -> None:
        """
        Wait until every authority is as far as that; meanwhile sign the intermediates that they ask for.

        ``is_done`` is given an authority's states by id of a root. Exits with 3 and the names of those who are missing.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            self._state.look()
            ca = self._loaded()
            self._sign_awaited(ca)
            known = {other.name: other for other in ca.others}
            missing = [
                name
                for name in self._names()
                if name != ca.name and (name not in known or not is_done(known[name].states))
            ]
            if not missing:
                return
            if time.monotonic() >= deadline:
                for name in missing:
                    terminal.say(f"authority `{name}` {what}")
                self._tell_silent(missing)
                sys.exit(terminal.Exit.NO)
            time.sleep(PAUSE_SECONDS)

    def wait_for_holders(self, what: str, late: Callable[[HolderReport], tuple[str, ...] | None]) -> None:
        """Wait for every holder that any authority heard of lately, and for one if there is none."""
        deadline = time.monotonic() + self._seconds
        while True:
            self._state.look()
            missing = self._late_holders(late)
            if not missing:
                return
            if time.monotonic() >= deadline:
                for name in missing:
                    terminal.say(name if name == NOBODY else f"{name} {what}")
                sys.exit(terminal.Exit.NO)
            time.sleep(PAUSE_SECONDS)

    def _late_holders(self, late: Callable[[HolderReport], tuple[str, ...] | None]) -> list[str]:
        now, seen = time.time(), 0
        missing: list[str] = []
        for key, entry in self._bucket.entries(f"{HOLDERS_KEY}*").items():
            name = key.removeprefix(HOLDERS_KEY)
            try:
                report = read_holder_report(entry.value)
            except ValueError as error:
                raise SettingsError(f"what authority `{name}` reported cannot be read: {error}") from error
            if now - report.at > STALE_SECONDS:  # it died, and those who asked it ask others
                continue
            seen += report.seen
            found = late(report)
            missing += (f"some proxy at authority `{name}`",) if found is None else found
        return missing if seen else [NOBODY]

    def issued(self) -> Iterable[Issuance]:
        """What any authority recorded."""
        return read_common_ledger(TruthBucket(self._truth, LEDGER))

    def _check_followed(self, ca: CertificateAuthority) -> TruthEntry | None:
        """The plan, if this authority is as it says. Raises SettingsError."""
        found = self._bucket.get(PLAN_KEY)
        try:
            behind = found is not None and read_plan(found.value, ca.trust_bundle).sequence != ca.plan
        except ValueError as error:
            raise SettingsError(f"the plan for the roots is not believed: {error}") from error
        if behind:
            told = "; ".join(self._state.problems) or "another authority changes it now"
            raise SettingsError(f"this authority has not followed the last change of the root yet: {told}")
        return found

    def _loaded(self) -> CertificateAuthority:
        try:
            return CertificateAuthority.load(self._directory)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _names(self) -> list[str]:
        return sorted(key.removeprefix(AUTHORITIES_KEY) for key in self._bucket.entries(f"{AUTHORITIES_KEY}*"))

    def _tell_silent(self, missing: list[str]) -> None:
        for one in known_authorities(self._bucket):
            if one.name in missing and one.silent_seconds > STALE_SECONDS:
                terminal.remark(
                    f"`{one.name}` was last heard of {one.silent_seconds:.0f} seconds ago: if it will not come back, "
                    f"`authz ca authority forget {one.name}` with the same --ca and --truth"
                )

    def _sign_awaited(self, ca: CertificateAuthority) -> None:
        held = {authority.id for authority in ca.authorities if authority.root_key is not None}
        for other in ca.others:
            for root, awaited in other.awaited.items():
                key = f"{INTERMEDIATES_KEY}{other.name}.{root}"
                given = self._bucket.get(key)
                if root in held and (given is None or not is_for(given.value, awaited)):
                    self._bucket.put(key, sign_intermediate(ca, root, awaited, time.time()))
                    terminal.remark(f"signed an intermediate of authority `{other.name}` below {root}")

    def _announce(self, ca: CertificateAuthority) -> None:
        keep_announced(self._directory, ca, read_jwt_keys(self._directory), time.time())
        self._state.look()
