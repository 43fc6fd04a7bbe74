"""
Policies that are published elsewhere: fetched before anything serves, then followed beside whatever serves.

Whoever reads policies is given a path in the cache and follows it as any directory. Several servers inside one Envoy
share one follower, because a cache is that of one process.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import time
from typing import TYPE_CHECKING

from authz.service.loading.revision_trial import make_trial
from authz.service.ports.log import Announce
from authz.settings.sections import PolicySettings
from authz.settings.settings import Settings
from authz.sources.published.opening import PublishedPolicies, open_follower
from authz.sources.published.policy_address import AddressKind, read_address
from authz.sources.published.policy_cache import PolicyCache
from authz.sources.published.policy_follower import PolicyFollower
from authz.truth.truth_address import TruthAccess, read_truth_address

if TYPE_CHECKING:
    from authz.service.workers.taken_report import TakenReport


@dataclass(slots=True)
class _Shared:
    follower: PolicyFollower
    cache: PolicyCache
    report: "TakenReport | None" = None
    users: int = 0


_shared: dict[Path | None, _Shared] = {}
"""Followers of this process by the directory of their cache."""
_lock = Lock()


@contextmanager
def published_policies(settings: Settings, announce: Announce) -> Iterator[Settings]:
    """
    The settings with the paths at which the policies are; as they are when ``policies`` is a path itself.

    Raises:
        SettingsError: the source does not deliver, and nothing is kept of it.
    """
    if read_address(settings.policies).kind is AddressKind.PATH:
        yield settings
        return
    directory = settings.policies_cache
    with _lock:
        shared = _shared.get(directory) or _begin(settings)
        _shared[directory] = shared
        shared.users += 1
    status, cache = shared.follower.status, shared.cache
    where = "kept on disk, the source does not deliver" if status.is_kept else "from the source"
    announce(f"policies  {status.source}: revision {status.revision}, {where}")
    mesh = cache.mesh if settings.mesh is None and cache.mesh.exists() else settings.mesh
    pushed = shared.follower.candidate
    candidate = pushed.path if settings.candidate is None and pushed is not None else settings.candidate
    try:
        yield settings.model_copy(update={"policies": str(cache.policies), "mesh": mesh, "candidate": candidate})
    finally:
        with _lock:
            shared.users -= 1
            if not shared.users:
                del _shared[directory]
                if shared.report is not None:
                    shared.report.stop()
                shared.follower.stop()


def _begin(settings: Settings) -> _Shared:
    own = PolicySettings.of(settings)
    access = TruthAccess(settings.truth_ca, settings.truth_certificate, settings.truth_key, settings.truth_name)
    told = PublishedPolicies(
        own.cache, own.fleet, own.public_keys, own.signers, own.ca, own.headers, own.poll_seconds, access
    )
    trial = make_trial(settings.mesh, time, allow_empty=settings.allow_empty)
    address = read_address(settings.policies)
    follower, cache = open_follower(address, told, trial, clock=time, share=random.random)
    try:
        follower.begin()
    except BaseException:
        follower.stop()
        raise
    follower.follow()
    if address.kind is not AddressKind.TRUTH:
        return _Shared(follower, cache)
    from authz.service.workers.taken_report import TakenReport  # nats is slow to import

    place, has_own = read_truth_address(address.place), settings.candidate is not None
    return _Shared(follower, cache, TakenReport(place, access, follower, cache.directory, has_own_candidate=has_own))
