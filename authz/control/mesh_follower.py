"""
A rendered mesh kept in step with the policies while its Envoys run: ``authz mesh render --watch``.

Policies, mesh description and key sets are followed; what they change is rendered in a thread and renamed into place,
and what enforces goes before what leads to it. A change that cannot be used keeps every file as it is, and says so.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from authz.control.envoy_validation import Validator
from authz.control.extension_validation import judge_extensions
from authz.control.key_texts import KeyText, read_key_text, text_of
from authz.control.login_discovery import discover_logins
from authz.control.state_directory import Put, StateDirectory
from authz.core.errors import LoadError, Severity
from authz.core.resources import MtlsMode
from authz.envoy.browser_login import kept_file
from authz.envoy.filter_rendering import FilterRendering
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.native.binary import EnvoyError
from authz.envoy.native.key_hints import POLL_SECONDS, Hinted
from authz.envoy.options import RenderOptions
from authz.envoy.render import (
    KeyTexts,
    Native,
    keep_check,
    listener_rules,
    modes_of,
    network_filters,
)
from authz.envoy.rendered_files import make_login_keys, write_files
from authz.envoy.rendering import Rendering
from authz.mesh.description import DescriptionReader
from authz.mesh.login import NO_ISSUER, Login
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from authz.sources.keys.source import KeySource
from authz.sources.policies.directory import read_directory
from authz.sources.policies.watching import watch

_log = logging.getLogger("authz.render")
Deliver = Callable[[Mesh, Mapping[str, bytes], str], None]
"""Is given the mesh, every rendered file, and the version of the policies, in a thread."""
ISSUER_PATIENCE_SECONDS = 5.0
"""For the issuer of a login, which may be starting at the same time; none where what it said is kept."""
AGAIN_SECONDS = 1.0
"""The pause after files could not be written, for instance on a full disk."""


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
        traffic: Path | None = None,
        deliver: Deliver | None = None,
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
            traffic: more of the description: a directory, read with its subfolders, or a file.
            deliver: is given what was rendered in place of the state directory. What it raises is as if a file could
                not be written.
        """
        self._mesh_file = mesh_file
        self._out = out
        self._options = options
        self._say = say
        self._validator = validator
        self._changed = asyncio.Event()
        self._snapshot: Snapshot | None = None
        self._traffic = traffic
        self._reader = DescriptionReader()
        self._rendering = Rendering()
        self._filters = FilterRendering()
        self._deliver = deliver
        self._problem = ""
        self._delivered: Mapping[str, bytes] = {}
        self._state = StateDirectory(out, clock, settle_seconds=2 * options.poll_seconds)
        self._rendered: _Rendered | None = None
        self._logins: tuple[Login, ...] = ()
        self._warned: frozenset[str] = frozenset()
        self._reloader = Reloader(policies, mesh_file, self._take, clock)
        self._keys = KeySource[KeyText, str](
            read_key_text,
            text_of,
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
        beside = [asyncio.create_task(self._follow_hints(), name="key hints")]
        if self._traffic is not None:
            beside.append(asyncio.create_task(self._follow_traffic(self._traffic), name="traffic"))
        try:
            await self._render_changes()
        finally:
            for task in beside:
                task.cancel()

    async def _follow_traffic(self, traffic: Path) -> None:
        async for _ in watch([traffic]):
            self._changed.set()

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
                self._problem = ""
            except LoadError as error:
                self._problem = str(error)
                for problem in error.problems:
                    _log.error("%s", problem)
                self._say("kept      everything as it was: the mesh description has problems")
                if any(problem.code == NO_ISSUER for problem in error.problems):  # it may come back by itself
                    asyncio.get_running_loop().call_later(ISSUER_PATIENCE_SECONDS, self._changed.set)
            except EnvoyError as error:
                self._problem = str(error)
                _log.error("%s", error)
                self._say(f"kept      everything as it was: {error}")
            except OSError as error:
                self._problem = str(error)
                _log.error("cannot write `%s`: %s", error.filename or self._out, error.strerror or error)
                await asyncio.sleep(AGAIN_SECONDS)
                self._changed.set()  # otherwise what denies would wait for somebody to change something else

    @property
    def problem(self) -> str:
        """Why policies or description as they are now are not in force; empty when they are."""
        status = self._reloader.status
        return self._problem if status.is_ok else "; ".join(map(str, status.problems))

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
        mesh = await asyncio.to_thread(self._read)
        await self._discover(mesh)
        put = await asyncio.to_thread(self._write, mesh, snapshot, keys)
        if put.written or put.removed:
            counted = f"{len(put.written)} files written, {len(put.removed)} removed"
            self._say(f"rendered  version {snapshot.version}: {counted}")
        if put.again_seconds is not None:
            asyncio.get_running_loop().call_later(put.again_seconds, self._changed.set)

    def _read(self) -> Mesh:
        """The description and what is beside it. Raises LoadError, OSError."""
        files = [(str(self._mesh_file), self._mesh_file.read_bytes())]
        if self._traffic is not None:
            files += read_directory(self._traffic)
        mesh, problems = self._reader.read(files)
        if any(problem.is_error for problem in problems):
            raise LoadError(problems)
        warnings = frozenset(str(problem) for problem in problems if problem.severity is Severity.WARNING)
        for line in sorted(warnings - self._warned):
            self._say(f"warning   {line}")
        self._warned = warnings
        return mesh

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

    def _write(self, mesh: Mesh, snapshot: Snapshot, keys: KeyTexts) -> Put:
        """Render what differs, and put it in place. Raises LoadError, EnvoyError, OSError."""
        native = Native(snapshot.engine, keys)
        options, kept = keep_check(mesh, snapshot.engine, self._options)
        for name, reasons in kept.items():
            self._say(f"check     `{name}` asks the authorization server: {'; '.join(reasons)}")
        before, mode_of = self._rendered, modes_of(snapshot.engine)
        if before is None or before.mesh != mesh:
            for problem in judge_extensions(mesh, mode_of, options, native, self._out, self._validator, self._say):
                self._say(f"extension {problem}")
        filters = self._filters.render(mesh, options, native)
        shapes = {w.name: _shape(mesh, w, mode_of, native, options) for w in mesh.workloads}
        if self._validator is not None:
            known = {} if before is None else before.shapes
            network = {
                w.name: network_filters(w, native)
                for w in mesh.workloads
                if options.is_native(w) and known.get(w.name) != shapes[w.name]
            }
            shown = {name: one for name, one in filters.items() if self._delivered.get(name) is not one}
            if why := self._validator.validate(self._out, shown, network):
                self._say(f"unchecked {why}")
        # They take milliseconds, and what follows may take seconds.
        first = write_files(self._out, filters) if self._deliver is None else ()
        files = filters | self._rendering.render(mesh, mode_of, options, native)
        if before is None or before.mesh.logins != mesh.logins:
            for line in make_login_keys(self._out, mesh.logins):
                self._say(f"login     {line}")
        self._rendered = _Rendered(mesh, shapes)
        if self._deliver is not None:
            self._deliver(mesh, files, snapshot.version)
            self._delivered = files
            return Put((), (), None)
        put = self._state.put(files)
        return put._replace(written=first + put.written)


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that the listeners of a workload take from policies."""

    modes: tuple[tuple[int, MtlsMode], ...]
    rest: str
    """Network filters and what the access log must show, as text."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    mesh: Mesh
    shapes: Mapping[str, _Shape]


def _shape(mesh: Mesh, workload: MeshWorkload, mode_of: MtlsModeOf, native: Native, options: RenderOptions) -> _Shape:
    modes = tuple((port.number, mode_of(workload, port.number)) for port in workload.inbound)
    return _Shape(modes, listener_rules(workload, native) if options.is_native(workload) else "check")
