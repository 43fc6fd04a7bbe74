"""Wheels built from this tree, and environments that have one of them and nothing of the tree."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """The sdist of a tree and the wheel that is built from that sdist, with what is installed here."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def renumbered(sdist: Path, version: str, folder: Path) -> Path:
    """The tree of an sdist, under another version."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    project = tree / "pyproject.toml"
    text, count = re.subn(r'^version = ".*"$', f'version = "{version}"', project.read_text(), count=1, flags=re.M)
    assert count == 1
    project.write_text(text)
    return tree


def install(wheel: Path, folder: Path) -> Path:
    """
    Make an environment with a wheel in it; its dependencies are those of the tests, so that nothing is fetched.

    Returns:
        The folder of its programs.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # As a plain line, so that our own editable installation, a .pth file there, is not followed.
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs


def outside(folder: Path) -> Path:
    """An empty folder to work in."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
