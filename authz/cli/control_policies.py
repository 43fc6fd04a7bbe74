"""
Where the policies of ``authz control`` come from: a path, or an address as ``authz serve`` takes it.

What is published elsewhere is fetched before anything is served, then followed in a thread beside it; whoever reads
policies is given paths in the cache.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import click

from authz.canary.canary_source import CanarySource
from authz.cli import terminal
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.mesh.description import read_mesh_description
from authz.service.loading.revision_trial import make_trial
from authz.sources.policies.directory import read_directory
from authz.sources.published.bundle_source import DEFAULT_MESH
from authz.sources.published.opening import PublishedPolicies, open_follower
from authz.sources.published.policy_address import AddressKind, read_address
from authz.sources.published.policy_cache import RevisionTrial
from authz.telemetry.status import PolicySourceStatus
from authz.truth.truth_address import TruthAccess

if TYPE_CHECKING:
    from authz.sources.published.candidate_follower import CandidateFollower

CACHE_DIRECTORY = "policies"
"""Below ``--keep``."""
_EXISTING = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--policies",
        metavar="ADDRESS",
        help="Policies: a directory, a file, https://…/bundle.tar.gz, file:///…/bundle.tar.gz, git+https://…#ref, or "
        "nats://HOST/FLEET with the options of --truth.",
    ),
    click.option(
        "--policies-cache",
        type=click.Path(file_okay=False, path_type=Path),
        help="Directory for the last good ones from an address; by default `policies` below --keep.",
    ),
    click.option("--policies-fleet", default="", help="For a bundle: the fleet that it must be for."),
    click.option("--policies-public-keys", multiple=True, type=_FILE, help="For a bundle: PEM; may be repeated."),
    click.option("--policies-signers", type=_EXISTING, help="For a repository: allowed signers, or a home of GnuPG."),
    click.option("--policies-ca", type=_FILE, help="PEM bundle that alone vouches for the server of the address."),
    click.option("--policies-headers", type=_FILE, help="File of headers for it, `name: value` lines."),
    click.option(
        "--policies-poll-seconds",
        type=click.FloatRange(1),
        default=30.0,
        show_default=True,
        help="How often it is asked, a fifth more or less.",
    ),
)


@dataclass(frozen=True, slots=True)
class PolicyPlace:
    """An address, and what goes with it."""

    address: str
    told: PublishedPolicies

    def kept_below(self, keep: Path, truth: TruthAccess | None = None) -> "PolicyPlace":
        """The same with a cache below a directory, unless it has one, and by what the servers of a truth know us."""
        cache, access = self.told.cache or keep / CACHE_DIRECTORY, truth or self.told.truth
        return replace(self, told=replace(self.told, cache=cache, truth=access))

    @property
    def may_have_mesh(self) -> bool:
        """Whether a mesh description may come from there, too."""
        return bool(self.address) and read_address(self.address).is_bundle


@dataclass(frozen=True, slots=True)
class OpenedPolicies:
    """Paths to follow, and how the source is."""

    policies: Path
    mesh: Path
    traffic: Path | None
    status: Callable[[], PolicySourceStatus | None] = lambda: None
    candidate: "CandidateFollower | None" = None
    """What may be pushed beside them."""

    @property
    def paths(self) -> tuple[Path, Path, Path | None]:
        """Policies, description, and more of it."""
        return self.policies, self.mesh, self.traffic

    def canary(self, by: str) -> CanarySource | None:
        """Where such a candidate is; ``by`` is who takes it back from here."""
        if self.candidate is None:
            return None
        self.candidate.by = by
        return CanarySource(self.candidate.path, published=self.candidate)


def policy_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; its function gets them as one argument, ``place``."""

    @wraps(command)
    def with_place(
        *arguments: Any,
        policies: str | None,
        policies_cache: Path | None,
        policies_fleet: str,
        policies_public_keys: tuple[Path, ...],
        policies_signers: Path | None,
        policies_ca: Path | None,
        policies_headers: Path | None,
        policies_poll_seconds: float,
        **others: Any,
    ) -> Any:
        told = PublishedPolicies(
            policies_cache,
            policies_fleet,
            policies_public_keys,
            policies_signers,
            policies_ca,
            policies_headers,
            policies_poll_seconds,
        )
        return command(*arguments, place=PolicyPlace(policies or "", told), **others)

    for option in reversed(_OPTIONS):
        with_place = option(with_place)
    return with_place


@contextmanager
def opened(place: PolicyPlace, mesh: Path | None, traffic: Path | None) -> Iterator[OpenedPolicies]:
    """
    The paths at which policies and description are, while the source is followed.

    Args:
        place: where policies are.
        mesh: the description; None for that of a bundle.
        traffic: more of it; None for that of a bundle, if its description counts.

    Raises:
        SettingsError: the source does not deliver, and nothing is kept of it.
        click.UsageError: a path is not there, or no description comes from anywhere.
    """
    address = read_address(place.address)
    if address.kind is AddressKind.PATH:
        path = _EXISTING.convert(place.address, None, None)
        assert mesh is not None, "asked for by the command"
        yield OpenedPolicies(path, mesh, traffic)
        return
    follower, cache = open_follower(address, place.told, _make_trial(mesh), clock=time, share=random.random)
    try:
        follower.begin()
        status = follower.status
        where = "kept on disk, the source does not deliver" if status.is_kept else "from the source"
        terminal.remark(f"policies  {status.source}: revision {status.revision}, {where}")
        if mesh is None:
            mesh, traffic = cache.mesh, traffic or cache.traffic
        follower.follow()
        yield OpenedPolicies(
            cache.policies, mesh, traffic, lambda: replace(follower.status, taken_at=cache.swapped_at()),
            follower.candidate,
        )  # fmt: skip
    finally:
        follower.stop()


def _make_trial(mesh: Path | None) -> RevisionTrial:
    """As a server's, and of the whole description where that is to come from there."""
    judge = make_trial(mesh, time)

    def judge_whole(folder: Path, in_force: Path | None) -> None:
        judge(folder, in_force)
        if mesh is not None:
            return
        own, traffic = folder / "mesh.yaml", folder / "traffic"
        if not own.exists() or own.read_bytes() == DEFAULT_MESH:
            where = Location(own.name)
            help_text = "build it with --mesh, or give --mesh here"
            raise LoadError([Problem(Severity.ERROR, "unreadable", "there is no description", where, help=help_text)])
        files = [(own.name, own.read_bytes()), *(read_directory(traffic) if traffic.is_dir() else ())]
        _, problems = read_mesh_description(files)
        if any(problem.is_error for problem in problems):
            raise LoadError(problems)

    return judge_whole
