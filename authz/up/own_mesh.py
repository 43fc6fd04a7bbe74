"""
The folder of a mesh of one's own, read whole before anything is started; and its state directory.

    DIR/mesh.yaml, DIR/policies/, DIR/up.yaml    the user's, followed
    DIR/.authz/ca/                               the mesh's certificate authority, kept between starts
    DIR/.authz/web/                              another one, for what gateways show to browsers; web/bundle.pem
    DIR/.authz/logs/<process>.log                what each process printed; logs/audit.jsonl the decisions

The rest of the state directory is as ``envoy.options`` says.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from authz.core.errors import LoadError
from authz.envoy.native.binary import envoy_polls, find_envoy
from authz.envoy.options import RenderOptions, Secrets
from authz.identity.ca import CertificateAuthority
from authz.identity.kept import entries_for_this_user, kept_authority
from authz.identity.secret_files import write_file, write_secret_files
from authz.local.children import LocalError
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce, Mesh, MeshWorkload
from authz.up.up_file import UpFile, read_up_file

STATE = ".authz"
WEB_NAMES = ("localhost",)
LOOPBACK = "127.0.0.1"
ENTRIES = "entries.yaml"
AUDIT_LOG = "logs/audit.jsonl"
MESH, POLICIES, UP_FILE = "mesh.yaml", "policies", "up.yaml"
_DIRECTORIES = ("certs", "run", "logs", "ca", "web", "issuer")
OPTIONS = RenderOptions(workers=1, poll_seconds=0.25, secrets=Secrets.SDS)
"""One worker is enough for one user, who has other uses for inotify instances."""


@dataclass(frozen=True, slots=True)
class OwnMesh:
    """A folder that can be started."""

    folder: Path
    """Absolute."""
    mesh: Mesh
    up: UpFile
    enforce: Enforce = Enforce.CHECK
    """Who decides: the server, or every Envoy by native filters, whose access logs the server then follows."""

    @property
    def options(self) -> RenderOptions:
        """How Envoy's configuration is rendered. Raises EnvoyError: there is no Envoy."""
        poll_seconds = OPTIONS.poll_seconds if envoy_polls(find_envoy()) else 0
        return replace(OPTIONS, enforce=self.enforce, poll_seconds=poll_seconds)

    @property
    def state(self) -> Path:
        """The state directory, working directory of all processes but the user's own."""
        return self.folder / STATE

    @property
    def mesh_file(self) -> Path:
        """The description."""
        return self.folder / MESH

    @property
    def policies(self) -> Path:
        """The directory of policies."""
        return self.folder / POLICIES

    @property
    def web_bundle(self) -> Path:
        """What a client must trust to reach a gateway."""
        return self.state / "web" / "bundle.pem"

    @property
    def run(self) -> Mapping[str, str]:
        """Commands by workload."""
        return self.up.run

    def ports(self) -> Iterator[int]:
        """Every port that will be bound by what is started, the user's services with a command among them."""
        yield self.up.page
        if self.up.issuer:
            yield self.up.issuer
        for workload in self.mesh.workloads:
            yield from workload.listening
            if workload.name in self.run:
                yield app_port(workload)


def app_port(workload: MeshWorkload) -> int:
    """Where the application beside a sidecar listens."""
    return workload.inbound[0].app.process.port


def read_own_mesh(folder: Path, runs: Mapping[str, str], enforce: Enforce = Enforce.CHECK) -> OwnMesh:
    """
    Read everything but the policies, which the server reads.

    Args:
        runs: commands that count in place of those in the file.
        enforce: who decides.

    Raises:
        LocalError: the folder is not that of a mesh, or a command belongs to no workload.
        LoadError: with every problem of the files.
    """
    folder = folder.absolute()
    for name in (MESH, POLICIES):
        if not (folder / name).exists():
            raise LocalError(f"there is no `{folder / name}`: `authz init` makes a mesh to start")
    up = read_up_file(folder / UP_FILE)
    mesh = read_mesh(folder / MESH)
    up = UpFile(up.page, up.issuer, up.audience, {**up.run, **runs})
    names = [workload.name for workload in mesh.sidecars if workload.inbound]
    for name in up.run:
        if name not in names:
            close = get_close_matches(name, names, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(names) or 'none'}"
            raise LocalError(f"there is no workload `{name}` to run a command for; {hint}")
    return OwnMesh(folder, mesh, up, enforce)


def read_mesh(path: Path) -> Mesh:
    """Read the description. Raises LoadError, OSError."""
    mesh, problems = read_mesh_description([(str(path), path.read_bytes())])
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return mesh


def make_state(own: OwnMesh, now: float) -> None:
    """Make the state directory with the authorities and what they vouch for. Raises OSError."""
    for name in _DIRECTORIES:
        (own.state / name).mkdir(parents=True, exist_ok=True)
    own.state.chmod(0o700)
    for path in (own.state / "run").iterdir():
        if path.is_socket():  # of one that was killed
            os.unlink(path)
    kept_authority(own.state / "ca", own.mesh.config.trust_domain, now)
    write_entries(own.state, own.mesh)
    issue_web(own, kept_authority(own.state / "web", "web.local", now), now)


def write_entries(state: Path, mesh: Mesh) -> None:
    """Say who may have which certificate; the authority follows the file."""
    write_file(state / ENTRIES, entries_for_this_user(workload.spiffe_id for workload in mesh.workloads).encode())


def issue_web(own: OwnMesh, web: CertificateAuthority, now: float) -> None:
    """Issue what gateways show to browsers."""
    for gateway in own.mesh.gateways:
        for server in gateway.servers:
            for credential in server.credentials:
                issued = web.issue_server_certificate(WEB_NAMES, now, addresses=(LOOPBACK, "::1"))
                write_secret_files(own.state / "certs" / credential, "tls", issued.chain_pem, issued.key_pem)
