"""
Hot reload: a changed directory is read whole, compiled whole, prepared, and put in force whole, or not at all.

A broken change keeps the last good snapshot and is reported with its places. All heavy work is done in a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from authz.core.attributes import Workload
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.mesh.description import DescriptionReader
from authz.service.loading.archive import Archive, PolicyTexts, read_texts
from authz.service.loading.garbage import beside_checks, let_go
from authz.service.loading.loader import Loader
from authz.service.loading.losses import losses
from authz.service.loading.mesh_file import MeshFile
from authz.service.loading.snapshot import Snapshot
from authz.service.ports.failure import where_it_failed
from authz.sources.policies.watching import watch
from authz.telemetry.status import ReloadStatus

_log = logging.getLogger("authz.reload")
_ATTEMPTS = 3
"""How often a set is read again because its mesh file has changed meanwhile."""


class Reloader:
    """
    Loads once with ``load``, then follows changes in ``run``. ``status`` is replaced, never edited.

    ``put_in_force`` is called in the event loop with each good snapshot. With ``allow_empty`` files without a document,
    a set without a policy, and the loss of all policies or of a mesh setting are taken as they are. What was put in
    force is kept in ``archive``; that it cannot be written is told and changes nothing. A ``is_candidate`` set is put
    beside the one in force: the log says so, and checks are already answered at its first load. ``reader`` as in
    ``MeshFile``. Where nothing ``answers_requests``, the policies of workloads are selected when somebody wants them.
    """

    def __init__(
        self,
        policies: Path,
        mesh_file: Path | None,
        put_in_force: Callable[[Snapshot], None],
        clock: Callable[[], float],
        *,
        allow_empty: bool = False,
        archive: Path | None = None,
        is_candidate: bool = False,
        reader: DescriptionReader | None = None,
        answers_requests: bool = True,
    ) -> None:
        self._is_candidate = is_candidate
        self._archive = Archive(archive) if archive is not None else None
        self._texts: PolicyTexts | None = None
        self._policies = policies
        self._mesh_file = mesh_file
        self._put_in_force = put_in_force
        self._clock = clock
        self._allow_empty = allow_empty
        self._answers_requests = answers_requests
        self._mesh = MeshFile(reader)
        self._loader = Loader(allow_empty=allow_empty, mesh=self._mesh)
        self.snapshot: Snapshot | None = None
        self.status = ReloadStatus()

    async def load(self, known: Iterable[Workload] = ()) -> bool:
        """
        Try once; False when the last good snapshot was kept. Never raises but for cancellation.

        ``known`` are workloads to prepare for, beside those that have asked the set before.
        """
        if self.snapshot is not None and self._answers_requests:
            known = (*known, *self.snapshot.engine.known_workloads())
        try:
            snapshot = await asyncio.to_thread(self._prepare, known)
        except LoadError as error:
            self._keep(error.problems)
            return False
        except Exception as error:  # a mistake of ours must not end the watch
            _log.error("loading failed: %s", where_it_failed(error))
            self._keep(())
            return False
        self._put_in_force(snapshot)
        old, self.snapshot = [self.snapshot], snapshot
        resources = snapshot.resources
        documents = (
            ("AuthorizationPolicy", len(resources.authorization_policies)),
            ("RequestAuthentication", len(resources.request_authentications)),
            ("PeerAuthentication", len(resources.peer_authentications)),
        )
        self.status = replace(
            self.status,
            policy_version=snapshot.version,
            loaded_at=snapshot.loaded_at,
            is_ok=True,
            successes=self.status.successes + 1,
            problems=snapshot.problems,
            documents=documents,
        )
        role = "the candidate" if self._is_candidate else "in force"
        _log.info("policy version %s is %s: %s", snapshot.version, role, self.status.counted)
        said = {_said(problem) for problem in old[0].problems} if old[0] is not None else frozenset()
        for problem in snapshot.problems:
            is_new = problem.severity is Severity.WARNING and _said(problem) not in said
            _log.log(logging.WARNING if is_new else logging.DEBUG, "%s", problem)
        await asyncio.to_thread(let_go_of, old)  # last: what is in force is told at once
        await asyncio.to_thread(self._keep_texts, snapshot)
        return True

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Load at every change, until cancelled."""
        paths = [self._policies] if self._mesh_file is None else [self._policies, self._mesh_file]
        try:
            lies = 0
            async for state in watch(paths, ready=ready):
                if state.lies != lies:
                    lies = state.lies
                    self._mesh.forget()
                await self.load()
        finally:
            self.stop()

    def stop(self) -> None:
        """End a reading that goes on in a process."""
        self._loader.stop()

    def _prepare(self, known: Iterable[Workload]) -> Snapshot:
        """Load, and select the policies of every workload that is likely to ask, so that no request waits for it."""
        with beside_checks():
            snapshot = self._of_one_text()
            if self.snapshot is not None:
                self._refuse_losses(self.snapshot, snapshot)
            for workload in (*known, *snapshot.workloads) if self._answers_requests else ():
                snapshot.engine.for_workload(workload)
            return snapshot

    def _of_one_text(self) -> Snapshot:
        """
        Load settings and workloads from the same text of the mesh file.

        A file that was emptied while policies were read would leave the earlier settings without any workloads, and be
        refused from then on.
        """
        for _ in range(_ATTEMPTS):
            text = self._mesh.text(self._mesh_file)
            self._texts = self._read_texts()
            before = self.snapshot.engine if self.snapshot is not None else None
            if before is None and not self._is_candidate:  # no check waits yet
                snapshot = self._loader.load_here(self._policies, self._mesh_file, self._clock())
            else:
                snapshot = self._loader.load(self._policies, self._mesh_file, self._clock(), before)
            described = self._mesh.described(self._mesh_file, text)
            if text == self._mesh.text(self._mesh_file):
                return replace(snapshot, workloads=described.workloads, limits=described.limits, mesh_text=text)
        message = "the file keeps changing while the policies are read"
        raise LoadError([Problem(Severity.ERROR, "unreadable", message, Location(str(self._mesh_file)))])

    def _read_texts(self) -> PolicyTexts | None:
        """What is on disk, for the archive; None without one, or when it cannot be read."""
        if self._archive is None:
            return None
        try:
            return read_texts(self._policies, self._mesh_file)
        except OSError:
            return None

    def _keep_texts(self, snapshot: Snapshot) -> None:
        """Keep the texts of what was put in force, if they were the same before and after they were read for it."""
        texts, self._texts = self._texts, None
        if self._archive is None:
            return
        problem = "its files changed while they were read"
        try:
            if texts is not None and texts == self._read_texts():
                if self._archive.keep(snapshot.version, texts, snapshot.resources):
                    return
                problem = "a secret of an inline key set could not be blotted out"
        except OSError as error:
            problem = f"{error.filename or self._archive.directory}: {error.strerror}"
        _log.error("policy version %s is not kept in the archive: %s", snapshot.version, problem)

    def _refuse_losses(self, before: Snapshot, after: Snapshot) -> None:
        if self._allow_empty:
            return
        lost = tuple(losses(before, after, self._policies, self._mesh_file))
        if lost:
            raise LoadError(lost)

    def _keep(self, problems: tuple[Problem, ...]) -> None:
        self.status = replace(self.status, is_ok=False, failures=self.status.failures + 1, problems=problems)
        kept = self.status.policy_version
        errors = [problem for problem in problems if problem.is_error]
        whose, role = ("the candidate's", "the candidate") if self._is_candidate else ("the", "in force")
        _log.error(
            "%s policies were not loaded, %s: %s",
            whose,
            f"version {kept} stays {role}" if kept else f"nothing is {role}",
            "1 error" if len(errors) == 1 else f"{len(errors)} errors",
        )
        for problem in errors:
            _log.error("%s", problem)


def _said(problem: Problem) -> tuple[str, str, str, str]:
    """What a warning is recognised by after a reload, in which its line may have moved."""
    return problem.code, problem.message, problem.resource, problem.path


def let_go_of(snapshots: list[Snapshot | None]) -> None:
    """Take snapshots out of a list, so that nothing else holds them, and drop them piece by piece."""
    while snapshots:
        snapshot = snapshots.pop()
        if snapshot is None:
            continue
        parts = list(snapshot.engine.parts())
        snapshot = None
        let_go(parts)
