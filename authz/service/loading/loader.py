"""
Large sets of policies are read by a process of their own, so that checks do not share the interpreter with that work.

Reading 10,000 policies keeps a processor busy for two seconds. In a thread, every check would wait for the interpreter
several times; a process only needs a processor, and gives way for it. It checks and compiles everything, as
``validate`` does, and sends what it has read piece by piece; the server puts the pieces together and compiles what is
asked for. Whatever is not worth a process, such as one changed document among many, is read in the calling thread.
"""

import logging
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from authz.core.engine import Engine
from authz.core.errors import LoadError, Location, Problem, Severity
from authz.policy.memory import Memory, digest_of
from authz.service.loading.garbage import let_go
from authz.service.loading.mesh_file import MeshFile
from authz.service.loading.snapshot import Snapshot, load_snapshot
from authz.service.loading.transfer import ALLOW_EMPTY, Done, LoadRefused, code_digest, receive
from authz.service.ports.own_python import own_environment, own_python
from authz.sources.policies.directory import directory_bytes, read_directory

_log = logging.getLogger("authz.loader")
WORTH_BYTES = 256 * 1024
"""Files from this size on are read by a process: some six hundred policies, or a tenth of a second."""
_MODULE = "authz.service.loading.loader_process"
_CODE = code_digest()
"""The digest of this process's code, taken when it started."""


class _NotStarted(Exception):
    """This machine does not let the process run; the message says why."""


class Loader:
    """
    Reads a set of policies, one set at a time, and remembers what each document came to.

    The memory holds the digests of the texts beside the resources that are in force anyway, 300 bytes for a policy.
    """

    def __init__(self, *, allow_empty: bool = False, mesh: MeshFile | None = None) -> None:
        self._allow_empty = allow_empty
        self._memory = Memory()
        self._mesh = b""
        self._mesh_file = mesh
        """Whose text was read before each loading, where somebody does that."""
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self._is_told = False

    def load(self, policies: Path, mesh_file: Path | None, now: float, before: Engine | None = None) -> Snapshot:
        """
        As ``load_snapshot``, but only what is new is read, and in a process if that is much.

        Args:
            before: the engine in force: what it has compiled is taken from there.

        Raises:
            LoadError: carries every problem; possibly only that the process died.
        """
        if self._new_bytes(policies, mesh_file) >= WORTH_BYTES:
            try:
                return self._load_beside(policies, mesh_file, now)
            except _NotStarted as error:
                if not self._is_told:
                    self._is_told = True
                    _log.warning("policies are read within the server, which checks may have to wait for: %s", error)
        return self.load_here(policies, mesh_file, now, before)

    def load_here(self, policies: Path, mesh_file: Path | None, now: float, before: Engine | None = None) -> Snapshot:
        """The same without a process: nothing waits when the server starts."""
        mesh = self._mesh_text(mesh_file)
        snapshot = load_snapshot(
            policies,
            mesh_file,
            now,
            allow_empty=self._allow_empty,
            memory=self._memory,
            before=before,
            settings=self._mesh_file.settings if self._mesh_file is not None else None,
        )
        self._mesh = mesh
        return snapshot

    def _new_bytes(self, policies: Path, mesh_file: Path | None) -> int:
        """How much there is to be read; a new mesh concerns every policy. 0 when that is not known yet."""
        total = directory_bytes(policies)
        if total < WORTH_BYTES or self._mesh != self._mesh_text(mesh_file):
            return total
        try:
            return sum(self._memory.new_bytes(name, data) for name, data in read_directory(policies))
        except OSError:
            return 0

    def stop(self) -> None:
        """End a process that is still reading; called from another thread."""
        self._is_stopped = True
        if self._process is not None:
            self._process.kill()

    def _mesh_text(self, mesh_file: Path | None) -> bytes:
        """What tells the texts of mesh files apart; empty without a file that can be read."""
        if self._mesh_file is not None:
            return self._mesh_file.known or b""
        text = MeshFile().text(mesh_file)
        return b"" if text is None else digest_of(text)

    def _load_beside(self, policies: Path, mesh_file: Path | None, now: float) -> Snapshot:
        command = [own_python(), "-S", "-P", "-m", _MODULE, str(policies), *([str(mesh_file)] if mesh_file else [])]
        if self._allow_empty:
            command.append(ALLOW_EMPTY)
        with ExitStack() as stack:
            try:
                said = stack.enter_context(_open_memory())
                process = stack.enter_context(_start(command, said))
            except OSError as error:
                raise _NotStarted(f"{command[0]}: {error.strerror}") from error
            self._process = process
            if self._is_stopped:
                process.kill()
            assert process.stdout is not None, "a pipe was asked for"
            mesh = self._mesh_text(mesh_file)
            received = receive(process.stdout, _CODE)
            process.stdout.close()
            end = _end_of(process.wait(), said)
            self._process = None
        if isinstance(received.outcome, Done):
            self._memory, self._mesh = received.memory(), mesh
            return received.snapshot(received.outcome, now)
        let_go(received.resources)
        if isinstance(received.outcome, LoadRefused):
            raise LoadError(received.outcome.problems)
        if received.ready is not None and received.ready.code != _CODE:
            raise _NotStarted("another version was installed, restart the server")
        if received.ready is not None or self._is_stopped:
            raise LoadError([_died(policies, end)])
        raise _NotStarted(f"{command[0]} {end}")


def _start(command: list[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # ourselves
        command,
        env=own_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=said,
        process_group=0,  # Ctrl-C is the server's
    )


def _open_memory() -> IO[bytes]:
    """A file without a name; in memory where that exists, since a container may have nowhere to write."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("authz-loader"), "w+b")
    return tempfile.TemporaryFile()


def _end_of(code: int, said: IO[bytes]) -> str:
    """How a process ended, and the last line of what it said."""
    said.seek(0)
    last = said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
    named = {int(number): number.name for number in signal.Signals}
    end = f"was ended by {named.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"
    return f"{end}: {last}" if last else end


def _died(policies: Path, end: str) -> Problem:
    return Problem(
        Severity.ERROR,
        "loader",
        f"the process that reads the policies {end}, before it was done",
        Location(str(policies)),
        help="look for a limit of memory: while it lasts, reading takes about 10 kB for each policy",
    )
