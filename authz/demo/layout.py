"""
Where the demo keeps its things, and which ports it takes.

The state directory is the working directory of every process, so all paths in it are relative (XA-11); ``mesh.options``
documents the part of it that Envoys read. Here are the demo's own parts:

    mesh.yaml               what is in force: the description, and what is in traffic/
    policies/, traffic/     only if copies are used (``--check``, ``--port-offset``)
    ca/                     the mesh's certificate authority, kept between starts; web/ and outside/ beside it
    entries.yaml            who may have which certificate by SDS
    revocations/list.txt    identities and certificates that are refused at once
    issuer/                 signing keys of the OIDC issuer; keycloak/ is Keycloak's home, where it is the issuer
    logs/<process>.log      what each process printed; logs/audit.jsonl the decisions, spans/spans.jsonl traces
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.errors import Problem
from authz.core.resources import MeshConfig
from authz.envoy.options import Authz, Secrets
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE
from authz.local.children import LocalError
from authz.mesh.login import Login, LoginEndpoints
from authz.mesh.nouns import Enforce, Mesh

ISSUER_PORT = 19191
"""Named in policies/ as the issuer's address."""
ADMIN_PORT = 19192
"""Port of the authorization server's operator side: readiness, metrics."""
CA_PORT, CA_ADMIN_PORT, CA_ENROL_PORT = 19194, 19195, 19196
"""The authority's ports: for holders of a certificate, over mutual TLS; its metrics; for bearers of a token."""
LIMITS_PORT = 19197
"""Port of the Redis that counts requests for rate limits."""
LOOPBACK = "127.0.0.1"
AUDIT_LOG = "logs/audit.jsonl"
ENTRIES = "entries.yaml"
REVOCATIONS = "revocations/list.txt"
SPANS = "spans/spans.jsonl"
OTLP_SOCKET = "run/otlp.sock"
"""The Unix socket of the demo's collector; relative to the state directory, like every path here."""


class DemoError(LocalError):
    """The demo could not start or go on; the message says why and what to do. Only this room raises it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A demo to run: its mesh, its options and its directory."""

    state: Path
    """The state directory, absolute."""
    policies: Path
    """The policies that are in force and watched, absolute."""
    mesh: Mesh
    offset: int = 0
    """The number that was added to every port, those of ``mesh`` too."""
    secrets: Secrets = Secrets.FILES
    """How proxies get their certificates; by SDS, the authority runs as a process of its own."""
    authz: Authz = Authz.SERVER
    """Who answers checks: the authorization server as a process of its own, or every proxy itself."""
    server: str = "grpcio"
    """``--server`` of the authorization server, when it is a process of its own."""
    enforce: Enforce = Enforce.CHECK
    """Who decides: the check, or every Envoy by native filters, whose access logs the server then follows."""
    keycloak: Path | None = None
    """An unpacked Keycloak, absolute, which is the issuer; None: the demo's own."""
    traffic: Path | None = None
    """The directory of more documents of the mesh description, watched, absolute; None: there are none."""
    alone: str = field(default="", repr=False)
    """Text of the mesh description without them."""
    mesh_file: str = "mesh.yaml"
    """Where both are joined to what is in force: in the state directory, relative."""
    logins: Mapping[str, LoginEndpoints] = field(default_factory=dict)
    """What the issuers of browser logins say about themselves; known once they run."""

    @property
    def issuer_port(self) -> int:
        """Port of the OIDC issuer."""
        return ISSUER_PORT + self.offset

    @property
    def issuer_url(self) -> str:
        """The ``iss`` of the demo's tokens."""
        return issuer_urls(self.offset)[self.keycloak is not None]

    @property
    def keycloak_home(self) -> Path:
        """Where Keycloak runs: links to its installation, and its data."""
        return self.state / "keycloak"

    @property
    def keycloak_password(self) -> Path:
        """File of the password of Keycloak's administrator."""
        return self.keycloak_home / "admin.password"

    @property
    def admin_port(self) -> int:
        """Port of the authorization server's administration."""
        return ADMIN_PORT + self.offset

    @property
    def ca_port(self) -> int:
        """Port of the authority."""
        return CA_PORT + self.offset

    @property
    def ca_admin_port(self) -> int:
        """Port of the authority's administration."""
        return CA_ADMIN_PORT + self.offset

    @property
    def ca_enrol_port(self) -> int:
        """Port at which workloads enrol by a token."""
        return CA_ENROL_PORT + self.offset

    @property
    def limits_port(self) -> int:
        """Port of the store of rate limits; 0 without traffic rules, which have them."""
        return LIMITS_PORT + self.offset if self.traffic is not None else 0

    @property
    def login(self) -> Login | None:
        """The login at a gateway whose issuer is the demo's own; None where there is none."""
        return next((login for login in self.mesh.logins if login.issuer == self.issuer_url), None)

    @property
    def custom_port(self) -> int:
        """Port of the external authorizer; 0 when the mesh configuration names none."""
        return next((provider.port for provider in self.mesh.config.extension_providers), 0)

    @property
    def audit_log(self) -> Path:
        """File of audit records."""
        return self.state / AUDIT_LOG

    @property
    def revocations(self) -> Path:
        """File of revoked certificates."""
        return self.state / REVOCATIONS

    @property
    def entries(self) -> Path:
        """File of registration entries."""
        return self.state / ENTRIES

    @property
    def roots(self) -> Path:
        """The mesh's trust bundle as it is now."""
        return self.state / ("ca/bundle.pem" if self.secrets is Secrets.SDS else "certs/roots/ca.crt")

    @property
    def spans(self) -> Path:
        """File of the spans that the collector got."""
        return self.state / SPANS

    @property
    def evidence(self) -> tuple[str, ...]:
        """Flags of ``authz serve`` by which the certificate of every caller is judged on every request."""
        pair = "certs/roots/ca.crt,certs/roots/intermediates.crt"
        if self.secrets is Secrets.SDS:
            pair = f"ca/{BUNDLE_FILE},ca/{INTERMEDIATES_FILE}"  # written by whoever changes the root
        bundles = {self.mesh.config.trust_domain: pair}
        files = ("--peer-trust-bundles", json.dumps(bundles), "--peer-revocations", REVOCATIONS)
        return ("--peer-certificate", "required", *files)

    @property
    def ingress_port(self) -> int:
        """The first port of the first gateway that is open to the outside."""
        for gateway in self.mesh.gateways:
            for server in gateway.servers:
                if server.takes_requests:
                    return server.port
        raise DemoError("the mesh has no ingress gateway: add a Gateway whose server has `tls.mode: SIMPLE`")


def issuer_urls(offset: int = 0) -> tuple[str, str]:
    """The ``iss`` of the demo's own issuer, and that of Keycloak's realm in its place."""
    own = f"http://{LOOPBACK}:{ISSUER_PORT + offset}"
    return own, f"{own}/realms/bookinfo"


def ports_of(mesh: Mesh, offset: int = 0) -> tuple[int, ...]:
    """Every port that the demo binds, in order; ``offset`` is the one that ``mesh`` was shifted by."""
    ports = {port + offset for port in (ISSUER_PORT, ADMIN_PORT, CA_PORT, CA_ADMIN_PORT, CA_ENROL_PORT, LIMITS_PORT)}
    for workload in mesh.workloads:
        ports.update(workload.listening)
        ports.update(port.app.process.port for port in workload.inbound)
    for service in mesh.services:
        ports.update(one.place.process.port for endpoints in service.endpoints.values() for one in endpoints)
    ports.update(provider_ports(mesh.config))
    return tuple(sorted(ports))


def provider_ports(config: MeshConfig) -> tuple[int, ...]:
    """The ports of external authorizers, which the demo runs itself."""
    return tuple(provider.port for provider in config.extension_providers if provider.port)


def shift_ports(text: str, ports: Iterable[int], offset: int) -> str:
    """
    Add ``offset`` to every occurrence of ``ports`` in a mesh description or a policy.

    On the text, so that what is shown and edited is what is in force. Only whole numbers are touched.
    """
    if not offset:
        return text
    shifted: Mapping[str, str] = {str(port): str(port + offset) for port in ports}
    return re.sub(r"(?<![\w.])\d{4,5}(?![\w.])", lambda match: shifted.get(match[0], match[0]), text)


def describe(problems: Iterable[Problem]) -> str:
    """Say what is wrong with the documents, errors only, one under the other."""
    return "\n".join(str(problem) for problem in problems if problem.is_error)
