"""
Records to the stream of the fleet: kept in a spool first, and sent from there by a thread of its own.

So a decision never waits for the servers, a killed process loses no more than with a file, and what could not be
sent is sent later, by the next process if need be. When the spool is full, writing fails: the trail counts what is
lost, or refuses requests, as it is told for every sink.
"""

import logging
import threading
import time
from collections.abc import Sequence

from authz.audit.entry import Entry
from authz.audit.spool import Spool, SpooledLines
from authz.audit.stored_key import record_key
from authz.core.errors import AuthzError
from authz.truth.many_answers import MAX_IN_FLIGHT
from authz.truth.truth_client import TruthClient
from authz.truth.truth_stream import StreamRecord, TruthStream

_log = logging.getLogger("authz.audit")
CLOSE_SECONDS = 2.0
"""For the rest, at the end; what is not sent by then is sent by the next process."""
RETRY_SECONDS = 1.0
ADOPT_SECONDS = 10.0
"""How often it looks for what other processes left."""


class TruthSink:
    """Records to the truth of a fleet. Only the audit writer calls it."""

    def __init__(self, client: TruthClient, spool: Spool) -> None:
        """Begin at once, with what the last process left."""
        self.name = str(client.address)
        self.problem = ""
        self._client = client
        self._stream = TruthStream(client)
        self._spool = spool
        self._wake = threading.Event()
        self._is_closing = False
        client.on_change(self._wake.set)
        client.begin()
        self._thread = threading.Thread(target=self._run, name="authz-audit-truth", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Bytes that are kept until they can be sent."""
        return self._spool.waiting_bytes

    def write(self, entries: Sequence[Entry]) -> None:
        """Keep a batch, to be sent soon. Raises OSError when there is no room."""
        self._spool.append(b"".join([entry.line + b"\n" for entry in entries]))
        self._wake.set()

    def close(self) -> None:
        """Send the rest, if that is possible soon."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        self._client.stop()
        self._thread.join(CLOSE_SECONDS)
        self._spool.close()

    def _run(self) -> None:
        adopted_at = float("-inf")
        while True:
            self._wake.clear()
            try:
                is_sent = self._send_waiting()
                if is_sent and not self._is_closing and time.monotonic() - adopted_at > ADOPT_SECONDS:
                    adopted_at = time.monotonic()
                    while self._spool.adopt() and self._send_waiting():
                        pass
            except Exception as error:  # a sender that dies for good would fill the spool
                if self._is_closing:  # what was on its way ended with the connection
                    return
                _log.exception("audit sink %s", self.name)
                self._told(f"internal error: {type(error).__name__}")
                is_sent = False
            if self._is_closing:
                return
            self._wake.wait(ADOPT_SECONDS if is_sent else RETRY_SECONDS)

    def _send_waiting(self) -> bool:
        """Send what is there; False when that did not work."""
        while (taken := self._spool.take(MAX_IN_FLIGHT)) is not None:
            try:
                self._stream.publish(_records(taken))
            except BaseException as error:
                self._spool.failed(taken)
                if not isinstance(error, AuthzError):
                    raise
                self._told(str(error))
                return False
            self._spool.delivered(taken)
            self._told("")
        return True

    def _told(self, problem: str) -> None:
        if problem and not self.problem:
            _log.warning("audit sink %s: records are kept in the spool: %s", self.name, problem)
        elif self.problem and not problem:
            _log.info("audit sink %s: records are sent again", self.name)
        self.problem = problem


def _records(taken: SpooledLines) -> list[StreamRecord]:
    return [StreamRecord(record_key(line), line, number < taken.again) for number, line in enumerate(taken.lines)]
