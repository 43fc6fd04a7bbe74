"""Whether a set of policies could be put in force, before anybody reads it."""

from collections.abc import Callable
from pathlib import Path

from authz.service.loading.described import described_mesh
from authz.service.loading.loader import Loader


def make_trial(
    mesh_file: Path | None, clock: Callable[[], float], *, allow_empty: bool = False
) -> Callable[[Path], None]:
    """
    Make a judge of folders that hold ``policies/`` and perhaps ``mesh.yaml``; it raises LoadError as a reload would.

    A set that is large is read by a process of its own, so that checks do not wait for it.

    Args:
        mesh_file: mesh settings that hold whatever the folder has; None for those of the folder.
        clock: seconds since the epoch.
        allow_empty: as the setting.
    """

    def judge(folder: Path) -> None:
        own = folder / "mesh.yaml"
        mesh = mesh_file if mesh_file is not None else own if own.exists() else None
        loader = Loader(allow_empty=allow_empty)
        try:
            loader.load(folder / "policies", mesh, clock())
        finally:
            loader.stop()
        described_mesh(mesh)

    return judge
