"""
A fleet for trying on one machine, as values: its replicas, their ports and files. Nothing is started here.

    DIR/ca-1/           the authority that has the root's key; ca-2/ … are others below the same root
    DIR/bundle.pem      what machines check this fleet by
    DIR/truth-1/        of a server of the truth: its configuration, certificate and store
    DIR/truth-client/   by which controls and commands are known there
    DIR/keys/           what signs policies, entries and revocations
    DIR/control-1/      what a control keeps
    DIR/logs/           what each process printed
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from authz.local.children import LocalError
from authz.mesh.nouns import Mesh
from authz.up.own_mesh import read_mesh

FIRST_PORT = 16000
TRUTH_HOST = "localhost"
"""The name in the certificates of the truth's servers."""
TRUTH_CLIENT = "truth-client"
"""Directory of the certificate by which controls and commands are known there."""
PORTS_EACH = 10
"""Replica 1 begins so many behind the first port, replica 2 as many behind that."""
MOST_REPLICAS = 5
"""More than five keep a truth no better (https://docs.nats.io: an odd number, at most 5)."""


@dataclass(frozen=True, slots=True)
class FleetReplica:
    """One server of the truth and one control."""

    number: int
    first_port: int

    @property
    def truth(self) -> int:
        """Port of the truth for clients."""
        return self.first_port

    @property
    def routes(self) -> int:
        """Port by which servers of the truth reach each other."""
        return self.first_port + 1

    @property
    def monitor(self) -> int:
        """Port of the truth's health."""
        return self.first_port + 2

    @property
    def listen(self) -> int:
        """Port of discovery."""
        return self.first_port + 3

    @property
    def enrol(self) -> int:
        """Port for join tokens."""
        return self.first_port + 4

    @property
    def admin(self) -> int:
        """Port of metrics, health and what proxies run."""
        return self.first_port + 5

    @property
    def ports(self) -> range:
        """All of them."""
        return range(self.truth, self.admin + 1)

    @property
    def truth_name(self) -> str:
        """The process, its log and directory."""
        return f"truth-{self.number}"

    @property
    def control_name(self) -> str:
        """The process, its log and directory."""
        return f"control-{self.number}"

    @property
    def ca(self) -> str:
        """Its authority's directory."""
        return f"ca-{self.number}"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A fleet that can be started."""

    folder: Path
    """Absolute; everything that the fleet keeps."""
    name: str
    """Of the fleet, as bundles and buckets have it."""
    mesh_file: Path
    policies: Path
    mesh: Mesh
    replicas: tuple[FleetReplica, ...]

    @property
    def bundle(self) -> Path:
        """The trust bundle."""
        return self.folder / "bundle.pem"

    @property
    def truth_address(self) -> str:
        """All servers of the truth, and the fleet."""
        servers = ",".join(f"{TRUTH_HOST}:{replica.truth}" for replica in self.replicas)
        return f"nats://{servers}/{self.name}"

    @property
    def truth_certificate(self) -> Mapping[str, str]:
        """By which the truth knows our commands to be an authority's; files are relative to ``folder``."""
        files = {"--truth-cert": f"{TRUTH_CLIENT}/tls.crt", "--truth-key": f"{TRUTH_CLIENT}/tls.key"}
        return {"--truth-ca": self.bundle.name, **files}

    @property
    def truth_options(self) -> Mapping[str, str]:
        """The same with the address, for commands that take ``--truth``."""
        return {"--truth": self.truth_address, **self.truth_certificate}

    def ports(self) -> list[int]:
        """Every port that will be bound."""
        return [port for replica in self.replicas for port in replica.ports]


def plan_fleet(folder: Path, name: str, mesh_file: Path, policies: Path, replicas: int, first_port: int) -> FleetPlan:
    """
    Read the description and number the replicas.

    Raises:
        LoadError: with every problem of the description.
        LocalError: there are not enough ports.
    """
    if not 1024 <= first_port <= 65535 - PORTS_EACH * (replicas + 1):
        raise LocalError(f"there are not enough ports from {first_port} on: choose 1024 or more, and below 65000")
    try:
        mesh = read_mesh(mesh_file)
    except OSError as error:
        raise LocalError(f"`{mesh_file}` cannot be read: {error.strerror}") from error
    numbered = tuple(FleetReplica(n, first_port + PORTS_EACH * n) for n in range(1, replicas + 1))
    return FleetPlan(folder.absolute(), name, mesh_file.absolute(), policies.absolute(), mesh, numbered)
