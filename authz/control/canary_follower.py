"""
A candidate in force for a part of the mesh: followed, laid beside the policies of all others, and taken back.

Its path may lead nowhere: then there is none. Whatever is wrong with it leaves every workload the policies that are in
force, and is told. A candidate that was aborted stays so, whoever is restarted, until it changes or its path is empty
once.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from authz.canary.canary_engine import CanaryEngine
from authz.canary.canary_selection import CanarySource
from authz.canary.canary_status import CanaryState, CanaryStatus
from authz.core.errors import LoadError, SettingsError
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import JwtRule
from authz.envoy.native.binary import EnvoyError
from authz.envoy.native.limits import report
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.service.loading.promotion import are_nested
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from authz.service.ports.failure import where_it_failed
from authz.sources.policies.watching import watch

_log = logging.getLogger("authz.canary")
ABORTED_FILE = "canary-aborted.json"
_Put = TypeVar("_Put")


class CanaryFollower:
    """``start``, ``put`` at every rendering, ``close``. In one event loop."""

    def __init__(
        self,
        source: CanarySource | None,
        policies: Path,
        mesh_file: Path,
        keep: Path,
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            source: what is followed, and for whom it is; None: there is never a candidate.
            policies: those in force.
            mesh_file: settings of the mesh.
            keep: a directory for what has to outlive the process: which candidate was aborted.
            clock: seconds since the epoch.
            say: is given one line for people about every change.

        Raises:
            SettingsError: the candidate would be read with the policies in force, or these with it.
        """
        if source is not None and are_nested(source.path, policies):
            raise SettingsError(f"`{source.path}` and the policies in force lie one within the other")
        self._source = source
        self._mesh_file = mesh_file
        self._kept = keep / ABORTED_FILE
        self._clock = clock
        self._say = say
        self._reloader: Reloader | None = None
        self._refused: tuple[str, str] = ("", "")
        self._told: object = None
        self._on_change: Callable[[], None] = lambda: None
        self._watching: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()
        self.status = CanaryStatus()

    async def start(self, on_change: Callable[[], None]) -> None:
        """
        Read it for the first time, and follow it from then on. What is wrong with it is told and stops nobody.

        Args:
            on_change: called when there is another candidate, or none any more.
        """
        if self._source is None:
            return
        ready = asyncio.Event()
        self._watching = asyncio.create_task(self._watch(self._source.path, ready), name="candidate")
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((self._watching, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self._load()
        self._on_change = on_change

    async def close(self) -> None:
        """Stop following."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    @property
    def jwt_rules(self) -> Iterator[JwtRule]:
        """Those of the candidate, whose keys are needed as well."""
        snapshot = self._snapshot
        if snapshot is not None:
            for item in snapshot.resources.request_authentications:
                yield from item.jwt_rules

    @property
    def problem(self) -> str:
        """Why a candidate that is there is not in force as it is; empty when all is well, or somebody aborted it."""
        return "" if self.status.state is CanaryState.ABORTED else self.status.reason

    async def put(
        self, base: Snapshot, mesh: Mesh, options: RenderOptions, write: Callable[[PoliciesByWorkload], _Put]
    ) -> _Put:
        """
        Call ``write`` in a thread with the policies of every workload.

        A candidate with which it fails is refused, and all get ``base``. Raises what ``write`` does with that.
        """
        policies = await self.beside(base, mesh, options)
        if policies is not base.engine:
            try:
                return await asyncio.to_thread(write, policies)
            except (EnvoyError, LoadError) as error:
                done = await asyncio.to_thread(write, base.engine)  # if this fails, too, it is not the candidate
                self._refuse(str(error))
                return done
        return await asyncio.to_thread(write, base.engine)

    async def beside(self, base: Snapshot, mesh: Mesh, options: RenderOptions) -> PoliciesByWorkload:
        """The policies of every workload: the candidate's for the chosen ones, ``base`` for all others."""
        if self._source is None:
            return base.engine
        snapshot = self._snapshot
        if snapshot is not None and snapshot.mesh != base.mesh:
            await self._load()  # the settings of the mesh have changed, and we saw it first
            snapshot = self._snapshot
        names = tuple(one.name for one in mesh.workloads)
        status = CanaryStatus(selection=str(self._source.selection), workloads=len(names))
        if snapshot is None or snapshot.version == base.version:
            self._tell(status.become(CanaryState.REFUSED if self._reason else CanaryState.NONE, reason=self._reason))
            return base.engine
        status = status.become(CanaryState.REFUSED, version=snapshot.version)
        if aborted := self._aborted(snapshot.version):
            self._tell(status.become(CanaryState.ABORTED, reason=aborted))
            return base.engine
        selection = self._source.selection
        selected = selection.chosen(one.name for one in mesh.workloads if options.is_native(one))
        members = [one for one in mesh.workloads if one.name in selected and _decides(one, base.engine, options)]
        if reason := self._refusal(snapshot, base, members, names, options):
            self._tell(status.become(CanaryState.REFUSED, reason=reason))
            return base.engine
        chosen = frozenset(one.name for one in members)
        left_out = (selected | selection.names) - chosen
        self._tell(status.become(CanaryState.IN_FORCE, reason=self._reason, chosen=chosen, left_out=left_out))
        return CanaryEngine(base.engine, snapshot.engine, chosen)

    def _refuse(self, reason: str) -> None:
        """Say that the candidate cannot be used as it is; it is not tried again until it changes."""
        self._refused = (self.status.version, reason)
        self._tell(self.status.become(CanaryState.REFUSED, version=self.status.version, reason=reason))

    def abort(self, reason: str) -> None:
        """Take the candidate back for good. Raises OSError where that cannot be kept; it is taken back all the same."""
        version = self.status.version
        self._refused = (version, reason)
        self._tell(self.status.become(CanaryState.ABORTED, version=version, reason=reason))
        self._on_change()
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._kept.with_name(f".{self._kept.name}.new")
        fresh.write_text(json.dumps({"version": version, "reason": reason, "time": self._clock()}))
        fresh.replace(self._kept)

    async def _watch(self, path: Path, ready: asyncio.Event) -> None:
        try:
            async for _ in watch([path, self._mesh_file], ready=ready):
                await self._load()
                self._on_change()
        except Exception as error:  # a mistake of ours must not end what has nothing to do with it
            _log.error("the candidate is no longer followed: %s", where_it_failed(error))
        finally:
            if self._reloader is not None:
                self._reloader.stop()

    @property
    def _snapshot(self) -> Snapshot | None:
        return self._reloader.snapshot if self._reloader is not None else None

    @property
    def _reason(self) -> str:
        """What is wrong with what lies there now."""
        if self._reloader is None or self._reloader.status.is_ok:
            return ""
        problems = self._reloader.status.problems
        return "; ".join(str(problem) for problem in problems if problem.is_error) or "it cannot be read"

    def _refusal(
        self,
        snapshot: Snapshot,
        base: Snapshot,
        chosen: Sequence[MeshWorkload],
        names: tuple[str, ...],
        options: RenderOptions,
    ) -> str:
        """Why a candidate cannot be in force for those that are chosen; empty when it can."""
        assert self._source is not None
        version, reason = self._refused
        if version == snapshot.version:
            return reason
        if snapshot.mesh != base.mesh:
            return f"it was not read with the settings of the mesh that hold now: {self._reason}"
        if unknown := self._source.selection.unknown(names):
            return f"the mesh has no workload {', '.join(f'`{name}`' for name in unknown)}"
        if not chosen:
            return "none of those that are chosen decides by itself"
        for workload in chosen:
            found = report(snapshot.engine, workload.workload, has_evidence=options.include_peer_certificate)
            if not found.is_native:
                return f"`{workload.name}` cannot decide it by itself: {'; '.join(found.reasons)}"
        return ""

    async def _load(self) -> None:
        """Load what is there; nothing there means no candidate."""
        async with self._loading:
            await self._load_alone()

    async def _load_alone(self) -> None:
        assert self._source is not None
        path = self._source.path
        if not await asyncio.to_thread(_is_there, path):
            self._reloader, self._refused = None, ("", "")
            try:
                self._kept.unlink(missing_ok=True)
            except OSError as error:
                _log.error("cannot remove `%s`: %s", self._kept, error.strerror)
            return
        if self._reloader is None:
            self._reloader = Reloader(
                path, self._mesh_file, lambda _: None, self._clock, is_candidate=True, answers_requests=False
            )
        await self._reloader.load()

    def _aborted(self, version: str) -> str:
        """Why this candidate was aborted; empty when it was not."""
        try:
            found = json.loads(self._kept.read_text())
            return str(found["reason"]) if found["version"] == version else ""
        except FileNotFoundError:
            known, reason = self._refused
            return reason if known == version and self.status.state is CanaryState.ABORTED else ""
        except (OSError, ValueError, TypeError, KeyError) as error:
            return f"what `{self._kept}` says of it cannot be read: {error}"

    def _tell(self, status: CanaryStatus) -> None:
        """Replace the status, and say what is new in it."""
        self.status = status
        told = (status.state, status.version, status.reason, status.chosen)
        if told == self._told:
            return
        is_first, self._told = self._told is None, told
        line = f"candidate version {status.version or '-'} {status.state}"
        match status.state:
            case CanaryState.IN_FORCE:
                self._say(f"{line} for {len(status.chosen)} of {status.workloads} workloads: {_shown(status.chosen)}")
                if status.left_out:
                    self._say(f"candidate not for {_shown(status.left_out)}: they ask an authorization server")
                if status.reason:
                    self._say(f"candidate as it is now is not in force: {status.reason}")
            case CanaryState.NONE if not is_first:
                self._say("candidate none: every workload has the policies in force")
            case CanaryState.REFUSED | CanaryState.ABORTED:
                self._say(f"{line}: every workload keeps the policies in force: {status.reason}")
                _log.error("the candidate is %s: %s", status.state, status.reason)


def _decides(workload: MeshWorkload, base: PoliciesByWorkload, options: RenderOptions) -> bool:
    """Whether its own Envoy decides by the policies in force."""
    if not options.is_native(workload):
        return False
    return report(base, workload.workload, has_evidence=options.include_peer_certificate).is_native


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # whether it is cannot be seen: loading it says why
        return True


def _shown(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
