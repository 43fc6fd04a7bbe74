"""
Who may call whom, proved: the matrix of ``authz who-can``, made once for each policy version when somebody looks.

A process of its own makes it, which gets a processor only when nobody else wants one: checks share neither the
interpreter nor the processor with it. It reads the files that policies and mesh come from, so it is believed only if it
read the version in force. Nothing here waits for it.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import IO, Any

from authz.admin.explained import Sources
from authz.core.attributes import Json

MAX_PAIRS = 10_000
"""Pairs of a caller and a workload; whoever has more asks ``authz who-can`` about some of them."""
MAX_BYTES = 16 * 1024 * 1024
MAX_SECONDS = 120.0
SECONDS_EACH = 5
"""For each workload, as ``authz who-can --seconds``."""
MAX_SAID = 2_000
MAX_MEMORY = 1024 * 1024 * 1024
AGAIN_SECONDS = 15.0
"""A matrix that was not made is tried again after this time at the earliest."""
YES, SOME = "yes", "with conditions"
_CALLER_KEYS = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")


class ReachState(StrEnum):
    """How it is with the matrix of the version in force."""

    READY = "ready"
    COMPUTING = "computing"
    UNDESCRIBED = "undescribed"
    """No mesh description says which workloads there are."""
    TOO_LARGE = "too large"
    OTHER_FILES = "other files"
    """The files are no longer those in force: a change was refused, or is about to be loaded."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReachCell:
    """The answer for one caller and one workload."""

    answer: str
    """``yes``, ``with conditions``, ``no`` or ``not decided``."""
    rules: tuple[str, ...]
    """The rules that let it in, ``namespace/policy/index``; none where no ALLOW policy applies."""
    names_caller: bool
    """Whether one of them asks for this caller or its like, and not for everybody."""
    told: bytes
    """The whole answer with its grants, as JSON."""


@dataclass(frozen=True, slots=True)
class ReachMatrix:
    """All pairs, as far as they are known."""

    version: str = ""
    callers: tuple[tuple[str, str], ...] = ()
    """Name and identity with ``spiffe://``; an empty identity stands for everybody without one."""
    workloads: tuple[str, ...] = ()
    """``namespace/name``."""
    cells: Mapping[tuple[str, str], ReachCell] = field(default_factory=dict)
    """By identity and workload."""
    is_whole: bool = False


class Reach:
    """Makes the matrix and keeps the last one."""

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        sources: Sources,
        described: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """
        Keep what is needed to start the process.

        Args:
            program: the command of ``authz``, without a subcommand.
            described: how many workloads the mesh description in force has.
        """
        self._program = tuple(program)
        self._environment = {name: value for name, value in environment.items() if not name.startswith("AUTHZ_")}
        self._sources = sources
        self._described = described
        self._clock = clock
        self._lock = threading.Lock()
        self._matrix = ReachMatrix()
        self._state, self._reason = ReachState.COMPUTING, ""
        self._tried = ("", float("-inf"))
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def of(self, version: str) -> tuple[ReachState, str, ReachMatrix]:
        """
        What is known of the policies in force; makes a start where nothing is. Never waits.

        Returns:
            The state, why nothing is known, and the matrix: of an earlier version while one is made or cannot be.
        """
        number = self._described()
        if not number or not self._sources.mesh:
            return ReachState.UNDESCRIBED, "no mesh description says which workloads there are", ReachMatrix()
        if (number + 1) * number > MAX_PAIRS:
            return ReachState.TOO_LARGE, f"{number} workloads have more than {MAX_PAIRS:,} pairs", ReachMatrix()
        with self._lock:
            if self._matrix.is_whole and self._matrix.version == version:
                return ReachState.READY, "", self._matrix
            if self._thread is not None:  # of another version perhaps, which is then looked at once more
                return ReachState.COMPUTING, "", self._matrix
            tried, at = self._tried
            if tried == version and 0 <= self._clock() - at < AGAIN_SECONDS:
                return self._state, self._reason, self._matrix
            if self._is_stopped:
                return ReachState.FAILED, "the server is stopping", self._matrix
            self._tried = (version, self._clock())
            self._thread = threading.Thread(target=self._make, args=(version,), name="reach", daemon=True)
            self._thread.start()
            return ReachState.COMPUTING, "", self._matrix

    def cells(self, version: str) -> Mapping[tuple[str, str], ReachCell]:
        """The proved pairs of the version in force; none until all are."""
        state, _, matrix = self.of(version)
        return matrix.cells if state is ReachState.READY else {}

    def stop(self) -> None:
        """End the process; its thread ends with it."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                self._process.kill()

    def _make(self, version: str) -> None:
        try:
            state, reason = self._run(version)
        except OSError as error:
            state, reason = ReachState.FAILED, f"{self._program[0]}: {error.strerror}"
        except Exception:  # whatever it said; else nobody would try again
            state, reason = ReachState.FAILED, "what the process said cannot be read"
        with self._lock:
            self._state, self._reason, self._thread = state, reason, None
            self._tried = (version, self._clock())

    def _run(self, version: str) -> tuple[ReachState, str]:
        """Start the process and take what it says."""
        with _nameless_file() as said:
            return self._told(said, version)

    def _told(self, said: IO[bytes], version: str) -> tuple[ReachState, str]:
        asked = ["who-can", "--policies", self._sources.policies, "--mesh", self._sources.mesh, "--matrix"]
        process = subprocess.Popen(  # noqa: S603  # ourselves
            [*self._program, *asked, "--seconds", str(SECONDS_EACH), "-o", "jsonl"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            process_group=0,  # Ctrl-C is the server's
        )
        _let_all_others_go_first(process.pid)
        timer = threading.Timer(MAX_SECONDS, process.kill)
        timer.daemon = True
        with self._lock:
            self._process = process
            if self._is_stopped:
                process.kill()
        timer.start()
        try:
            found = self._take(process, version)
        finally:
            timer.cancel()
            process.kill()
            assert process.stdout is not None, "a pipe was asked for"
            process.stdout.close()
            process.wait()
            with self._lock:
                self._process = None
        if found[0] is ReachState.FAILED:
            said.seek(0)
            return ReachState.FAILED, _first_lines(said.read(MAX_SAID)) or found[1]
        return found

    def _take(self, process: subprocess.Popen[bytes], version: str) -> tuple[ReachState, str]:
        """Line by line, so that no check waits for the interpreter longer than for one of them."""
        assert process.stdout is not None, "a pipe was asked for"
        first = process.stdout.readline(MAX_BYTES)
        if not first:
            return ReachState.FAILED, "the process could not read the policies"
        head = json.loads(first)
        if head["policy_version"] != version:
            return ReachState.OTHER_FILES, f"the files hold version {head['policy_version']}"
        callers = tuple((one["caller"], one["identity"]) for one in head["callers"])
        cells: dict[tuple[str, str], ReachCell] = {}
        matrix = ReachMatrix(version, callers, tuple(head["workloads"]), cells)
        with self._lock:
            if self._matrix.version == version or not self._matrix.is_whole:
                self._matrix = matrix  # how far it is can be seen
        left = MAX_BYTES - len(first)
        while line := process.stdout.readline(left + 1):
            left -= len(line)
            if left < 0:
                return ReachState.TOO_LARGE, "the grants of all pairs do not fit into memory that is meant for them"
            answer = json.loads(line)
            cells[answer["identity"], answer["workload"]] = _cell(answer, line)
        if len(cells) < len(callers) * len(matrix.workloads):
            return (
                ReachState.TOO_LARGE,
                f"it takes more than {MAX_SECONDS:.0f} seconds, or more memory than it may have",
            )
        with self._lock:
            self._matrix = replace(matrix, is_whole=True)
        return ReachState.READY, ""


def _nameless_file() -> IO[bytes]:
    """In memory where that exists, since a container may have nowhere to write."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("authz-reach"), "w+b")
    return tempfile.TemporaryFile()


def _first_lines(said: bytes) -> str:
    """The first problem of those that were told: its place, and what is wrong."""
    return " ".join(line.strip() for line in said.decode("utf-8", "replace").splitlines()[:2])


def _cell(answer: Mapping[str, Any], told: bytes) -> ReachCell:
    grants = answer["grants"]
    return ReachCell(
        answer["answer"],
        tuple(grant["rule"]["name"] for grant in grants if grant["rule"] is not None),
        any(_names_caller(grant) for grant in grants),
        told,
    )


def _names_caller(grant: Mapping[str, Any]) -> bool:
    phrases = [*grant["sources"], grant["conditions"]]
    return any(one["key"] in _CALLER_KEYS and one["values"] not in ([], ["*"]) for phrase in phrases for one in phrase)


def _let_all_others_go_first(process: int) -> None:
    """
    Lowest priority and bounded memory, as far as the system has them.

    Not the kernel's idle class: where no processor is ever idle, there would never be a matrix.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, 19)
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import resource  # not everywhere

        resource.prlimit(process, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def reach_json(in_force: str, state: ReachState, reason: str, matrix: ReachMatrix) -> dict[str, Json]:
    """The matrix as the page shows it: answers by workload and caller, grants on demand."""
    cells = matrix.cells
    return {
        "state": state.value,
        "reason": reason or None,
        "policy_version": in_force,
        "matrix_version": matrix.version or None,
        "done": len(cells),
        "pairs": len(matrix.callers) * len(matrix.workloads),
        "callers": [{"name": name, "identity": identity} for name, identity in matrix.callers],
        "workloads": list(matrix.workloads),
        "answers": [
            [cell.answer if (cell := cells.get((identity, name))) else None for _, identity in matrix.callers]
            for name in matrix.workloads
        ],
    }
