"""From an address and what goes with it to a source and its cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from authz.core.errors import SettingsError
from authz.sources.published.bundle_source import BundleSource, BundleTrust
from authz.sources.published.delivery import PolicySource
from authz.sources.published.git_source import GitSource
from authz.sources.published.policy_address import AddressKind, PolicyAddress
from authz.sources.published.policy_cache import PolicyCache, RevisionTrial
from authz.sources.published.policy_follower import PolicyFollower
from authz.truth.truth_address import TruthAccess, read_truth_address


@dataclass(frozen=True, slots=True)
class PublishedPolicies:
    """What is said of a source beside its address."""

    cache: Path | None = None
    fleet: str = ""
    public_keys: Sequence[Path] = ()
    signers: Path | None = None
    """For repositories: file of allowed signers of SSH, or a home of GnuPG; None takes unsigned commits."""
    ca: Path | None = None
    headers: Path | None = None
    poll_seconds: float = 30.0
    truth: TruthAccess = TruthAccess()  # noqa: RUF009  # frozen
    """For the truth of a fleet: by what its servers and we know each other."""


def open_follower(
    address: PolicyAddress,
    told: PublishedPolicies,
    trial: RevisionTrial,
    *,
    clock: Callable[[], float],
    share: Callable[[], float],
) -> tuple[PolicyFollower, PolicyCache]:
    """
    Open the cache and make what asks the source; nothing is asked yet. Arguments are those of ``PolicyFollower``.

    Raises:
        SettingsError: the address is a path, or what goes with it cannot be used.
    """
    if address.kind is AddressKind.PATH:
        raise SettingsError(f"`{address}` is a path, and is read as it is")
    if told.cache is None:
        raise SettingsError(
            f"policies from {address} need a directory for the last good ones: the setting `policies_cache`"
        )
    cache = PolicyCache(told.cache)
    source: PolicySource
    pushed = None
    if address.kind is AddressKind.GIT:
        repository = cache.directory / "repository.git"
        source = GitSource(address, repository, signers=told.signers, ca=told.ca, headers_file=told.headers)
    elif address.kind is AddressKind.TRUTH:
        where = read_truth_address(address.place)
        if told.fleet and told.fleet != where.fleet:
            raise SettingsError(f"{address} is of the fleet `{where.fleet}`, and `policies_fleet` is `{told.fleet}`")
        try:
            from authz.sources.published.candidate_follower import CandidateFollower
            from authz.sources.published.truth_source import TruthSource
        except ModuleNotFoundError:
            raise SettingsError(f"{address} needs the client of NATS: pip install 'authz-mesh[fleet]'") from None
        trust = BundleTrust.of(where.fleet, told.public_keys)
        source = truth = TruthSource(where, told.truth, trust)
        pushed = CandidateFollower(truth.revisions, trust, cache, trial, clock)
    else:
        trust = BundleTrust.of(told.fleet, told.public_keys)
        source = BundleSource(address, trust, ca=told.ca, headers_file=told.headers)
    cache.open()
    follower = PolicyFollower(
        source, cache, trial, shown=str(address), clock=clock, share=share, poll_seconds=told.poll_seconds
    )
    if pushed is not None:
        try:
            pushed.begin()
        except OSError as error:
            follower.stop()
            raise SettingsError(f"the policy cache `{error.filename or cache.directory}`: {error.strerror}") from error
        pushed.wake, follower.candidate = follower.wake, pushed
    return follower, cache
