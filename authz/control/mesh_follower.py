"""
A rendered mesh kept in step with the policies while its Envoys run: ``authz mesh render --watch``.

Policies, mesh description and key sets are followed; what they change is rendered in a thread and renamed into place,
and what enforces goes before what leads to it. A change that cannot be used keeps every file as it is, and says so.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from authz.control.envoy_validation import Validator
from authz.control.extension_validation import judge_extensions
from authz.control.login_discovery import discover_logins
from authz.core.errors import LoadError
from authz.core.resources import JwtRule, MtlsMode
from authz.envoy.browser_login import kept_file
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.native.binary import EnvoyError
from authz.envoy.native.key_hints import POLL_SECONDS, Hinted
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import (
    KeyTexts,
    Native,
    keep_check,
    listener_rules,
    modes_of,
    network_filters,
    render_all,
    render_endpoints,
    render_filters,
    render_listeners,
)
from authz.envoy.rendered_files import left_over, make_login_keys, write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.login import NO_ISSUER, Login
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import read_key_set

_log = logging.getLogger("authz.render")
ISSUER_PATIENCE_SECONDS = 5.0
"""For the issuer of a login, which may be starting at the same time; none where what it said is kept."""
AGAIN_SECONDS = 1.0
"""The pause after files could not be written, for instance on a full disk."""


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key set as it was published, and how many usable keys are in it."""

    text: str
    usable: int
    skipped: tuple[str, ...] = ()
    """Which keys of the set are not used and why, one line each."""

    def __len__(self) -> int:
        return self.usable


async def fetch_key_texts(
    rules: Iterable[JwtRule],
    *,
    clock: Callable[[], float],
    ca_bundles: Mapping[str, str] | None = None,
    timeout_seconds: float = 5.0,
) -> tuple[KeyTexts, tuple[str, ...]]:
    """
    Fetch the key sets that rules need, once.

    Returns:
        Texts by ``JwtRule.keys_from``, and one line for each source that did not answer in time or in due form.
    """
    source = KeySource[KeyText, str](read_key_text, _text_of, clock=clock, ca_bundles=ca_bundles)
    source.update(rules)
    try:
        await source.wait_ready(timeout_seconds)
        missing = tuple(
            f"{key.source}: {key.last_error or f'no answer within {timeout_seconds:g} s'}"
            for key in source.status()
            if key.fetched_at is None
        )
        return {name: text for name, text in source.key_sets.items() if text}, missing
    finally:
        await source.close()


def read_key_text(text: str) -> KeyText:
    """Read a key set and count its usable keys. Raises ValueError for what is not a key set."""
    keys = read_key_set(text)
    return KeyText(text, len(keys), keys.skipped)


def _text_of(keys: KeyText | None, _fetched_at: float | None, _error: str) -> str:
    return keys.text if keys is not None else ""


class MeshFollower:
    """``start`` once in a running event loop, then ``run`` until cancelled, then ``close``."""

    def __init__(
        self,
        policies: Path,
        mesh_file: Path,
        out: Path,
        options: RenderOptions,
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
        ca_bundles: Mapping[str, str] | None = None,
        refresh_seconds: float = 1200.0,
        validator: Validator | None = None,
    ) -> None:
        """
        Args:
            policies: a directory, read with its subfolders, or a file.
            mesh_file: the description.
            out: the state directory.
            options: how it is rendered.
            clock: seconds since the epoch.
            say: is given one line for people about everything that was written.
            ca_bundles: PEM file by issuer or key URI, as the setting ``jwks_ca_bundles``.
            refresh_seconds: how often key sets without Cache-Control are fetched.
            validator: shows changed filters to an Envoy before proxies get them; None: nobody does.
        """
        self._mesh_file = mesh_file
        self._out = out
        self._options = options
        self._say = say
        self._validator = validator
        self._changed = asyncio.Event()
        self._snapshot: Snapshot | None = None
        self._rendered: _Rendered | None = None
        self._logins: tuple[Login, ...] = ()
        self._reloader = Reloader(policies, mesh_file, self._take, clock)
        self._keys = KeySource[KeyText, str](
            read_key_text,
            _text_of,
            clock=clock,
            refresh_seconds=refresh_seconds,
            ca_bundles=ca_bundles,
            on_change=lambda _: self._changed.set(),
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self, keys_timeout_seconds: float = 5.0) -> None:
        """
        Render everything once.

        Args:
            keys_timeout_seconds: how long to wait for key sets; tokens of those that have not come are refused
                until they do.

        Raises:
            LoadError: policies or description have problems; nothing was written.
            EnvoyError: Envoy refuses the filters; no file was touched.
            OSError: a file could not be written.
        """
        ready = asyncio.Event()
        self._watching = asyncio.create_task(self._reloader.run(ready), name="reload")
        await ready.wait()
        if not await self._reloader.load():
            raise LoadError(self._reloader.status.problems)
        if not await self._keys.wait_ready(keys_timeout_seconds):
            missing = ", ".join(key.source for key in self._keys.status() if key.fetched_at is None)
            self._say(f"missing   the key sets of {missing}: their tokens are refused")
        await self._render()

    async def run(self) -> None:
        """Render what changes, until cancelled. What cannot be written is reported and tried again."""
        hinting = asyncio.create_task(self._follow_hints(), name="key hints")
        try:
            await self._render_changes()
        finally:
            hinting.cancel()

    async def _follow_hints(self) -> None:
        """A refused token may be signed by a key published since: whoever reads the access logs says so."""
        hinted = Hinted(self._out)
        while True:
            for source in hinted.new(self._keys.key_sets):
                self._keys.hint(source)
            await asyncio.sleep(POLL_SECONDS)

    async def _render_changes(self) -> None:
        while True:
            await self._changed.wait()
            try:
                await self._render()
            except LoadError as error:
                for problem in error.problems:
                    _log.error("%s", problem)
                self._say("kept      every file as it was: the mesh description has problems")
                if any(problem.code == NO_ISSUER for problem in error.problems):  # it may come back by itself
                    asyncio.get_running_loop().call_later(ISSUER_PATIENCE_SECONDS, self._changed.set)
            except EnvoyError as error:
                _log.error("%s", error)
                self._say(f"kept      every file as it was: {error}")
            except OSError as error:
                _log.error("cannot write `%s`: %s", error.filename or self._out, error.strerror or error)
                await asyncio.sleep(AGAIN_SECONDS)
                self._changed.set()  # otherwise what denies would wait for somebody to change something else

    async def close(self) -> None:
        """Stop following; files stay as they are."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._keys.close()

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._keys.update(rule for item in snapshot.resources.request_authentications for rule in item.jwt_rules)
        self._changed.set()

    async def _render(self) -> None:
        self._changed.clear()
        snapshot, keys = self._snapshot, dict(self._keys.key_sets)
        assert snapshot is not None, "rendered only after a load"
        mesh = await asyncio.to_thread(_read, self._mesh_file)
        await self._discover(mesh)
        written, removed = await asyncio.to_thread(self._write, mesh, snapshot, keys)
        if written or removed:
            self._say(f"rendered  version {snapshot.version}: {len(written)} files written, {len(removed)} removed")

    async def _discover(self, mesh: Mesh) -> None:
        """Ask the issuers of browser logins when these change. Raises LoadError."""
        if mesh.logins == self._logins:
            return
        is_kept = all((self._out / kept_file(login)).exists() for login in mesh.logins)
        patience = 0.0 if is_kept else ISSUER_PATIENCE_SECONDS
        found, remarks = await discover_logins(
            mesh, self._out, beside=self._mesh_file.parent, patience_seconds=patience
        )
        for line in remarks:
            self._say(f"kept      {line}")
        self._options, self._logins = replace(self._options, logins=found), mesh.logins

    def _write(self, mesh: Mesh, snapshot: Snapshot, keys: KeyTexts) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Filters first: they take milliseconds, and what follows seconds, so it is rendered only where it differs."""
        native = Native(snapshot.engine, keys)
        options, kept = keep_check(mesh, snapshot.engine, self._options)
        for name, reasons in kept.items():
            self._say(f"check     `{name}` asks the authorization server: {'; '.join(reasons)}")
        before, mode_of = self._rendered, modes_of(snapshot.engine)
        if before is None or before.mesh != mesh:
            for problem in judge_extensions(mesh, mode_of, options, native, self._out, self._validator):
                self._say(f"extension {problem}")
        filters: dict[str, bytes] = {}
        for workload in mesh.workloads:
            if options.is_native(workload):
                filters |= render_filters(mesh, workload, native)
        shapes = {w.name: _shape(mesh, w, mode_of, native, options) for w in mesh.workloads}
        if self._validator is not None:
            known = {} if before is None else before.shapes
            network = {
                w.name: network_filters(w, native)
                for w in mesh.workloads
                if options.is_native(w) and known.get(w.name) != shapes[w.name]
            }
            if why := self._validator.validate(self._out, filters, network):
                self._say(f"unchecked {why}")
        self._rendered = None  # what is written in part is written again whole
        written = write_files(self._out, filters)
        is_dynamic = options.listeners is Listeners.DYNAMIC
        if before is None or before.mesh != mesh or (before.shapes != shapes and not is_dynamic):
            files = render_all(mesh, mode_of, options, native)
            for line in make_login_keys(self._out, mesh.logins):
                self._say(f"login     {line}")
            stale = left_over(self._out, files)
            written += write_files(self._out, files)
            for name in stale:
                (self._out / name).unlink(missing_ok=True)
            self._rendered = _Rendered(mesh, shapes)
            return written, stale
        for workload in mesh.workloads:
            if shapes[workload.name] != before.shapes.get(workload.name):
                written += write_files(self._out, render_listeners(mesh, workload, mode_of, options, native))
        if any(shape.plaintext != before.shapes[name].plaintext for name, shape in shapes.items()):
            for compose in (False, True):  # callers then speak plaintext, or no longer
                written += write_files(self._out, render_endpoints(mesh, mode_of, options, compose=compose))
        self._rendered = _Rendered(mesh, shapes)
        return written, ()


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that the listeners of a workload take from policies."""

    modes: tuple[tuple[int, MtlsMode], ...]
    rest: str
    """Network filters and what the access log must show, as text."""

    @property
    def plaintext(self) -> tuple[int, ...]:
        return tuple(port for port, mode in self.modes if mode is MtlsMode.DISABLE)


@dataclass(frozen=True, slots=True)
class _Rendered:
    mesh: Mesh
    shapes: Mapping[str, _Shape]


def _shape(mesh: Mesh, workload: MeshWorkload, mode_of: MtlsModeOf, native: Native, options: RenderOptions) -> _Shape:
    modes = tuple((port.number, mode_of(workload, port.number)) for port in workload.inbound)
    return _Shape(modes, listener_rules(workload, native) if options.is_native(workload) else "check")


def _read(mesh_file: Path) -> Mesh:
    mesh, problems = read_mesh_description([(str(mesh_file), mesh_file.read_bytes())])
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return mesh
