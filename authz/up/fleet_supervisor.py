"""Start a fleet for trying on one machine: the servers of its truth, then its controls; stop it."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable

from authz.core.spiffe import AUTHORITY_PATH, SpiffeId
from authz.identity.ca import STATE_FILE, CertificateAuthority
from authz.identity.kept import kept_authority
from authz.identity.secret_files import write_file, write_secret_files
from authz.local.busy import busy_ports
from authz.local.children import Command, LocalError, last_lines, start, stop
from authz.local.nats_binary import find_nats_server, version_of
from authz.local.supervision import LocalSupervisor, OnEvent
from authz.truth.bucket_making import make_buckets
from authz.truth.server_configuration import SERVER_PATH
from authz.truth.server_version import old_server
from authz.truth.truth_address import TruthAccess, read_truth_address
from authz.truth.truth_client import TruthClient
from authz.truth.truth_stream import make_stream
from authz.up.fleet_commands import (
    IS_THERE,
    KEYS,
    REVOCATIONS,
    SERVER_CONF,
    another_authority,
    control,
    first_policies,
    first_revocations,
    server_conf,
    signing_key,
    truth_server,
)
from authz.up.fleet_plan import TRUTH_CLIENT, TRUTH_HOST, FleetPlan, FleetReplica

REPLICAS = 3
"""Servers that keep a bucket: one may be lost."""
ONCE_SECONDS = 60.0
"""For a command that does something and ends."""
TRUTH_CERTIFICATE_SECONDS = 30 * 24 * 3600.0
"""Life of what servers of the truth show each other and their clients, made anew by every start."""


class FleetSupervisor(LocalSupervisor):
    """``start`` once, then ``stop``."""

    def __init__(self, plan: FleetPlan, report: OnEvent, clock: Callable[[], float] = time.time) -> None:
        super().__init__(plan.folder, report)
        self.plan = plan
        self._clock = clock

    async def start(self) -> None:
        """
        Make the authorities, and start everything.

        Raises LocalError, TruthAway and TruthRefused; what was started by then is stopped again.
        """
        plan, nats_server = self.plan, find_nats_server()
        if old := old_server(await asyncio.to_thread(version_of, nats_server)):
            raise LocalError(f"`{nats_server}`: {old}")
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock(f"this fleet is already running, in `{plan.folder}`; stop it first")
        try:
            if busy := busy_ports(plan.ports()):
                raise LocalError(
                    f"port {', '.join(map(str, busy[:8]))} in use by something else: stop it, or choose others by "
                    "`--first-port`"
                )
            began = time.monotonic()
            (plan.folder / "logs").mkdir(exist_ok=True)
            await self._run_once(another_authority(plan, one) for one in await self._lacking_authorities())
            await asyncio.to_thread(self._make_truth)
            self._step("certificates", began)
            await self._start_wave([truth_server(nats_server, replica) for replica in plan.replicas])
            await asyncio.to_thread(self._make_buckets)
            if not (plan.folder / KEYS).exists():
                await self._run_once([signing_key()])
            (plan.folder / REVOCATIONS).touch()
            await self._run_once([first_policies(plan), first_revocations(plan)], (0, IS_THERE))
            await self._start_wave([control(plan, replica) for replica in plan.replicas])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, controls before their truth. Safe to call twice."""
        await self._stop_tasks()
        await self._stop_children([replica.control_name for replica in self.plan.replicas])
        await self._stop_children(list(self._children))
        self._leave_lock()

    async def _lacking_authorities(self) -> list[FleetReplica]:
        """Keep or make the first authority with the root's key; the replicas that have none yet."""
        plan = self.plan
        first, *others = plan.replicas
        trust_domain = str(plan.mesh.config.trust_domain)
        ca = await asyncio.to_thread(kept_authority, plan.folder / first.ca, trust_domain, self._clock())
        if not plan.bundle.exists() or plan.bundle.read_bytes() != ca.bundle_pem:  # those of before are of another root
            for replica in others:
                shutil.rmtree(plan.folder / replica.ca, ignore_errors=True)
        write_file(plan.bundle, ca.bundle_pem)
        return [replica for replica in others if not (plan.folder / replica.ca / STATE_FILE).exists()]

    async def _run_once(self, commands: Iterable[Command], good: tuple[int, ...] = (0,)) -> None:
        """Run commands one after another, each to its end. Raises LocalError when one ends otherwise."""
        for command in commands:
            try:
                child = await start(command, self.plan.folder)
            except OSError as error:
                raise LocalError(f"{command.name} cannot be started: {error}") from error
            try:
                code = await asyncio.wait_for(child.process.wait(), ONCE_SECONDS)
            except TimeoutError:
                raise LocalError(f"{command.name} does not end") from None
            finally:
                await stop(child, kill=True)
            if code not in good:
                said = last_lines(self.plan.folder, command.name)
                raise LocalError(f"{command.name} ended with code {code}:\n{said}")

    def _make_truth(self) -> None:
        """The configuration and certificates of every server of the truth. Raises OSError."""
        plan, now = self.plan, self._clock()
        ca = CertificateAuthority.load(plan.folder / plan.replicas[0].ca)
        whose = {replica.truth_name: SERVER_PATH for replica in plan.replicas} | {TRUTH_CLIENT: AUTHORITY_PATH}
        for name, path in whose.items():
            directory = plan.folder / name
            directory.mkdir(mode=0o700, exist_ok=True)
            own = SpiffeId(ca.trust_domain, path)
            issued = ca.issue_svid(own, now, dns=(TRUTH_HOST,), ttl_seconds=TRUTH_CERTIFICATE_SECONDS)
            write_secret_files(directory, "tls", issued.chain_pem, issued.key_pem)
        for replica in plan.replicas:
            write_file(plan.folder / replica.truth_name / SERVER_CONF, server_conf(plan, replica).encode())

    def _make_buckets(self) -> None:
        """Raises TruthAway, TruthRefused."""
        files = self.plan.folder / TRUTH_CLIENT
        access = TruthAccess(self.plan.bundle, files / "tls.crt", files / "tls.key", TRUTH_HOST)
        with TruthClient(read_truth_address(self.plan.truth_address), access) as client:
            replicas = REPLICAS if len(self.plan.replicas) >= REPLICAS else 1
            made = make_buckets(client, replicas)
            is_made = make_stream(client, replicas)
        if made or is_made:
            self._step("buckets of the truth", time.monotonic())
