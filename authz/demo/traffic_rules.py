"""
Traffic rules of the demo: documents of the mesh description in a directory of their own, edited while it runs.

They are read beside the description and joined with it in ``mesh.yaml`` of the state directory, which everybody else
reads. Subdirectories are not looked into: ``examples/`` lies there.
"""

from dataclasses import replace
from pathlib import Path

from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.demo.layout import DemoError, Layout, describe
from authz.envoy.options import RenderOptions
from authz.envoy.render import modes_of, render_all
from authz.envoy.rendered_files import left_over
from authz.envoy.still_led_to import settle_seconds, write_below_proxies
from authz.identity.secret_files import write_file
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh

EXAMPLES = "examples"
"""A directory below, of files that are in force once they are copied out of it."""
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
    Read the traffic rules as they are now, and write ``mesh.yaml``, which the servers follow.

    Raises:
        DemoError: they cannot be used, or would need other processes than those that run; nothing was written.
    """
    mesh, joined = read_with_traffic("mesh.yaml", layout.alone, traffic_files(layout.traffic))
    if _processes(mesh) != _processes(layout.mesh):
        raise DemoError("workloads and their ports cannot change while the demo runs: start it again")
    write_file(layout.state / "mesh.yaml", joined.encode())
    return replace(layout, mesh=mesh)


def render_traffic(layout: Layout, engine: Engine, options: RenderOptions) -> int:
    """
    Write what a change of the rules changed; requests that run are led where their proxies know the way.

    Returns:
        How many files were written or removed. Raises LoadError, OSError.
    """
    files = render_all(layout.mesh, modes_of(engine), options)
    written = write_below_proxies(layout.state, files, settle_seconds(options))
    stale = left_over(layout.state, files)
    for name in stale:
        (layout.state / name).unlink(missing_ok=True)
    return len(written) + len(stale)


def why_not(error: Exception) -> str:
    """Say why rules are not in force, for people."""
    return describe(error.problems) if isinstance(error, LoadError) else str(error)


def _paths(directory: Path) -> list[Path]:
    if directory.name == EXAMPLES and not directory.exists():
        return []
    found = (path for path in directory.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _processes(mesh: Mesh) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((workload.name, tuple(workload.listening)) for workload in mesh.workloads)
