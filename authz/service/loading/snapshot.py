"""
The policies in force: one compiled set with its mesh settings, replaced whole or kept. ``authz validate`` and the
running service load through the same function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.core.resources import MeshConfig, Resources
from authz.mesh.rate_limits import AppliedLimit
from authz.policy.memory import Memory, Resource
from authz.policy.mesh_config import read_mesh
from authz.policy.reader import read_policies
from authz.sources.policies.directory import read_directory, read_file


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An engine and what it was made of. ``problems`` are remarks and warnings only."""

    engine: Engine
    mesh: MeshConfig
    version: str
    """Policy version: the digest of everything that was read."""
    loaded_at: float
    """Seconds since the epoch."""
    problems: tuple[Problem, ...] = ()
    workloads: tuple[Workload, ...] = ()
    """As the mesh description has them; empty without one."""
    limits: Mapping[Workload, tuple[AppliedLimit, ...]] = field(default_factory=dict)
    """Rate limits of the workloads that have any."""
    mesh_text: bytes | None = field(default=None, repr=False, compare=False)
    """The mesh file that settings and workloads are from, for who follows it; None where there is none."""

    @property
    def resources(self) -> Resources:
        """The resources that the engine was compiled from."""
        return self.engine.resources


def load_snapshot(
    policies: Path,
    mesh_file: Path | None,
    now: float,
    on_resource: Callable[[Resource], None] | None = None,
    *,
    allow_empty: bool = False,
    memory: Memory | None = None,
    before: Engine | None = None,
    settings: Callable[[Path], tuple[MeshConfig, tuple[Problem, ...]]] | None = None,
) -> Snapshot:
    """
    Read everything, check everything, compile everything.

    Args:
        policies: a directory, read with its subfolders, or a single file.
        mesh_file: MeshConfig in Istio's form; None means Istio's defaults.
        now: becomes ``loaded_at``.
        on_resource, memory: as in ``read_policies``.
        allow_empty: accept files without a document, and a set without a policy; never an empty mesh file, which need
                not be named.
        before: as in ``compile_engine``.
        settings: reads those of the mesh file, for whoever has read them before.

    Raises:
        LoadError: carries every problem of all files, in order.
    """
    mesh = MeshConfig()
    problems: tuple[Problem, ...] = ()
    try:
        if mesh_file is not None:
            mesh, problems = settings(mesh_file) if settings else read_mesh(str(mesh_file), read_file(mesh_file))
        if policies.exists() and not policies.is_dir():
            files = [(str(policies), read_file(policies))]
        else:
            files = read_directory(policies)
    except OSError as error:
        raise LoadError([_unreadable(error, policies)]) from error
    if not files and not allow_empty:
        raise LoadError([no_policies(policies)])
    result = read_policies(files, mesh, on_resource, memory, allow_empty=allow_empty)
    found = (*problems, *result.problems)
    if any(problem.is_error for problem in found):
        raise LoadError(found)
    engine = compile_engine(result.resources, mesh, before)
    return Snapshot(engine, mesh, engine.version, now, found)


def no_policies(policies: Path) -> Problem:
    """No policy at all allows everything: a volume that is not mounted must not look like that."""
    return Problem(
        Severity.ERROR,
        "empty",
        "there is no policy file, and without policies everything would be allowed",
        Location(str(policies)),
        help="mount or write the policies; if none is what you mean, say so with `--allow-empty`",
    )


def _unreadable(error: OSError, policies: Path) -> Problem:
    place = str(error.filename or policies)
    return Problem(
        Severity.ERROR,
        "unreadable",
        f"cannot be read: {error.strerror or type(error).__name__}",
        Location(place),
        help="check the path and its permissions",
    )
