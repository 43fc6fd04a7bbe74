"""Whether a revision of policies could be put in force, before anybody reads it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from authz.core.errors import LoadError
from authz.service.loading.described import described_mesh
from authz.service.loading.loader import Loader
from authz.service.loading.losses import losses
from authz.service.loading.snapshot import Snapshot


def make_trial(
    mesh_file: Path | None, clock: Callable[[], float], *, allow_empty: bool = False
) -> Callable[[Path, Path | None], None]:
    """
    Make a judge of a folder that holds ``policies/`` and perhaps ``mesh.yaml``, and of the one that is in force.

    It raises LoadError as a reload would, for what is lost between the two as well. A set that is large is read by a
    process of its own, so that checks do not wait for it.

    Args:
        mesh_file: mesh settings that hold whatever the folder has; None for those of the folder.
        clock: seconds since the epoch.
        allow_empty: as the setting.
    """

    def load(folder: Path) -> Snapshot:
        mesh = mesh_of(folder)
        loader = Loader(allow_empty=allow_empty)
        try:
            snapshot = loader.load(folder / "policies", mesh, clock())
        finally:
            loader.stop()
        return replace(snapshot, workloads=described_mesh(mesh).workloads)

    def mesh_of(folder: Path) -> Path | None:
        own = folder / "mesh.yaml"
        return mesh_file if mesh_file is not None else own if own.exists() else None

    def judge(folder: Path, in_force: Path | None) -> None:
        after = load(folder)
        if allow_empty or in_force is None:
            return
        try:
            before = load(in_force)
        except LoadError:  # what is in force and does not load any more has nothing to lose
            return
        lost = tuple(losses(before, after, folder / "policies", mesh_of(folder)))
        if lost:
            raise LoadError(lost)

    return judge
