"""Addresses in both worlds, and the ports of services."""

from dataclasses import dataclass

from authz.mesh.written_choices import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address (or, for external services resolved by DNS, a host name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """One address in each of the two worlds: processes of one machine, and containers (XA-190)."""

    process: Address
    compose: Address


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a service; ``name`` ties it to the workloads' ports."""

    number: int
    name: str
    protocol: Protocol
    target: int = 0
    """The port of endpoints that do not say one (``targetPort``); 0: the same number."""

    @property
    def speaks_tls(self) -> bool:
        """Whether what comes there as bytes is TLS of an application's own, which ``tls`` routes look at."""
        return self.protocol in (Protocol.TLS, Protocol.HTTPS)
