"""What of the truth of its fleet this server has taken, reported there: ``authz fleet status`` shows it."""

import re
import socket
from pathlib import Path
from zlib import crc32

from authz.sources.published.policy_follower import PolicyFollower
from authz.truth.server_configuration import member_of
from authz.truth.server_reporter import ServerReporter, TakenState
from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_client import TruthClient
from authz.truth.truth_tls import path_of


class TakenReport:
    """Begins when it is made; ``stop`` takes the report away."""

    def __init__(
        self,
        address: TruthAddress,
        access: TruthAccess,
        follower: PolicyFollower,
        cache: Path,
        *,
        has_own_candidate: bool = False,
    ) -> None:
        """
        Nobody waits for the servers. A member of a role reports by its own name, which is all that it may.

        Args:
            address: of the truth that the policies come from.
            access: by what we and its servers know each other.
            follower: knows what was taken.
            cache: its directory, which no other server of this machine has.
            has_own_candidate: whether another candidate counts here than the one of the truth.

        Raises:
            SettingsError: address and access do not fit.
        """

        def state() -> TakenState:
            status, pushed = follower.status, None if has_own_candidate else follower.candidate
            standing = pushed.standing if pushed is not None else None
            return TakenState(status.revision, status.taken_at, status.error, standing)

        self._client = TruthClient(address, access, name="authz serve")
        member = member_of(path_of(access))
        name = member.name if member is not None else server_name(socket.gethostname(), cache)
        self._reporter = ServerReporter(self._client, name, state)
        self._client.begin()
        self._reporter.begin()

    def stop(self) -> None:
        """Say farewell, and end the connection."""
        self._reporter.stop()
        self._client.stop()


def server_name(machine: str, cache: Path) -> str:
    """``vm-3-1f3a09c2``: the machine's, and where its cache is: the same after a restart."""
    short = re.sub(r"[^a-z0-9-]+", "-", machine.partition(".")[0].lower()).strip("-")[:50].strip("-")
    return f"{short or 'server'}-{crc32(str(cache.absolute()).encode()):08x}"
