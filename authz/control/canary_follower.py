"""
A candidate in force for a part of the mesh: followed, laid beside the policies of all others, and taken back.

Its path may lead nowhere: then there is none. One that was pushed says itself for whom it is. Whatever is wrong with it
leaves every workload the policies that are in force, and is told. A candidate that was aborted stays so, whoever is
restarted, until it changes or its path is empty once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from authz.canary.canary_engine import CanaryEngine
from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.canary.canary_status import CanaryState, CanaryStatus, shown_names
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.canary.candidate_terms import CandidateTerms
from authz.control.aborted_canary import AbortedCanary
from authz.control.canary_members import decides, undecidable
from authz.control.canary_reading import CanaryReading
from authz.control.told_candidate import told_standing
from authz.core.errors import LoadError, SettingsError
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import JwtRule
from authz.envoy.native.binary import EnvoyError
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.service.loading.promotion import are_nested
from authz.service.loading.snapshot import Snapshot
from authz.service.ports.failure import where_it_failed
from authz.sources.policies.watching import watch

_log = logging.getLogger("authz.canary")
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
        self._published = source.published if source is not None else None
        self._mesh_file = mesh_file
        self._kept = AbortedCanary(keep)
        self._clock = clock
        self._say = say
        self._reading = CanaryReading(source, mesh_file, clock) if source is not None else None
        self._refused: tuple[str, str] = ("", "")
        self._told: object = None
        self._on_change: Callable[[], None] = lambda: None
        self._watching: asyncio.Task[None] | None = None
        self._status = self._delivered = CanaryStatus()

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

    @property
    def status(self) -> CanaryStatus:
        """What becomes of it; of one that was pushed and is not there, why."""
        published = self._published
        if published is None or self._status.state is not CanaryState.NONE:
            return self._status
        if published.problem:
            return self._status.become(CanaryState.REFUSED, reason=published.problem)
        if published.aborted:
            return self._status.become(CanaryState.ABORTED, reason=published.aborted)
        return self._status

    @property
    def standing(self) -> CandidateStanding | None:
        """What the fleet is told of the candidate that was pushed; None where there is none, or a directory counts."""
        if self._published is None or self._reading is None:
            return None
        return told_standing(self._published.standing, self._reading.in_shadow, self._delivered)

    @property
    def delivered_to(self) -> tuple[str, ...]:
        """The workloads whose proxies have been told that candidate, sorted."""
        found = self.standing
        return self._delivered.chosen if found is not None and found.state is CandidateState.IN_FORCE else ()

    @property
    def selection(self) -> CanarySelection:
        """For whom it is."""
        if self._published is not None:
            return self._terms.selection if self._terms is not None else CanarySelection()
        return self._source.selection if self._source is not None else CanarySelection()

    @property
    def bound(self) -> AbortBound | None:
        """When it is taken back; None: only by hand."""
        if self._published is not None:
            return self._terms.bound if self._terms is not None else None
        return self._source.bound if self._source is not None else None

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
        status = self._status
        try:
            done = await asyncio.to_thread(write, policies)
        except (EnvoyError, LoadError) as error:
            if policies is base.engine:
                raise
            done = await asyncio.to_thread(write, base.engine)  # if this fails, too, it is not the candidate
            self._refuse(str(error))
            status = self._status
        self._delivered = status
        return done

    async def beside(self, base: Snapshot, mesh: Mesh, options: RenderOptions) -> PoliciesByWorkload:
        """The policies of every workload: the candidate's for the chosen ones, ``base`` for all others."""
        if self._reading is None:
            return base.engine
        self._reading.note_base(base)
        snapshot = self._snapshot
        if snapshot is not None and snapshot.mesh != base.mesh:
            await self._load()  # the settings of the mesh have changed, and we saw it first
            snapshot = self._snapshot
        names = tuple(one.name for one in mesh.workloads)
        selection, number = self.selection, self._terms.number if self._terms is not None else 0
        status = CanaryStatus(selection=str(selection), workloads=len(names), number=number)
        if snapshot is None or snapshot.version == base.version:
            self._tell(status.become(CanaryState.REFUSED if self._reason else CanaryState.NONE, reason=self._reason))
            return base.engine
        status = status.become(CanaryState.REFUSED, version=snapshot.version)
        if aborted := self._aborted(snapshot.version):
            self._tell(status.become(CanaryState.ABORTED, reason=aborted))
            return base.engine
        selected = selection.chosen(one.name for one in mesh.workloads if options.is_native(one))
        members = [one for one in mesh.workloads if one.name in selected and decides(one, base.engine, options)]
        if reason := self._refusal(snapshot, base, members, names, options):
            self._tell(status.become(CanaryState.REFUSED, reason=reason))
            return base.engine
        chosen = frozenset(one.name for one in members)
        left_out = (selected | selection.names) - chosen
        state = CanaryState.IN_FORCE if selection else CanaryState.SHADOW
        self._tell(status.become(state, reason=self._reason, chosen=chosen, left_out=left_out))
        return CanaryEngine(base.engine, snapshot.engine, chosen)

    def _refuse(self, reason: str) -> None:
        """Say that the candidate cannot be used as it is; it is not tried again until it changes."""
        self._refused = (self._key(self._status.version), reason)
        self._tell(self._status.become(CanaryState.REFUSED, reason=reason))

    def abort(self, reason: str) -> None:
        """Take the candidate back for good. Raises OSError where that cannot be kept; it is taken back all the same."""
        key = self._key(self._status.version)
        self._refused = (key, reason)
        self._tell(self._status.become(CanaryState.ABORTED, reason=reason))
        self._on_change()
        self._kept.keep(key, reason, self._clock())

    async def _watch(self, path: Path, ready: asyncio.Event) -> None:
        try:
            async for _ in watch([path, self._mesh_file], ready=ready):
                await self._load()
                self._on_change()
        except Exception as error:  # a mistake of ours must not end what has nothing to do with it
            _log.error("the candidate is no longer followed: %s", where_it_failed(error))
        finally:
            if self._reading is not None:
                self._reading.stop()

    @property
    def _snapshot(self) -> Snapshot | None:
        return self._reading.snapshot if self._reading is not None else None

    @property
    def _terms(self) -> CandidateTerms | None:
        return self._reading.terms if self._reading is not None else None

    @property
    def _reason(self) -> str:
        return self._reading.reason if self._reading is not None else ""

    def _refusal(
        self,
        snapshot: Snapshot,
        base: Snapshot,
        chosen: Sequence[MeshWorkload],
        names: tuple[str, ...],
        options: RenderOptions,
    ) -> str:
        """Why a candidate cannot be in force for those that are chosen; empty when it can."""
        key, reason = self._refused
        if key == self._key(snapshot.version):
            return reason
        if snapshot.mesh != base.mesh:
            return f"it was not read with the settings of the mesh that hold now: {self._reason}"
        if unknown := self.selection.unknown(names):
            return f"the mesh has no workload {', '.join(f'`{name}`' for name in unknown)}"
        if not self.selection:
            return ""
        if not chosen:
            return "none of those that are chosen decides by itself"
        return undecidable(snapshot.engine, chosen, options)

    async def _load(self) -> None:
        """Load what is there; nothing there means no candidate, and that none was aborted."""
        if self._reading is None or await self._reading.load():
            return
        self._refused = ("", "")
        try:
            self._kept.forget()
        except OSError as error:
            _log.error("cannot remove `%s`: %s", self._kept.path, error.strerror)

    def _aborted(self, version: str) -> str:
        """Why this candidate was aborted; empty when it was not."""
        key = self._key(version)
        kept = self._kept.reason(key)
        if kept is not None:
            return kept
        known, reason = self._refused
        return reason if known == key and self._status.state is CanaryState.ABORTED else ""

    def _key(self, version: str) -> str:
        """Of a candidate: one that was pushed again is another, even with the same policies."""
        return f"{version} of candidate {self._terms.number}" if self._terms is not None else version

    def _tell(self, status: CanaryStatus) -> None:
        """Replace the status, and say what is new in it; that one was taken back is said to whoever published it."""
        self._status = status
        if status.state is CanaryState.ABORTED and self._published is not None and status.number:
            self._published.abort(status.number, status.reason)
        number = status.number if status.state is not CanaryState.NONE else 0
        told = (status.state, status.version, number, status.reason, status.chosen)
        if told == self._told:
            return
        is_first, self._told = self._told is None, told
        line = f"candidate version {status.version or '-'} {status.state}"
        match status.state:
            case CanaryState.IN_FORCE:
                self._say(
                    f"{line} for {len(status.chosen)} of {status.workloads} workloads: {shown_names(status.chosen)}"
                )
                if status.left_out:
                    self._say(f"candidate not for {shown_names(status.left_out)}: they ask an authorization server")
                if status.reason:
                    self._say(f"candidate as it is now is not in force: {status.reason}")
            case CanaryState.SHADOW:
                self._say(f"{line}: every workload keeps the policies in force, and records say what it would change")
            case CanaryState.NONE if not is_first:
                self._say("candidate none: every workload has the policies in force")
            case CanaryState.REFUSED | CanaryState.ABORTED:
                self._say(f"{line}: every workload keeps the policies in force: {status.reason}")
                _log.error("the candidate is %s: %s", status.state, status.reason)
