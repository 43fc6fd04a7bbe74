"""
Keep the bundles of other trust domains current, as files: whoever trusts them follows the files (``read_any_bundle``).

    <directory>/<trust domain>.json    the last good bundle, replaced by rename
    <directory>/fetched.times          when each was fetched last

A refresh that fails leaves the last good bundle, for as long as ``MAX_AGE_SECONDS``; then the file says that nothing is
trusted. So it does when a trust domain is no longer listed. An older bundle than the one at hand is refused.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from authz.control.federation.bundle_fetch import by_environment
from authz.core.errors import FetchError
from authz.core.spiffe import TrustDomain
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import BundleDocument, read_any_bundle, read_bundle_document
from authz.identity.federation import Relationship
from authz.identity.secret_files import write_file

log = logging.getLogger("authz.federation")

DEFAULT_REFRESH_SECONDS = 300.0
"""Without a hint: "five minutes is recommended" (SPIFFE Federation 4.1)."""
MIN_REFRESH_SECONDS, MAX_REFRESH_SECONDS = 10.0, 24 * 3600.0
FIRST_RETRY_SECONDS = 10.0
"""While there is no bundle at all; otherwise a failed refresh waits for the next one (6.2)."""
MAX_AGE_SECONDS = 7 * 24 * 3600.0
"""As long as a key set for tokens is kept that cannot be refreshed (RA-39)."""
TIMES_FILE = "fetched.times"
NOTHING = b'{"keys": []}\n'
"""The document of a trust domain in which nothing is trusted."""

FetchBundle = Callable[[Relationship, TrustBundle | None], Awaitable[bytes]]


def bundle_file(directory: Path, trust_domain: TrustDomain) -> Path:
    """Where the bundle of a trust domain is kept."""
    return directory / f"{trust_domain}.json"


@dataclass(slots=True)
class BundleFollower:
    """``run`` for ever, or ``refresh`` once. ``clock``: seconds since the epoch."""

    relationships: tuple[Relationship, ...]
    directory: Path
    clock: Callable[[], float]
    fetch: FetchBundle = field(default_factory=lambda: by_environment(os.environ))
    on_change: Callable[[TrustDomain], None] = lambda _: None
    """Told of every bundle that differs from before."""
    failures: dict[TrustDomain, str] = field(default_factory=dict)
    """Why the last refresh failed, by trust domain; only of those whose did."""
    fetched_at: dict[TrustDomain, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Remember what a process before this one fetched, and end the trust in what is no longer listed.

        Raises OSError.
        """
        known = {relationship.trust_domain for relationship in self.relationships}
        try:
            kept = json.loads((self.directory / TIMES_FILE).read_bytes())
            times = {TrustDomain(str(name)): float(at) for name, at in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return
        self.fetched_at |= {domain: at for domain, at in times.items() if domain in known}
        for domain in times.keys() - known:
            if bundle_file(self.directory, domain).exists():
                write_file(bundle_file(self.directory, domain), NOTHING)
                log.warning("%s is no longer listed: nothing of it is trusted now", domain)
        if times.keys() - known:
            self._write_times()

    async def run(self) -> None:
        """Refresh each bundle for ever, at the pace that its owner asks for."""
        async with asyncio.TaskGroup() as group:
            for relationship in self.relationships:
                group.create_task(self._follow(relationship))

    async def _follow(self, relationship: Relationship) -> None:
        while True:
            try:
                pause = await self.refresh(relationship)
            except Exception:  # a mistake of ours must not end the following of others
                log.exception("the bundle of %s is not refreshed", relationship.trust_domain)
                pause = DEFAULT_REFRESH_SECONDS
            await asyncio.sleep(pause)

    async def refresh(self, relationship: Relationship) -> float:
        """Fetch one bundle and put it in force. Returns in how many seconds to do so again."""
        domain = relationship.trust_domain
        try:
            data = await self.fetch(relationship, self._endpoint_bundle(relationship))
            document = self._accept(relationship, data)
        except (FetchError, ValueError, OSError) as error:
            if self.failures.get(domain) != str(error):
                log.error("the bundle of %s is not refreshed, the last good one stays: %s", domain, error)
            self.failures[domain] = str(error)
            return self._give_up_in_time(relationship)
        self.failures.pop(domain, None)
        return _pause(document)

    def _accept(self, relationship: Relationship, data: bytes) -> BundleDocument:
        """Keep a document that is good, and not older than what there is. Raises ValueError, OSError."""
        domain = relationship.trust_domain
        path = bundle_file(self.directory, domain)
        document = read_bundle_document(domain, data)
        before = self._kept(relationship)
        newer, older = document.sequence, before[1].sequence if before is not None else None
        if newer is not None and older is not None and newer < older:
            raise ValueError(
                f"the endpoint has sequence {newer}, an older bundle than the one at hand ({older}); if that is meant, "
                f"remove `{path}`"
            )
        if before is None or before[0] != data:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_file(path, data)
            roots, keys = len(document.bundle.roots), len(document.bundle.jwt_keys)
            log.info("the bundle of %s is in force: %d roots, %d keys of tokens", domain, roots, keys)
            self.on_change(domain)
        self.fetched_at[domain] = self.clock()
        self._write_times()
        return document

    def _kept(self, relationship: Relationship) -> tuple[bytes, BundleDocument] | None:
        """The last good bundle; None when there is none, or none that can be read."""
        try:
            data = bundle_file(self.directory, relationship.trust_domain).read_bytes()
            return data, read_bundle_document(relationship.trust_domain, data)
        except (OSError, ValueError):
            return None

    def _endpoint_bundle(self, relationship: Relationship) -> TrustBundle | None:
        """
        What the endpoint's own trust domain is trusted by: the one fetched last, or else the one brought by hand.

        "The latest available bundle MUST be used to validate any subsequent connections" (5.2.2.4).
        """
        if relationship.endpoint_id is None:
            return None
        domain = relationship.endpoint_id.trust_domain
        for other in self.relationships:
            if other.trust_domain != domain:
                continue
            kept = self._kept(other)
            if kept is not None and kept[0] != NOTHING:
                return kept[1].bundle
            if other.first_bundle is not None:
                return read_any_bundle(domain, other.first_bundle.read_bytes())
        return None

    def _give_up_in_time(self, relationship: Relationship) -> float:
        domain, kept = relationship.trust_domain, self._kept(relationship)
        if kept is None:
            return FIRST_RETRY_SECONDS
        age = self.clock() - self.fetched_at.setdefault(domain, self.clock())
        if age > MAX_AGE_SECONDS and kept[0] != NOTHING:
            write_file(bundle_file(self.directory, domain), NOTHING)
            days = age / 86400
            log.error("the bundle of %s was not refreshed for %.0f days: nothing of it is trusted now", domain, days)
            self.on_change(domain)
        return _pause(kept[1])

    def _write_times(self) -> None:
        times = {known.name: at for known, at in sorted(self.fetched_at.items())}
        write_file(self.directory / TIMES_FILE, json.dumps(times).encode() + b"\n")


def _pause(document: BundleDocument) -> float:
    hint = DEFAULT_REFRESH_SECONDS if document.refresh_hint_seconds is None else document.refresh_hint_seconds
    return min(MAX_REFRESH_SECONDS, max(MIN_REFRESH_SECONDS, hint))
