"""Files given to commands: policies and mesh settings, read and compiled as the running service does."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from authz.core.compiler import compile_as_needed
from authz.core.engine import Engine
from authz.core.errors import LoadError, Problem, sort_problems
from authz.core.resources import MeshConfig
from authz.core.uncollected import WithoutCollector
from authz.documents.reading import read_documents
from authz.policy.mesh_config import read_mesh
from authz.policy.mesh_wrappings import search
from authz.policy.reader import read_policies
from authz.service.loading.snapshot import no_policies
from authz.sources.policies.directory import read_directory

if TYPE_CHECKING:
    from authz.mesh.nouns import Mesh

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Policies in a state to be asked. ``problems`` are warnings and remarks."""

    engine: Engine
    mesh: MeshConfig
    files: int
    problems: tuple[Problem, ...]


def read_bytes(path: str) -> bytes:
    """Read a file, or stdin for ``-``. Raises OSError."""
    if path == STDIN:
        return sys.stdin.buffer.read()
    return Path(path).read_bytes()


def read_paths(paths: Sequence[str], *, allow_empty: bool = False) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    """
    Read files, whole directories, or stdin; what is named twice is read once.

    Args:
        paths: as given on the command line.
        allow_empty: take directories without any file.

    Returns:
        The files, and the directories without any: with them the service would not start either.

    Raises:
        OSError: something cannot be read.
    """
    found: dict[str, bytes] = {}
    empty: list[Problem] = []
    for path in paths:
        if path == STDIN:
            found.setdefault("<stdin>", read_bytes(path))
            continue
        held = read_directory(Path(path))
        found |= {name: data for name, data in held if name not in found}
        if not held and not allow_empty:
            empty.append(no_policies(Path(path)))
    return list(found.items()), empty


def read_mesh_file(path: str | None) -> tuple[MeshConfig, tuple[Problem, ...]]:
    """Read mesh settings; Istio's defaults without a file. Raises OSError."""
    return read_mesh(path, Path(path).read_bytes()) if path else (MeshConfig(), ())


def description_files(mesh_file: str, traffic: str | None = None) -> list[tuple[str, bytes]]:
    """
    The files of a mesh description: that of ``--mesh``, and those of the file or directory ``traffic``.

    Raises OSError.
    """
    more = read_directory(Path(traffic)) if traffic else []
    return [(mesh_file, Path(mesh_file).read_bytes()), *more]


def has_workloads(files: Iterable[tuple[str, bytes]]) -> bool:
    """Whether files of a description describe workloads, and are not just mesh settings."""
    return any(b"WorkloadEntry" in data for _, data in files)


def with_settings(files: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The file of a description that holds the mesh settings: the first unless only another one has them."""
    named = [one for one in files if b"ConfigMap" in one[1]]
    if len(named) > 1:  # in all but one a comment, or another one's
        named = [(file, data) for file, data in named if any(search(read_documents(file, data, []), data, []))] or named
    return named[0] if named else files[0]


def settings_file(mesh_file: str | None, traffic: str | None = None) -> str | None:
    """The path of ``with_settings``, for the commands that are written into answers. Raises OSError."""
    return with_settings(description_files(mesh_file, traffic))[0] if mesh_file and traffic else mesh_file


def read_workloads(mesh_file: str, traffic: str | None = None) -> "Mesh":
    """
    Read a mesh description, and with it what stands apart in the file or directory ``traffic``.

    Raises:
        LoadError: the description is refused.
        OSError: it cannot be read.
    """
    return read_description(mesh_file, traffic)[0]


def read_description(mesh_file: str, traffic: str | None = None) -> "tuple[Mesh, tuple[Problem, ...]]":
    """As ``read_workloads``, with warnings and remarks."""
    from authz.mesh.description import read_mesh_description  # only where workloads are asked for by name

    mesh, problems = read_mesh_description(description_files(mesh_file, traffic))
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return mesh, problems


def load(
    paths: Sequence[str], mesh_file: str | None, traffic: str | None = None, *, for_one_request: bool = False
) -> Loaded:
    """
    Read and check everything; compiled is what the asked workload needs.

    Of the mesh description only the settings are read, wherever in ``mesh_file`` and ``traffic`` they stand.

    What the reader lets pass can be compiled (``tests/policy/test_properties.py`` holds it to that), and a policy that
    nevertheless cannot be compiled refuses when it is asked.

    Raises:
        LoadError: carries every problem of all files.
        OSError: something cannot be read.
    """
    mesh, problems = read_mesh_file(settings_file(mesh_file, traffic))
    files, empty = read_paths(paths)
    with WithoutCollector(for_good=True):
        result = read_policies(files, mesh if mesh_file else None)
    found = sort_problems((*problems, *empty, *result.problems))
    if any(problem.is_error for problem in found):
        raise LoadError(found)
    return Loaded(compile_as_needed(result.resources, mesh, indexed=not for_one_request), mesh, len(files), found)
