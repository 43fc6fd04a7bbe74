"""
Find the policies, the mesh description and the traffic rules that the demo runs.

In a checkout, or in any folder laid out like one, it runs those there. Elsewhere it lays the package's copy of them,
which pyproject's ``force-include`` makes, into ``authz-demo/`` of the working directory for the user to edit. Once they
are there, they are what is run.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from authz.demo.layout import DemoError

POLICIES, MESH, TRAFFIC = "policies", "envoy-configs/mesh.yaml", "traffic"
"""Where a checkout has them; the package has the same names below PACKAGED."""
FOLDER = "authz-demo"
CHECKOUT = Path(__file__).parents[2]
"""The checkout that holds this package, when one works on it; of an installed package, a folder without the files."""
PACKAGED = Path(__file__).parent / "files"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that the demo reads."""

    policies: Path
    mesh: Path
    note: str = ""
    """Where they come from, for people; empty in a checkout."""
    traffic: Path | None = None
    """More documents of the mesh description; None: there are none."""


def find_inputs(here: Path, *, to_edit: bool, checkout: Path = CHECKOUT, packaged: Path = PACKAGED) -> Inputs:
    """
    Look in the working directory, in its ``authz-demo/``, in the checkout and in the package, in this order.

    Args:
        here: the working directory.
        to_edit: lay a copy into ``authz-demo/`` where only the package has them; otherwise they are read there.

    Raises:
        DemoError: ``authz-demo/`` is something else, or cannot be written, or this package lacks its files.
    """
    if _has_both(here):
        return _of(here)
    folder = here / FOLDER
    if _has_both(folder):
        return _of(folder, f"policies and mesh description are those of {folder}/")
    if _has_both(checkout):
        return _of(checkout)
    if not _has_both(packaged):
        raise DemoError("this package has no demo files in it: install the wheel again, or name --policies and --mesh")
    if not to_edit:
        return _of(packaged)
    if folder.exists():
        missing = MESH if (folder / POLICIES).is_dir() else f"{POLICIES}/"
        raise DemoError(f"`{folder}` lacks {missing}: move it away, and the demo's files are copied there anew")
    _lay(packaged, folder)
    return _of(folder, f"copied policies and mesh description to {folder}/: edit them there")


def _of(root: Path, note: str = "") -> Inputs:
    traffic = root / TRAFFIC
    return Inputs(root / POLICIES, root / MESH, note, traffic if traffic.is_dir() else None)


def _has_both(root: Path) -> bool:
    return (root / POLICIES).is_dir() and (root / MESH).is_file()


def _lay(source: Path, folder: Path) -> None:
    """Copy the files whole or not at all; they are the user's, whatever modes the installed ones have."""
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name in (POLICIES, MESH, TRAFFIC):
                files = (
                    [source / name]
                    if (source / name).is_file()
                    else sorted(path for path in (source / name).rglob("*.yaml*") if path.is_file())
                )
                for file in files:
                    target = aside / "new" / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read_bytes())
            os.rename(aside / "new", folder)
        finally:
            shutil.rmtree(aside)
    except OSError as error:
        told = f"cannot copy the demo's files to `{folder}`: {error.strerror}; start it in a folder of your own"
        raise DemoError(told) from error
