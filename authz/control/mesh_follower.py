"""
A rendered mesh kept in step with the policies while its Envoys run: ``authz mesh render --watch``.

Policies, mesh description and key sets are followed; what they change is rendered in a thread and renamed into place,
and what enforces goes before what leads to it. A change that cannot be used keeps every file as it is, and says so.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time

from authz.control.canary_follower import CanaryFollower
from authz.control.envoy_validation import Validator
from authz.control.extension_validation import judge_extensions
from authz.control.key_texts import KeyText, follow_hints, read_key_text, text_of
from authz.control.login_discovery import discover_logins
from authz.control.mesh_in_force import ListenerShape, MeshInForce, shape
from authz.control.state_directory import Put, StateDirectory
from authz.core.errors import LoadError, Severity
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.touched import FiledWorkloads
from authz.envoy.browser_login import kept_file
from authz.envoy.filter_rendering import FilterRendering
from authz.envoy.native.binary import EnvoyError
from authz.envoy.options import RenderOptions
from authz.envoy.render import KeyTexts, Native, keep_check, modes_of, network_filters
from authz.envoy.rendered_files import make_login_keys, write_files
from authz.envoy.rendering import Rendering
from authz.mesh.description import DescriptionReader
from authz.mesh.login import NO_ISSUER, Login
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from authz.sources.keys.key_sharing import KeySharing
from authz.sources.keys.source import KeySource
from authz.sources.policies.directory import read_directory
from authz.sources.policies.watching import watch

_log = logging.getLogger("authz.render")
Deliver = Callable[[Mesh, Mapping[str, bytes], PoliciesByWorkload, tuple[MeshWorkload, ...] | None], None]
"""
Is given the mesh, every rendered file, the policies in force, a candidate among them, and the proxies whose own files
alone may be other than last time; None: any may. In a thread.
"""
ISSUER_PATIENCE_SECONDS = 5.0
"""For the issuer of a login, which may be starting at the same time; none where what it said is kept."""
AGAIN_SECONDS = 1.0
"""The pause after files could not be written, for instance on a full disk."""


class MeshFollower:
    """``start`` once in a running event loop, then ``run`` until cancelled, then ``close``."""

    read_at = 0.0, 0.0
    """When what is in force began to be read, seconds since the epoch: policies and description, and traffic."""

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
        sharing: KeySharing | None = None,
    ) -> None:
        """
        Args:
            policies: a directory, read with its subfolders, or a file; ``mesh_file``: the description.
            out: the state directory.
            options: how it is rendered.
            clock: seconds since the epoch.
            say: is given one line for people about everything that was written.
            ca_bundles: PEM file by issuer or key URI, as the setting ``jwks_ca_bundles``.
            refresh_seconds: how often key sets without Cache-Control are fetched.
            validator: shows changed filters to an Envoy before proxies get them; None: nobody does.
            traffic: more of the description: a directory, read with its subfolders, or a file.
            deliver: is given what was rendered in place of files; what it raises is as if these could not be written.
            sharing: with others of a fleet, one of which fetches key sets for all; None fetches by itself.
        """
        self._mesh_file, self._out = mesh_file, out
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
        self._delivered: dict[str, bytes] = {}
        self._in_force: MeshInForce | None = None
        self._state = StateDirectory(out, clock, settle_seconds=2 * options.poll_seconds)
        self._mesh: Mesh | None = None
        self._shapes: dict[str, ListenerShape] = {}
        self._logins: tuple[Login, ...] = ()
        self._warned: frozenset[str] = frozenset()
        # Two sets of files in turn would be read whole each time.
        reader = self._reader if traffic is None or (traffic.is_dir() and not any(traffic.iterdir())) else None
        self._reloader = Reloader(policies, mesh_file, self._take, clock, reader=reader, answers_requests=False)
        self._keys = KeySource[KeyText, str](
            read_key_text, text_of, clock=clock, refresh_seconds=refresh_seconds, ca_bundles=ca_bundles,
            on_change=lambda _: self._changed.set(), sharing=sharing,
        )  # fmt: skip
        self._watching: asyncio.Task[None] | None = None
        self.canary = CanaryFollower(None, policies, mesh_file, out, clock=clock, say=say)

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
        await self.canary.start(self._follow)
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
        beside = [asyncio.create_task(follow_hints(self._out, self._keys), name="key hints")]
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
        await self.canary.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._keys.close()

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._follow()

    def _follow(self) -> None:
        """Fetch the keys of what is there now, and render it."""
        if self._snapshot is None:
            return
        rules = [rule for item in self._snapshot.resources.request_authentications for rule in item.jwt_rules]
        self._keys.update([*rules, *self.canary.jwt_rules])
        self._changed.set()

    async def _render(self) -> None:
        self._changed.clear()
        snapshot, keys = self._snapshot, dict(self._keys.key_sets)
        assert snapshot is not None, "rendered only after a load"
        read_at = snapshot.loaded_at, time()
        mesh = await asyncio.to_thread(self._read, snapshot.mesh_text)
        if mesh is not self._mesh:
            await self._discover(mesh)
        put = await self.canary.put(snapshot, mesh, self._options, partial(self._write, mesh, keys))
        self.read_at = read_at
        if put.written or put.removed:
            counted = f"{len(put.written)} files written, {len(put.removed)} removed"
            self._say(f"rendered  version {snapshot.version}: {counted}")
        if put.again_seconds is not None:
            asyncio.get_running_loop().call_later(put.again_seconds, self._changed.set)

    def _read(self, mesh_text: bytes | None) -> Mesh:
        """The description and what is beside it; the text is that which policies go with. Raises LoadError, OSError."""
        files = [(str(self._mesh_file), self._mesh_file.read_bytes() if mesh_text is None else mesh_text)]
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

    def _write(self, mesh: Mesh, keys: KeyTexts, policies: PoliciesByWorkload) -> Put:
        """Render what differs, and put it in place. Raises LoadError, EnvoyError, OSError."""
        native = Native(policies, keys)
        # Until everybody has what is made now, the next change may differ from it in anything.
        in_force, self._in_force = self._in_force, None
        if in_force is not None and self._deliver is not None:
            some = in_force.touched(mesh, self._options, native)
            if some is not None and self._deliver_some(some, replace(in_force, native=native)):
                return Put((), (), None)
        return self._write_all(mesh, native)

    def _deliver_some(self, some: tuple[MeshWorkload, ...], wanted: MeshInForce) -> bool:
        """Deliver the files of those workloads alone; False when others change with them. Raises as ``_write``."""
        assert self._deliver is not None
        mesh, options, native = wanted.mesh, wanted.options, wanted.native
        mode_of = modes_of(native.engine)
        filters = self._filters.render_some(mesh, some, options, native)
        shapes = self._validated(some, filters, options, native)
        rest = self._rendering.render_some(mesh, some, mode_of, options, native)
        if rest is None:
            return False
        self._delivered |= filters | rest
        self._deliver(mesh, self._delivered, native.engine, some)
        self._shapes |= shapes
        self._in_force = wanted
        return True

    def _write_all(self, mesh: Mesh, native: Native) -> Put:
        options, kept = keep_check(mesh, native.engine, self._options)
        for name, reasons in kept.items():
            self._say(f"check     `{name}` asks the authorization server: {'; '.join(reasons)}")
        before, mode_of = self._mesh, modes_of(native.engine)
        if before is None or before != mesh:
            for problem in judge_extensions(mesh, mode_of, options, native, self._out, self._validator, self._say):
                self._say(f"extension {problem}")
        filters = self._filters.render(mesh, options, native)
        shapes = self._validated(mesh.workloads, filters, options, native)
        # They take milliseconds, and what follows may take seconds.
        first = write_files(self._out, filters) if self._deliver is None else ()
        files = filters | self._rendering.render(mesh, mode_of, options, native)
        if before is None or before.logins != mesh.logins:
            for line in make_login_keys(self._out, mesh.logins):
                self._say(f"login     {line}")
        self._mesh, self._shapes = mesh, shapes
        if self._deliver is None:
            put = self._state.put(files)
            return put._replace(written=first + put.written)
        self._deliver(mesh, files, native.engine, None)
        self._delivered = files
        filed = FiledWorkloads(one.workload for one in mesh.workloads)
        self._in_force = MeshInForce(mesh, self._options, options, kept, native, filed)
        return Put((), (), None)

    def _validated(
        self, workloads: Iterable[MeshWorkload], filters: Mapping[str, bytes], options: RenderOptions, native: Native
    ) -> dict[str, ListenerShape]:
        """Show Envoy what is new of the filters of these workloads; return what it has seen by then."""
        if self._validator is None:
            return {}
        shapes = {one.name: shape(one, modes_of(native.engine), native, options) for one in workloads}
        network = {
            one.name: network_filters(one, native)
            for one in workloads
            if options.is_native(one) and self._shapes.get(one.name) != shapes[one.name]
        }
        shown = {name: one for name, one in filters.items() if self._delivered.get(name) is not one}
        if why := self._validator.validate(self._out, shown, network):
            self._say(f"unchecked {why}")
        return shapes
