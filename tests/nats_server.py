"""
Real servers of NATS for tests: one, or a cluster of three, with or without TLS. Each can be killed and started again.

    servers = shared_servers()                                     a fixture: one, for all tests of a module
    with truth_servers(tmp_path) as servers:                       one, for this machine alone
    with truth_servers(tmp_path, 3, tls=True) as servers:          three, whose clients have roles
        with servers.client(TruthRole.READER) as client: …
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority
from authz.identity.secret_files import write_secret_files
from authz.truth.bucket_making import make_buckets
from authz.truth.server_configuration import (
    SERVER_PATH,
    TruthMember,
    TruthRole,
    TruthServer,
    TruthServerTls,
    server_configuration,
)
from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_bucket import TruthBucket
from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused

FLEET, TRUST_DOMAIN, NAME = "shop", "mesh.test", "truth.shop"
START_SECONDS = 20.0


def nats_server() -> str:
    """The program, beside this Python or on the path; the test is skipped without one."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("there is no nats-server")
    return found


class NatsServers:
    """Servers by number, from 0."""

    def __init__(
        self, directory: Path, count: int, ca: CertificateAuthority | None, members: tuple[TruthMember, ...] = ()
    ) -> None:
        self.directory, self.ca = directory, ca
        ports = free_ports(2 * count)
        self.address = TruthAddress(tuple(f"localhost:{port}" for port in ports[:count]), FLEET)
        routes = tuple(f"localhost:{port}" for port in ports[count:]) if count > 1 else ()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        tls = None
        if ca is not None:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "bundle.pem").write_bytes(ca.bundle_pem)
            certificate, key = self.issue(SERVER_PATH, dns=("localhost", NAME))
            tls = TruthServerTls(ca.trust_domain, directory / "bundle.pem", certificate, key)
        self._told = [
            TruthServer(
                f"server-{number}", FLEET, directory / f"server-{number}" / "store",
                listen=self.address.servers[number], cluster=routes[number] if routes else "", routes=routes, tls=tls,
                members=members, own_route=routes[number] if routes else "",
            )
            for number in range(count)
        ]  # fmt: skip
        for number, told in enumerate(self._told):
            own = directory / f"server-{number}"
            own.mkdir(parents=True)
            text = server_configuration(told)
            if tls is None:  # processes are killed here, never machines
                text = text.replace("sync_interval: always", "sync_interval: 1m")
            (own / "nats-server.conf").write_text(text)

    def issue(self, path: str, *, dns: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Files of a certificate and key of ``spiffe://mesh.test<path>``, issued now."""
        assert self.ca is not None
        issued = self.ca.issue_svid(SpiffeId(self.ca.trust_domain, path), time.time(), dns=dns)
        folder = self.directory / "certificates" / path.strip("/").replace("/", "-")
        return write_secret_files(folder, "tls", issued.chain_pem, issued.key_pem)

    def access(self, path: str) -> TruthAccess:
        """Of a client with the SPIFFE ID of this path; without TLS it does not matter who asks."""
        if self.ca is None:
            return TruthAccess()
        return TruthAccess(self.directory / "bundle.pem", *self.issue(path), NAME)

    def client(self, role: TruthRole = TruthRole.AUTHORITY) -> TruthClient:
        """One that has a role; not connected yet."""
        return TruthClient(self.address, self.access(role.path))

    def start(self, number: int) -> None:
        """Start one, with what it has in its store."""
        own = self.directory / f"server-{number}"
        with (own / "log").open("ab") as log:
            command = [nats_server(), "-c", str(own / "nats-server.conf")]
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log)
        host, _, port = self.address.servers[number].rpartition(":")
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._processes[number].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return
            time.sleep(0.02)
        raise AssertionError((own / "log").read_text())

    def let_in(self, *members: TruthMember) -> None:
        """Only these from now on of the roles that they have, as ``authz truth config`` and a reload do."""
        for number, told in enumerate(self._told):
            text = server_configuration(replace(told, members=members))
            (self.directory / f"server-{number}" / "nats-server.conf").write_text(text)
            self._processes[number].send_signal(signal.SIGHUP)

    def process_id(self, number: int) -> int:
        """Of one that was started, for signals."""
        return self._processes[number].pid

    def kill(self, number: int) -> None:
        """End one as if its machine had failed."""
        process = self._processes.pop(number, None)
        if process is not None:
            process.kill()
            process.wait(10)

    def make_buckets(self) -> None:
        """As ``authz truth init`` does, once the servers have found each other."""
        replicas = len(self.address.servers)
        until = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    make_buckets(client, replicas)
                except (TruthAway, TruthRefused):
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
                else:
                    return

    def stop(self) -> None:
        """End all."""
        for number in tuple(self._processes):
            self.kill(number)


@contextlib.contextmanager
def truth_servers(
    directory: Path,
    count: int = 1,
    *,
    tls: bool = False,
    ca: CertificateAuthority | None = None,
    members: tuple[TruthMember, ...] = (),
) -> Iterator[NatsServers]:
    """Servers with the buckets of the fleet ``shop``; ``ca`` is whose certificates they have, a new one by default."""
    if tls and ca is None:
        ca = CertificateAuthority.create(TrustDomain(TRUST_DOMAIN), time.time())
    servers = NatsServers(directory, count, ca, members)
    try:
        for number in range(count):
            servers.start(number)
        servers.make_buckets()
        yield servers
    finally:
        servers.stop()


def shared_servers(count: int = 1, *, tls: bool = False) -> Callable[[pytest.TempPathFactory], Iterator[NatsServers]]:
    """A fixture, called as what it is assigned to: ``truth_servers`` for all tests of a module or a room."""

    @pytest.fixture(scope="module")
    def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
        with truth_servers(tmp_path_factory.mktemp("truth"), count, tls=tls) as running:
            yield running

    return servers


def emptied(client: TruthClient, what: str) -> TruthBucket:
    """A bucket without the keys that an earlier test put there."""
    bucket = TruthBucket(client, what)
    for key, entry in bucket.entries().items():
        bucket.delete(key, entry.revision)
    return bucket


def free_ports(number: int) -> list[int]:
    """Different ones, because all are held at the same time."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
