"""
The description beside the MeshConfig: who the workloads of the mesh are, whatever their sidecars say, and the limits of
their requests.

Only identity, labels and rate limits are read here. Whatever else a description has, or lacks, concerns
``authz mesh render``.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from authz.core.attributes import Workload
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.mesh.description import MeshRead, read_mesh_description
from authz.mesh.rate_limits import AppliedLimit
from authz.sources.policies.directory import read_file

_IDENTITY_FIELDS = {
    "WorkloadEntry": ("metadata", "spec.labels", "spec.serviceAccount"),
    "WorkloadGroup": ("metadata", "spec.metadata", "spec.template.labels", "spec.template.serviceAccount"),
}
"""The fields, by kind, that say who a workload is."""
_LIMITS = "BackendTrafficPolicy"


ReadDescription = Callable[[Iterable[tuple[str, bytes]]], MeshRead]
"""Reads the files of a description, as ``read_mesh_description``."""


class MeshDescribed(NamedTuple):
    """The parts of a description that a server follows."""

    workloads: tuple[Workload, ...] = ()
    limits: Mapping[Workload, tuple[AppliedLimit, ...]] = {}
    """Of the workloads that have any."""


def described_workloads(
    mesh_file: Path | None, data: bytes | None = None, more: Iterable[tuple[str, bytes]] = ()
) -> tuple[Workload, ...]:
    """The workloads alone, as ``described_mesh``."""
    return described_mesh(mesh_file, data, more).workloads


def described_mesh(
    mesh_file: Path | None,
    data: bytes | None = None,
    more: Iterable[tuple[str, bytes]] = (),
    read: ReadDescription = read_mesh_description,
) -> MeshDescribed:
    """
    Read the description; nothing without a file, or without WorkloadEntries.

    ``data``, if given, is the file's text; ``more`` are further files of the description with their texts; ``read``
    reads them all.

    Raises:
        LoadError: an entry's identity or labels are not usable, without which its sidecar's word would count again; or
            a rate limit is not.
    """
    if mesh_file is None:
        return MeshDescribed()
    if data is None:
        try:
            data = read_file(mesh_file)
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise LoadError([Problem(Severity.ERROR, "unreadable", message, Location(str(mesh_file)))]) from error
    mesh, problems = read([(str(mesh_file), data), *more])
    wrong = [
        problem
        for problem in problems
        if problem.path.startswith(_IDENTITY_FIELDS.get(problem.resource.partition(" ")[0], ()))
        or problem.resource.startswith(_LIMITS)
    ]
    if wrong:
        raise LoadError(wrong)
    limits = {described.workload: described.limits for described in mesh.workloads if described.limits}
    return MeshDescribed(tuple(described.workload for described in mesh.workloads), limits)
