"""
Which processes make up a fleet for trying, as values: nothing is started here.

They are the commands that a person would type on three machines (docs/fleet.md).
"""

import sys
from collections.abc import Mapping

from authz.core.spiffe import TrustDomain
from authz.local.children import Command
from authz.truth.server_configuration import TruthServer, TruthServerTls, server_configuration
from authz.up.fleet_plan import TRUTH_HOST, FleetPlan, FleetReplica
from authz.up.own_mesh import LOOPBACK

SERVER_CONF = "server.conf"
KEYS = "keys"
"""Directory of the key that signs policies, entries and revocations."""
REVOCATIONS = "revoked.txt"
"""Nobody, at first."""
IS_THERE = 3
"""Exit code of ``first_policies`` and ``first_revocations``: a revision is in force."""
CONTROL_SECONDS = 90.0
"""For a control to become ready: it renders the whole mesh first, beside others on a busy machine."""


def another_authority(plan: FleetPlan, replica: FleetReplica) -> Command:
    """Make the authority of a further replica; it ends."""
    told = {"--ca": plan.replicas[0].ca, "--name": f"replica-{replica.number}", "--out": replica.ca}
    return _once(f"make-{replica.ca}", "authority", "ca", "intermediate", "issue", *_options(told))


def signing_key() -> Command:
    """Make the key that signs policies; it ends."""
    return _once("make-keys", "key of policies", "bundle", "keygen", KEYS)


def first_policies(plan: FleetPlan) -> Command:
    """Put the first policies and the description in force; it ends, with ``IS_THERE`` when some are."""
    told = {"--mesh": str(plan.mesh_file), "--to": plan.truth_address, "--key": f"{KEYS}/bundle.key"}
    more = {"--if-revision": "0", "--message": "first ones", **plan.truth_certificate}
    return _once("push-policies", "first policies", "policies", "push", str(plan.policies), *_options(told | more))


def first_revocations(plan: FleetPlan) -> Command:
    """Sign that nobody is revoked, without which no control starts; it ends, with ``IS_THERE`` when there is a list."""
    told = {"--key": f"{KEYS}/bundle.key", "--if-revision": "0", **plan.truth_options}
    return _once("push-revocations", "first revocations", "ca", "revocation", "push", REVOCATIONS, *_options(told))


def truth_server(nats_server: str, replica: FleetReplica) -> Command:
    """One server of the truth: ready when it has found the others and one of them leads."""
    arguments = (nats_server, "--config", f"{replica.truth_name}/{SERVER_CONF}")
    return Command(replica.truth_name, "server of the truth", arguments, f"http:{replica.monitor}/healthz")


def control(plan: FleetPlan, replica: FleetReplica) -> Command:
    """One control with the authority of its replica."""
    told = {
        "--policies": plan.truth_address,
        "--policies-public-keys": f"{KEYS}/bundle.pub",
        "--entries-public-keys": f"{KEYS}/bundle.pub",
        "--ca": replica.ca,
        "--listen": f"{LOOPBACK}:{replica.listen}",
        "--enrol": f"{LOOPBACK}:{replica.enrol}",
        "--admin": f"{LOOPBACK}:{replica.admin}",
        "--keep": replica.control_name,
        "--replica": replica.control_name,
        "--audit": plan.truth_address,
        **plan.truth_options,
    }
    return Command(
        replica.control_name,
        "control",
        (*cli(), "control", *_options(told)),
        f"http:{replica.admin}/readyz",
        patience_seconds=CONTROL_SECONDS,
    )


def server_conf(plan: FleetPlan, replica: FleetReplica) -> str:
    """The configuration of one server of the truth."""
    folder = plan.folder / replica.truth_name
    told = TruthServer(
        replica.truth_name,
        plan.name,
        folder / "store",
        listen=f"{LOOPBACK}:{replica.truth}",
        cluster=f"{LOOPBACK}:{replica.routes}" if len(plan.replicas) > 1 else "",
        routes=tuple(f"{TRUTH_HOST}:{other.routes}" for other in plan.replicas if len(plan.replicas) > 1),
        own_route=f"{TRUTH_HOST}:{replica.routes}",
        monitor=f"{LOOPBACK}:{replica.monitor}",
        tls=TruthServerTls(
            TrustDomain(plan.mesh.config.trust_domain), plan.bundle, folder / "tls.crt", folder / "tls.key"
        ),
    )
    return server_configuration(told)


def cli() -> tuple[str, ...]:
    """The same installation as this process, whatever the PATH says."""
    return (sys.executable, "-m", "authz")


def _once(name: str, kind: str, *arguments: str) -> Command:
    return Command(name, kind, (*cli(), *arguments))


def _options(told: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for pair in told.items() for part in pair)
