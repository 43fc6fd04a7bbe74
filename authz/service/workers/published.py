"""
Policies that are published elsewhere: fetched before anything serves, then followed beside whatever serves.

Whoever reads policies is given a path in the cache and follows it as any directory.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import time

from authz.service.loading.revision_trial import make_trial
from authz.service.ports.log import Announce
from authz.settings.sections import PolicySettings
from authz.settings.settings import Settings
from authz.sources.published.opening import PublishedPolicies, open_follower
from authz.sources.published.policy_address import AddressKind, read_address


@contextmanager
def published_policies(settings: Settings, announce: Announce) -> Iterator[Settings]:
    """
    The settings with the paths at which the policies are; as they are when ``policies`` is a path itself.

    Raises:
        SettingsError: the source does not deliver, and nothing is kept of it.
    """
    address = read_address(settings.policies)
    if address.kind is AddressKind.PATH:
        yield settings
        return
    own = PolicySettings.of(settings)
    told = PublishedPolicies(own.cache, own.fleet, own.public_keys, own.signers, own.ca, own.headers, own.poll_seconds)
    trial = make_trial(settings.mesh, time, allow_empty=settings.allow_empty)
    follower, cache = open_follower(address, told, trial, clock=time, share=random.random)
    try:
        follower.begin()
        status = follower.status
        where = "kept on disk, the source does not deliver" if status.is_kept else "from the source"
        announce(f"policies  {address}: revision {status.revision}, {where}")
        follower.follow()
        mesh = cache.mesh if settings.mesh is None and cache.mesh.exists() else settings.mesh
        yield settings.model_copy(update={"policies": str(cache.policies), "mesh": mesh})
    finally:
        follower.stop()
