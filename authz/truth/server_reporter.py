"""An ``authz serve`` whose policies come from the truth reports which revision it has taken."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

from authz.canary.candidate_standing import CandidateStanding
from authz.core.errors import AuthzError
from authz.truth.farewell import FAREWELL_SECONDS, Farewell
from authz.truth.fleet_report import SERVE, SERVER, ReplicaReport, replica_value
from authz.truth.truth_bucket import FLEET, TruthBucket
from authz.truth.truth_client import TruthClient, TruthForbidden

log = logging.getLogger("authz.truth")
LOOK_SECONDS = 1.0
"""How often it looks at itself."""
HEARTBEAT_SECONDS = 8.0
"""It reports at least so often."""
STOP_SECONDS = 10.0
"""How long its end waits for a report under way."""
DOUBLE = "make each a member of its own, or give it another host name or `policies_cache`"
FORBIDDEN = "servers report with a certificate of `/authz/reader`, or of a member of that role"


@dataclass(frozen=True, slots=True)
class TakenState:
    """What a server has taken."""

    revision: str
    taken_at: float
    """Seconds since the epoch."""
    problem: str = ""
    """Why nothing newer is."""
    candidate: CandidateStanding | None = None
    """What became of the candidate of the fleet."""


class ServerReporter:
    """
    Reports what an ``authz serve`` has taken, which has no proxies: from a thread of its own. ``begin``, ``stop``.
    """

    def __init__(self, client: TruthClient, name: str, state: Callable[[], TakenState]) -> None:
        """
        Args:
            client: begun by somebody else, who also ends it.
            name: as ``check_replica_name`` wants it.
            state: what it has taken by now.
        """
        self._bucket, self._farewell = TruthBucket(client, FLEET), Farewell(client)
        self._key = f"{SERVER}.{name}"
        self._revision: int | None = None
        """Of what was written last; None where nobody knows."""
        self._has_double, self._was_told = False, False
        self._name = name
        self._state = state
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="report", daemon=True)

    def begin(self) -> None:
        """Report until ``stop``."""
        self._thread.start()

    def stop(self) -> None:
        """Take the report away: who ends in order is not missed. Nothing is there of one that was never answered."""
        until = time.monotonic() + FAREWELL_SECONDS
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        try:
            if not self._has_double and self._was_told:
                self._farewell.say(self._key, until=until)
        except AuthzError as error:
            log.warning("the report of this server stays: %s", error)

    def _run(self) -> None:
        told: TakenState | None = None
        told_at, problem = 0.0, ""
        while True:
            state, now = self._state(), time.time()
            if state != told or not 0 <= now - told_at < HEARTBEAT_SECONDS:
                try:
                    failure = self._report(now, state)
                    told, told_at = state, now
                except TruthForbidden as error:
                    failure = f"{error}; {FORBIDDEN}"
                except AuthzError as error:
                    failure = str(error)
                if failure and failure != problem:
                    log.error("the fleet does not know what runs here: %s", failure)
                problem = failure
            if self._stopping.wait(LOOK_SECONDS):
                return

    def _report(self, now: float, state: TakenState) -> str:
        """
        Write it, and say what is wrong with that.

        Of two that report by one name nobody knows which has what, so both say that they have nothing.
        """
        found, written = self._bucket.get(self._key), self._revision
        self._revision = None  # whatever is raised: nobody knows then what is there
        self._has_double = found is not None and written is not None and found.revision != written
        double = f"another server reports as `{self._name}`, too: {DOUBLE}" if self._has_double else ""
        if double:
            state = TakenState("", state.taken_at, double)
        self._was_told = True
        report = ReplicaReport(
            self._name, SERVE, now, state.revision, state.taken_at, state.problem, candidate=state.candidate
        )
        self._revision = self._bucket.put(self._key, replica_value(report))
        return double
