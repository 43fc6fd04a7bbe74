"""The mesh file as it was last read: while its text is the same, neither settings nor workloads are read again."""

from pathlib import Path

from authz.core.errors import Problem
from authz.core.resources import MeshConfig
from authz.mesh.description import DescriptionReader, read_mesh_description
from authz.policy.mesh_config import read_mesh
from authz.service.loading.described import MeshDescribed, described_mesh
from authz.sources.policies.directory import read_file
from authz.sources.policies.listing import FileState
from authz.sources.policies.looking import settled_state

SettingsRead = tuple[MeshConfig, tuple[Problem, ...]]
"""Settings of the mesh, and what is to be said of them."""


class MeshFile:
    """What one mesh file came to. Equal texts give the very objects of before."""

    def __init__(self, reader: DescriptionReader | None = None) -> None:
        """``reader`` reads the description in it: one by which others read it, too; None where only this one does."""
        self._read = read_mesh_description if reader is None else reader.read
        self._text: bytes | None = None
        self._state: tuple[FileState, ...] | None = None
        self._settings: SettingsRead | None = None
        self._described: MeshDescribed | None = None

    def text(self, path: Path | None) -> bytes | None:
        """The text as it is on disk now; None without a file that can be read."""
        if path is None:
            return None
        state = settled_state(path)
        if state is not None and state == self._state:
            return self._text
        try:
            text = read_file(path)
        except OSError:
            text = None
        if text != self._text:
            self._text, self._settings, self._described = text, None, None
        self._state = state if text is not None else None  # looked at before it was read
        return self._text

    def forget(self) -> None:
        """Read the text next time, whatever the times of its file say: they have lied."""
        self._state = None

    @property
    def known(self) -> bytes | None:
        """The text that was last read."""
        return self._text

    def settings(self, path: Path) -> SettingsRead:
        """The settings in the text that was last read. Raises OSError where none could be."""
        if self._text is None:
            return read_mesh(str(path), read_file(path))
        if self._settings is None:
            self._settings = read_mesh(str(path), self._text)
        return self._settings

    def described(self, path: Path | None, text: bytes | None) -> MeshDescribed:
        """As ``described_mesh``. Raises LoadError."""
        if text is None or text is not self._text:
            return described_mesh(path, text)
        if self._described is None:
            self._described = described_mesh(path, text, read=self._read)
        return self._described
