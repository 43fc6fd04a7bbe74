"""
What several authorities have in common, in the bucket of the authorities, and how one of them keeps up with it.

    entries, revocations             as files, signed (``common_rules``)
    tokens.<digest>                  join tokens, signed by the authority that made them (``common_tokens``)
    authorities.<name>               what each announces (``identity.announcement``)
    plan                             the change of the root that all follow (``identity.rotation_plan``)
    intermediates.<name>.<root>      intermediates that were asked for
    holders.<name>                   what those trust who ask this authority (``holders``)

Whatever comes from there is verified or read before it counts, and what is broken leaves the last good one. Without the
truth certificates are renewed as before, by the entries and revocations seen last; join tokens are refused.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator

from authz.bundles.bundle_signatures import VerifyingKey
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.common_ledger import LedgerSender
from authz.control.authority.common_rules import CommonRules
from authz.control.authority.common_tokens import CommonTokens
from authz.control.authority.holders import Holders
from authz.core.attributes import Json
from authz.core.errors import AuthzError, SettingsError
from authz.identity.announcement import OWN_FILE, drop_forgotten, keep_other
from authz.identity.announcing import keep_announced
from authz.identity.authority import root_id
from authz.identity.ca import LOCK_FILE, CertificateAuthority
from authz.identity.jwt_keys import read_jwt_keys
from authz.identity.locked import locked
from authz.identity.rotation_plan import follow_plan, read_plan, take_intermediate
from authz.truth.truth_bucket import LEDGER, SECURITY, TruthBucket
from authz.truth.truth_client import CALL_SECONDS, TruthAway, TruthClient

log = logging.getLogger("authz.control.authority.server")  # the name that people search logs for

PLAN_KEY = "plan"
AUTHORITIES_KEY, INTERMEDIATES_KEY, HOLDERS_KEY = "authorities.", "intermediates.", "holders."
REPORT_SECONDS = 10.0
"""How often it is said what the holders of SVIDs trust, if nothing changes."""
LOOK_SECONDS = 2.0
"""The longest between two looks; a change in the bucket wakes at once."""


class CommonState:
    """``begin`` before the authority starts, then ``run`` beside it, ``stop``."""

    def __init__(
        self,
        client: TruthClient,
        files: AuthorityFiles,
        keys: tuple[VerifyingKey, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            client: not begun yet.
            files: of this authority; what is common is written where it reads.
            keys: one of them must have signed entries and revocations; none: whoever may write there is believed.
            clock: seconds since the epoch.
        """
        self._client = client
        self._files = files
        self._clock = clock
        self._bucket = TruthBucket(client, SECURITY)
        self._rules = CommonRules(files, client.address.fleet, keys)
        self.tokens = CommonTokens(self._bucket, files.directory)
        self.holders: Holders | None = None
        """Who asks this authority; None in a command beside it, which nobody asks."""
        self._reported: Json = None
        self._reported_at = 0.0
        self.problems: tuple[str, ...] = ()
        """What is not as it should be, for people."""

    def begin(self, wait_seconds: float = CALL_SECONDS) -> None:
        """
        Connect, and take what is common once.

        Raises:
            SettingsError: the truth does not answer, and nothing was kept from before: who is revoked is not known;
                or keys were left out by mistake.
        """
        if warning := self._rules.check():
            log.warning("%s", warning)
        self.holders = Holders()
        self._client.begin()
        self._client.wait(wait_seconds)
        self.look()
        if not all(path.exists() for path in self._files.common):
            self.stop()
            raise SettingsError(f"entries and revocations are not known yet: {'; '.join(self.problems)}")

    async def run(self) -> None:
        """Keep up, until cancelled."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        self._bucket.watch(">", lambda: _wake(loop, woken))
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await woken.wait()
            except TimeoutError:
                pass
            woken.clear()
            if await asyncio.to_thread(self.look):
                woken.set()

    def stop(self) -> None:
        """End the connection."""
        self._client.stop()

    def look(self) -> bool:
        """Take and give what is new, all that can be; say whether there is more to give."""
        found: list[str] = []
        has_more = False
        try:
            with locked(self._files.directory / LOCK_FILE):
                ca = CertificateAuthority.load(self._files.directory)
                if self._files.is_common:  # not in a command beside the authority, which has no keys
                    found += self._rules.take(self._bucket, ca.trust_domain, self._clock())
                found += self._take_announcements(ca)
                found += self._take_plan(CertificateAuthority.load(self._files.directory))
            self._announce(ca.name)
            if self.holders is not None:
                self._report_holders(ca.name, self.holders)
            has_more = LedgerSender(self._files.directory, ca.name, TruthBucket(self._client, LEDGER)).send()
        except TruthAway as error:
            found.append(f"{error}: entries and revocations are those seen last, and join tokens are refused")
        except (AuthzError, ValueError, OSError) as error:
            found.append(str(error))
        for problem in found:
            if problem not in self.problems:
                log.error("what the authorities have in common: %s", problem)
        self.problems = tuple(found)
        return has_more

    def _take_announcements(self, ca: CertificateAuthority) -> Iterator[str]:
        announced = self._bucket.entries(f"{AUTHORITIES_KEY}*")
        drop_forgotten(self._files.directory, (key.removeprefix(AUTHORITIES_KEY) for key in announced), ca.trust_bundle)
        for key, entry in announced.items():
            name = key.removeprefix(AUTHORITIES_KEY)
            if name == ca.name:
                continue
            try:
                keep_other(self._files.directory, entry.value, name, ca.trust_bundle)
            except ValueError as error:
                yield f"`{key}` is not believed: {error}"

    def _take_plan(self, ca: CertificateAuthority) -> Iterator[str]:
        changed, found = ca, self._bucket.get(PLAN_KEY)
        for root in ca.trusted:
            given = self._bucket.get(f"{INTERMEDIATES_KEY}{ca.name}.{root.id}")
            if given is not None:
                try:
                    changed = take_intermediate(changed, root, given.value, self._clock())
                except ValueError as error:
                    yield f"the intermediate below the root `{root.id}`: {error}"
        if found is not None:
            try:
                plan = read_plan(found.value, ca.trust_bundle)
                changed = follow_plan(changed, plan)
            except ValueError as error:
                yield f"the plan for the roots is not believed: {error}"
            else:
                if changed.plan < plan.sequence:
                    yield f"this authority has no intermediate below the active root `{plan.active}`"
        if changed is not ca:
            changed.save(self._files.directory)
            keep_announced(self._files.directory, changed, read_jwt_keys(self._files.directory), self._clock())

    def _announce(self, name: str) -> None:
        """Say what we are, as it was written down when it changed."""
        own = self._files.directory / OWN_FILE
        if own.exists():
            data, key = own.read_bytes(), AUTHORITIES_KEY + name
            found = self._bucket.get(key)
            if found is None or found.value != data:
                self._bucket.put(key, data)

    def _report_holders(self, name: str, holders: Holders) -> None:
        """Say what the holders trust, when that changed and every now and then: it is believed for a while only."""
        ca, now = CertificateAuthority.load(self._files.directory), self._clock()
        report = holders.report((root_id(root) for root in ca.roots), now)
        if report != self._reported or now - self._reported_at > REPORT_SECONDS:
            self._bucket.put(HOLDERS_KEY + name, json.dumps(report | {"at": now}).encode())
            self._reported, self._reported_at = report, now


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(woken.set)
