"""
A command that is run when a certificate was renewed, for programs that have to be told: ``nats-server``, a web server.

It runs without a shell. As long as it fails it is run again, for a certificate that nobody serves is not renewed.
"""

import shlex
import subprocess
import tempfile
from dataclasses import dataclass

from authz.cli import terminal
from authz.core.errors import SettingsError

HOOK_SECONDS = 30.0
"""A command that takes longer has failed."""
PRINTED_BYTES = 1 << 16
SHOWN_CHARACTERS = 300
"""Of the last line that a failing command prints."""


@dataclass(slots=True)
class RenewalHook:
    """What is to be run, and for which change it was run last."""

    command: tuple[str, ...]
    done: int = -1
    """The last change for which it succeeded; at first none, for nobody knows what happened before this start."""
    _told: str = ""

    @classmethod
    def of(cls, text: str) -> "RenewalHook":
        """Read a command line. Raises SettingsError."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise SettingsError(f"--on-renewal `{text}`: {error}") from error
        if not words:
            raise SettingsError("--on-renewal is empty")
        return cls(words)

    def run(self, change: int) -> None:
        """Run it unless it succeeded for this change. A failure is told once, and tried again next time."""
        if change == self.done:
            return
        wrong = self._run()
        if not wrong:
            self.done = change
            terminal.remark(f"`{self.command[0]}` was run after the renewal")
        elif wrong != self._told:
            terminal.remark(f"error: `{shlex.join(self.command)}` {wrong}; it is run again until it succeeds")
        self._told = wrong

    def _run(self) -> str:
        """What went wrong; empty when nothing did. What it starts in the background is not waited for."""
        with tempfile.TemporaryFile() as printed:
            try:
                done = subprocess.run(  # noqa: S603  # the user's own command, without a shell
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    timeout=HOOK_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return f"did not end within {HOOK_SECONDS:.0f} seconds"
            except OSError as error:
                return f"could not be run: {error.strerror}"
            if done.returncode == 0:
                return ""
            printed.seek(0)
            lines = printed.read(PRINTED_BYTES).decode(errors="replace").strip().splitlines()
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        return f"failed with {how}{f': {lines[-1][:SHOWN_CHARACTERS]}' if lines else ''}"
