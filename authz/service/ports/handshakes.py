"""
TLS handshakes that a port of ours refused: counted and logged, with the reason.

gRPC reports them only in its own log on standard error, without the peer. So the process's standard error passes
through here when it has such a port: gRPC's lines about handshakes become lines of our log, all others go on as they
are. ``GRPC_VERBOSITY=ERROR`` silences gRPC, and then nothing is counted. For HTTPS, OpenSSL is asked.
Where Envoy terminates TLS, its statistics say how many there were of each kind.
"""

import logging
import os
import re
import ssl
import sys
import threading
from typing import TextIO

_log = logging.getLogger("authz.tls")
_FAILED = re.compile(rb"ssl_transport_security\.cc:\d+\] Handshake failed with error (.*)")
_REASON = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)")
LOGGED_AT_MOST = 100
"""Refusals that are logged one by one; then every hundredth, so that a scanner does not fill the disk."""


class Handshakes:
    """``refused`` counts; use ``of_grpc`` once in a process, and ``watch`` for each HTTPS port."""

    def __init__(self) -> None:
        self.refused = 0
        self._lock = threading.Lock()
        self._is_reading = False
        self._ours: TextIO | None = None

    def note(self, port: str, reason: str, times: int = 1) -> None:
        """Note that this many handshakes failed in the same way; from any thread."""
        with self._lock:
            self.refused += times
            count = self.refused
        if count <= LOGGED_AT_MOST or count // LOGGED_AT_MOST > (count - times) // LOGGED_AT_MOST:
            more = f" ({times} of them since the last line)" if times > 1 else ""
            _log.warning("%s: TLS handshake %d refused: %s%s", port, count, reason, more)

    def of_grpc(self) -> None:
        """Read from now on what gRPC writes to standard error; calling it again does nothing."""
        with self._lock:
            if self._is_reading:
                return
            self._is_reading = True
        real = os.dup(2)
        os.set_inheritable(real, False)
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(write)
        sys.stderr.flush()
        ours = os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace", closefd=True)
        for handler in logging.getLogger().handlers:  # our own lines need no detour
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(ours)
        self._ours = ours
        if sys.stderr is sys.__stderr__:  # somebody else's stream is left alone
            sys.stderr = ours
        threading.Thread(target=self._pass_on, args=(read, real), name="authz-stderr", daemon=True).start()

    def _pass_on(self, read: int, real: int) -> None:
        rest = b""
        while chunk := os.read(read, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > 65536:  # no line is so long
                lines, rest = [*lines, rest], b""
            for line in lines:
                if failed := _FAILED.search(line):
                    self.note("gRPC port", _words(failed[1].decode("utf-8", "replace")))
                else:
                    os.write(real, line + b"\n")

    def watch(self, context: ssl.SSLContext, port: str) -> None:
        """Count and log handshakes that fail under a server's context."""
        note = self.note

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    note(port, (error.reason or "no TLS").lower().replace("_", " "))
                    raise

        context.sslobject_class = Watched


def _words(told: str) -> str:
    """``PEER_DID_NOT_RETURN_A_CERTIFICATE`` in words, and what comes after it."""
    match = _REASON.search(told)
    if match is None:
        return told[:200]
    more = told[match.end() :].strip(": ")
    is_more = more and "Invalid certificate verification context" not in more
    return match[1].lower().replace("_", " ") + (f": {more[:100]}" if is_more else "")


HANDSHAKES = Handshakes()
"""The one of this process, which has one standard error."""
