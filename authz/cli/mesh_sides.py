"""The mesh files of ``authz diff``: one for both sides, or one for each, and the workloads that both describe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import click

from authz.analysis.sets.asked_workloads import AskedWorkload, targets_of
from authz.cli import policy_files
from authz.cli.revisions import Files, NoRevision, is_revision, read_named
from authz.cli.traffic_option import check_traffic
from authz.core.engine import Engine
from authz.core.errors import NOWHERE, LoadError
from authz.core.resources import MeshConfig
from authz.policy.mesh_config import read_mesh

if TYPE_CHECKING:
    from authz.mesh.nouns import MeshWorkload


@dataclass(frozen=True, slots=True)
class MeshSide:
    """The mesh file of one side, read."""

    name: str
    """The file with the settings, as it was named."""
    config: MeshConfig
    workloads: "tuple[MeshWorkload, ...]" = ()
    """Those that it describes; none where it is settings only."""

    @property
    def path(self) -> str:
        """The path to write into commands: of a revision, the path in the working tree."""
        return self.name.partition(":")[2] if is_revision(self.name) else self.name


class NamedDescription(NamedTuple):
    """What was named on the command line for one side; a name may be of a git revision."""

    mesh: str | None
    traffic: str | None


def sides_of(old: NamedDescription, new: NamedDescription) -> tuple[MeshSide | None, MeshSide | None]:
    """
    The mesh files of both sides; what is not named for ``new`` is that of ``old``.

    Raises:
        click.UsageError: there is no such file, it is a directory, only NEW has one, or ``traffic`` stands alone.
        LoadError: one is refused.
        OSError: one cannot be read.
    """
    if old.mesh is None:
        if new.mesh is not None:
            raise click.UsageError("--new-mesh needs the mesh file of OLD: name it with --mesh")
        check_traffic(old.mesh, old.traffic or new.traffic)
        return None, None
    before = _read_side(old.mesh, "--mesh", old.traffic, "--traffic")
    if new.mesh is None and new.traffic is None:
        return before, before
    after = _read_side(
        new.mesh or old.mesh, "--new-mesh" if new.mesh else "--mesh",
        new.traffic or old.traffic, "--new-traffic" if new.traffic else "--traffic",
    )  # fmt: skip
    # What only stands elsewhere is the same, and then nothing that depends on it is compared.
    return before, replace(after, config=before.config) if _means(before) == _means(after) else after


def _means(side: MeshSide) -> MeshConfig:
    providers = tuple(replace(provider, location=NOWHERE) for provider in side.config.extension_providers)
    return replace(side.config, extension_providers=providers)


def _read_side(name: str, option: str, traffic: str | None, traffic_option: str) -> MeshSide:
    """
    Read mesh settings or a mesh description, as it is or as it was at a git revision.

    Raises:
        click.BadParameter: there is no such file, or ``name`` is a directory.
        LoadError: it is refused.
        OSError: it cannot be read.
    """
    files = _named(name, option)
    if len(files) != 1:
        raise click.BadParameter(f"`{name}` is a directory; name the file", param_hint=option)
    files += _named(traffic, traffic_option) if traffic else []
    settings = policy_files.with_settings(files)
    config, problems = read_mesh(*settings)
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    where = name if settings is files[0] else settings[0]
    if not policy_files.has_workloads(files):
        return MeshSide(where, config)
    from authz.mesh.description import read_mesh_description  # only where workloads are described

    mesh, problems = read_mesh_description(files)
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return MeshSide(where, config, tuple(mesh.workloads))


def _named(name: str, option: str) -> Files:
    try:
        return read_named(name)
    except NoRevision as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def workloads_of(
    engines: Sequence[Engine], old: MeshSide | None, new: MeshSide | None
) -> tuple[list[AskedWorkload], list[str], list[str]]:
    """
    The workloads that both sides describe, else those that the policies tell apart.

    Returns:
        The workloads, what had to be left out, and what changes beside the answers to requests.
    """
    notes = list(_notes(old, new)) if old is not None and new is not None else []
    if old is None or new is None or not (old.workloads and new.workloads):
        if old is not None and new is not None and (old.workloads or new.workloads):
            notes.append(
                "one mesh file describes workloads, the other none: compared are those that policies tell apart"
            )
        return *targets_of(engines), notes
    before = {_name(one): one for one in old.workloads}
    after = {_name(one): one for one in new.workloads}
    callers = tuple(dict.fromkeys(str(one.spiffe_id) for one in (*new.workloads, *old.workloads)))
    found: list[AskedWorkload] = []
    left_out: list[str] = []
    for name, one in after.items():
        was = before.get(name)
        if was is None:
            notes.append(f"{name} is new: there is nothing to compare it with")
            continue
        if was.is_gateway is not one.is_gateway:
            left_out.append(f"{name} is a gateway on one side only, and sees requests in another way")
            continue
        ports = _ports(one)
        if was is not one:
            notes += _changes(name, was, one)
            ports = [port for port in ports if port in _ports(was)]
            if not ports and _ports(one) != _ports(was):
                left_out.append(f"{name} has no port that it had before")
                continue
        other = was.workload if was.workload != one.workload else None
        found.append(AskedWorkload(name, one.workload, one.is_gateway, tuple(ports), callers, other))
    notes += [f"{name} is gone: whatever called it is answered by nobody" for name in before if name not in after]
    return found, left_out, notes


def _name(one: "MeshWorkload") -> str:
    return f"{one.namespace}/{one.name}"


def _ports(one: "MeshWorkload") -> list[int]:
    return [*(port.number for port in one.inbound), *(server.port for server in one.servers)]


def _changes(name: str, was: "MeshWorkload", one: "MeshWorkload") -> Iterator[str]:
    """What changes of a workload that no answer of its own tells."""
    ports = [(word, sorted(set(a) - set(b))) for word, a, b in _both_ways(_ports(was), _ports(one))]
    for word, numbers in ports:
        if numbers:
            yield f"{name}: port {' and '.join(map(str, numbers))} {word}, and is not compared"
    if was.service_account != one.service_account:
        yield (
            f"{name} calls as service account `{one.service_account}`, and called as `{was.service_account}`: requests "
            "are compared with the same identity on both sides"
        )


def _both_ways(was: list[int], now: list[int]) -> Iterator[tuple[str, list[int], list[int]]]:
    yield "is new", now, was
    yield "is gone", was, now


def _notes(old: MeshSide, new: MeshSide) -> Iterator[str]:
    before, after = old.config, new.config
    if before.trust_domain != after.trust_domain:
        yield (
            f"the trust domain changes from `{before.trust_domain}` to `{after.trust_domain}`, and the certificates of "
            "workloads with it: requests are compared with the same identity on both sides"
        )
    handshake = [(set(one.trust_domains), one.skip_validate_trust_domain) for one in (before, after)]
    if handshake[0] != handshake[1]:
        yield "which trust domains a proxy accepts in the handshake changes (PA-13): that is not compared"
