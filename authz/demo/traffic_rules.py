"""
Traffic rules of the demo: documents of the mesh description in a directory of their own, edited while it runs.

They are read beside the description and joined with it in ``mesh.yaml`` of the state directory, which everybody else
reads. Only names of YAML files count; those in ``examples/`` have another ending.
"""

import math
import time
from dataclasses import replace
from pathlib import Path

from authz.control.state_directory import StateDirectory
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.demo.layout import DemoError, Layout, describe
from authz.envoy.options import RenderOptions
from authz.envoy.render import modes_of
from authz.envoy.rendering import RenderedFiles, Rendering
from authz.identity.secret_files import write_file
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh

EXAMPLES, OFF = "examples", ".off"
"""A directory below, and how names of files end there that are not in force."""
TrafficFiles = list[tuple[str, str]]
"""Path and text of every file, in order."""
TrafficState = tuple[tuple[str, int, int], ...]
"""Path, time of change and size of every file: they differ when something has changed."""


def traffic_files(directory: Path | None) -> TrafficFiles:
    """Read the YAML files of a directory. Raises DemoError: it is none, or a file cannot be read."""
    if directory is None:
        return []
    try:
        return [(str(path), path.read_text(encoding="utf-8")) for path in _paths(directory)]
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"cannot read the traffic rules in `{directory}`: {error}") from error


def traffic_state(directory: Path | None) -> TrafficState:
    """Name, time and size of every file; a file that vanishes meanwhile is not in it."""
    found = []
    for path in _paths(directory) if directory is not None and directory.is_dir() else ():
        try:
            facts = path.stat()
        except OSError:
            continue
        found.append((str(path), facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def read_with_traffic(name: str, text: str, rules: TrafficFiles) -> tuple[Mesh, str]:
    """
    Read the mesh description together with its traffic rules.

    Returns:
        The mesh, and one text that describes it.

    Raises:
        DemoError: with every problem, at its place in its own file.
    """
    mesh, problems = read_mesh_description([(file, content.encode()) for file, content in ((name, text), *rules)])
    errors = describe(problems)
    if errors:
        raise DemoError(f"the mesh description cannot be used:\n{errors}")
    return mesh, "\n---\n".join([text, *(f"# {file}\n{content}" for file, content in rules)])


def read_again(layout: Layout) -> Layout:
    """
    Read the traffic rules as they are now, and write what is in force, which the servers follow.

    Raises:
        DemoError: they cannot be used, or would need other processes than those that run; nothing was written.
    """
    mesh, joined = read_with_traffic("mesh.yaml", layout.alone, traffic_files(layout.traffic))
    if _processes(mesh) != _processes(layout.mesh):
        raise DemoError("workloads and their ports cannot change while the demo runs: start it again")
    write_file(layout.state / layout.mesh_file, joined.encode())
    return replace(layout, mesh=mesh)


class TrafficRendering:
    """What is rendered again and again as rules change; requests that run are led where their proxies know the way."""

    def __init__(self, layout: Layout, options: RenderOptions) -> None:
        """Begin with what is in the state directory of ``layout``, where everything was rendered."""
        self._options = options
        self._rendering = Rendering()
        self._state = StateDirectory(layout.state, time.monotonic, settle_seconds=2 * options.poll_seconds)
        self._files: RenderedFiles = {}
        self._due = math.inf

    def render(self, layout: Layout, engine: Engine) -> int:
        """Write what a change of the rules changed; return how many files. Raises LoadError, OSError."""
        self._files = self._rendering.render(layout.mesh, modes_of(engine), self._options)
        return self._put()

    def retire(self) -> None:
        """Remove what has been kept for routes that have changed since, if it is time. Raises OSError."""
        if time.monotonic() >= self._due:
            self._put()

    def _put(self) -> int:
        put = self._state.put(self._files)
        self._due = math.inf if put.again_seconds is None else time.monotonic() + put.again_seconds
        return len(put.written) + len(put.removed)


def why_not(error: Exception) -> str:
    """Say why rules are not in force, for people."""
    return describe(error.problems) if isinstance(error, LoadError) else str(error)


def _paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise NotADirectoryError(f"`{directory}` is not a directory")
    found = (path for path in directory.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _processes(mesh: Mesh) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((workload.name, tuple(workload.listening)) for workload in mesh.workloads)
