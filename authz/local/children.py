"""
One child process: started with its log, watched, and certain to end.

A child ends with its parent even when the parent is killed: Linux signals it then (PR_SET_PDEATHSIG). It has a session
of its own, so that Ctrl-C reaches only the supervisor, which stops the children in order.
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.errors import AuthzError

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 5.0
"""The time between SIGTERM and SIGKILL."""
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = getattr(_libc, "prctl", None)  # only Linux has it


class LocalError(AuthzError):
    """Something did not start or go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run. ``name`` names its log; ``kind`` is for people."""

    name: str
    kind: str
    arguments: tuple[str, ...]
    ready: str = ""
    """How to see that it serves: ``http:PORT/path``, ``tcp:PORT``, ``unix:PATH``, ``envoy:PATH``
    or ``authz:PATH``; several, separated by spaces, must all be so; empty: at once."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides ours."""
    directory: Path | None = None
    """Where it runs; None: in the state directory."""
    patience_seconds: float = 60.0
    """How long it may take to become ready: ten Envoys start side by side, with a Python in each, on a busy machine."""


@dataclass(slots=True)
class Child:
    """A command that was started, with its log."""

    command: Command
    process: asyncio.subprocess.Process
    is_expected_to_end: bool = False
    """Set before it is stopped on purpose: its end is then no news."""

    @property
    def pid(self) -> int:
        """Process id, also after it ended."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None


async def start(command: Command, state: Path) -> Child:
    """
    Start a command, its output in ``logs/<name>.log`` of the state directory.

    Raises OSError when it cannot be started.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    log = os.open(state / "logs" / f"{command.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            cwd=command.directory or state,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**_environment(), **command.environment},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    finally:
        os.close(log)
    return Child(command, process)


def _environment() -> dict[str, str]:
    """Ours without ``AUTHZ_*``: what was meant for the command that starts it would be unknown to ``authz serve``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}


async def stop(child: Child, *, kill: bool = False, grace_seconds: float = GRACE_SECONDS) -> None:
    """End a child and everything it started: SIGTERM, and SIGKILL for what is left after the grace."""
    child.is_expected_to_end = True
    if not kill and _signal_group(child, signal.SIGTERM):
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), grace_seconds)
    _signal_group(child, signal.SIGKILL)
    await child.process.wait()


def _signal_group(child: Child, number: signal.Signals) -> bool:
    try:
        os.killpg(child.pid, number)  # the child leads its session, so its pid is the group's
    except ProcessLookupError:
        return False
    return True


def last_lines(state: Path, name: str, count: int = 5) -> str:
    """The end of a child's log, for messages."""
    try:
        data = (state / "logs" / f"{name}.log").read_bytes()[-4000:]
    except OSError:
        return ""
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-count:])
