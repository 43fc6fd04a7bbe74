"""Where things of the demo are: ports, sockets, logs and files, on this machine; containers have others."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

from authz.demo.checks.clients import ClientPlace
from authz.demo.commands import AUTHZ
from authz.demo.layout import Layout
from authz.envoy.options import Authz
from authz.local.proxy_process import ADMIN_SOCKET


class Places:
    """Places and logs of processes on this machine; ``ContainerWorld`` has others."""

    has_users = False
    """Whether every proxy runs as a user of its own, by which the authority knows it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def ingress(self) -> ClientPlace:
        """Where the ingress gateway listens."""
        return ClientPlace(self.layout.ingress_port)

    def issuers(self) -> ClientPlace:
        """Where the OIDC issuer listens."""
        return ClientPlace(self.layout.issuer_port)

    def inbound(self, workload: str) -> ClientPlace:
        """Where the sidecar of a workload receives."""
        return ClientPlace(self.layout.mesh.workload(workload).inbound[0].number)

    def outbound(self, workload: str, port: int) -> ClientPlace:
        """A loopback port of a sidecar, as its application sees it."""
        return ClientPlace(port)

    def egress(self, port: int) -> ClientPlace:
        """A port of the egress gateway inside the mesh."""
        return ClientPlace(port)

    def authority(self) -> ClientPlace:
        """Where the authority takes callers with a certificate."""
        return ClientPlace(self.layout.ca_port)

    def enrolment(self) -> ClientPlace:
        """Where the authority takes bearers of a join token."""
        return ClientPlace(self.layout.ca_enrol_port)

    def limits_store(self) -> ClientPlace:
        """Where the Redis listens in which requests are counted."""
        return ClientPlace(self.layout.limits_port)

    def authority_socket(self) -> Path:
        """The way to the authority that productpage's sidecar has, as its user."""
        return self.layout.state / "run/sds.sock"

    @property
    def sidecar_selector(self) -> str:
        """The selector that registration entries give to whoever asks there."""
        return f"unix:uid:{os.getuid()}"

    def strangers_socket(self) -> Path:
        """The way to the authority of a user without an entry; only where proxies have users of their own."""
        return self.authority_socket()

    def admin(self, workload: str) -> Path:
        """The administration of a proxy."""
        return self.layout.state / ADMIN_SOCKET.format(name=workload)

    @property
    def entries(self) -> Path:
        """Registration entries that may be changed."""
        return self.layout.entries

    @property
    def audit_log(self) -> Path:
        """A file, or a directory of them."""
        return self.layout.audit_log

    def audit_logs(self) -> list[Path]:
        """Every file of records."""
        return [self.audit_log]

    @property
    def spans(self) -> Path:
        """The collector's file."""
        return self.layout.spans

    async def operator_logs(self) -> list[str]:
        """The log of the authorization server so far; or those of all proxies, where each has a server inside."""
        embedded = [workload.name for workload in self.layout.mesh.workloads]
        names = embedded if self.layout.authz is Authz.EMBEDDED else [AUTHZ]
        logs = (self.layout.state / "logs" / f"{name}.log" for name in names)
        return [log.read_text(encoding="utf-8", errors="replace") for log in logs]

    async def logs(self) -> AsyncIterator[tuple[str, bytes]]:
        """Name and content of everything that was written about requests, by anybody."""
        for path in sorted((self.layout.state / "logs").iterdir()):
            yield path.name, path.read_bytes()
