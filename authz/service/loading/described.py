"""
The WorkloadEntries beside the MeshConfig: who the workloads of the mesh are, whatever their sidecars say.

Only identity and labels are read here. Whatever else a description has, or lacks, concerns ``authz mesh render``.
"""

from pathlib import Path

from authz.core.attributes import Workload
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.mesh.description import read_mesh_description
from authz.sources.policies.directory import read_file

_IDENTITY_FIELDS = ("metadata", "spec.labels", "spec.serviceAccount")


def described_workloads(mesh_file: Path | None, data: bytes | None = None) -> tuple[Workload, ...]:
    """
    Read the workloads; none without a file or without WorkloadEntries. ``data``, if given, is the text of the file.

    Raises:
        LoadError: an entry's identity or labels are not usable. Without it, its sidecar's word would count again.
    """
    if mesh_file is None:
        return ()
    if data is None:
        try:
            data = read_file(mesh_file)
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise LoadError([Problem(Severity.ERROR, "unreadable", message, Location(str(mesh_file)))]) from error
    mesh, problems = read_mesh_description([(str(mesh_file), data)])
    wrong = [
        problem
        for problem in problems
        if problem.resource.startswith("WorkloadEntry") and problem.path.startswith(_IDENTITY_FIELDS)
    ]
    if wrong:
        raise LoadError(wrong)
    return tuple(described.workload for described in mesh.workloads)
