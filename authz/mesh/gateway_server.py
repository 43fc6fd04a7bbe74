"""The servers of gateways: which names they take on a port, and their TLS."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from authz.mesh.login import Login
from authz.mesh.virtual_services import common_hosts
from authz.mesh.written_choices import Protocol
from authz.mesh.written_choices import TlsMode as TlsMode


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """A certificate and its key as paths, relative to the state directory."""

    certificate: str
    private_key: str


@dataclass(frozen=True, slots=True)
class ClientChecks:
    """What a server demands of a client's certificate beside an authority (``MUTUAL`` and ``OPTIONAL_MUTUAL``)."""

    ca_certificates: str = ""
    """Path of a PEM bundle, relative to the state directory; empty: ``ca.crt`` of a credential."""
    ca_credential: str = ""
    """Directory below ``certs/`` with ``ca.crt``; empty: that of the server's certificate."""
    crl: str = ""
    """Path of revocations, relative to the state directory."""
    subject_alt_names: tuple[str, ...] = ()
    spki: tuple[str, ...] = ()
    """SHA-256 of public keys, in Base64."""
    hashes: tuple[str, ...] = ()
    """SHA-256 of certificates, in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """
    One ``servers[]`` of a Gateway.

    Unless ``is_routed``, ``ISTIO_MUTUAL`` leads requests of the mesh outwards, and ``PASSTHROUGH`` TLS of the
    applications' own. Everything else leads to what VirtualServices say.
    """

    port: int
    name: str
    """Name of its port."""
    hosts: tuple[str, ...]
    tls: TlsMode
    credential: str = ""
    """Directory below ``certs/`` with ``tls.crt`` and ``tls.key`` (and ``ca.crt`` for MUTUAL)."""
    minimum_protocol: str = "TLSV1_2"
    ciphers: tuple[str, ...] = ()
    gateway: str = ""
    """``namespace/name`` of its Gateway, by which VirtualServices are bound to it."""
    login: Login | None = None
    """How people sign in there with a browser; None: they do not."""
    protocol: Protocol = Protocol.HTTP
    scopes: tuple[tuple[str, str], ...] = ()
    """Namespace of VirtualServices and host, for each host that is not for every namespace's."""
    bind: str = ""
    """Empty: every address of the machine."""
    https_redirect: bool = False
    """Whether requests are sent to the same URL with ``https``."""
    maximum_protocol: str = "TLSV1_3"
    more_credentials: tuple[str, ...] = ()
    """Further directories, of certificates with other kinds of keys."""
    certificates: tuple[CertificatePaths, ...] = ()
    """Instead of credentials."""
    client: ClientChecks = ClientChecks()
    is_routed: bool = False
    """Whether VirtualServices lead where a PASSTHROUGH or ISTIO_MUTUAL server's connections or requests go."""

    @property
    def is_egress(self) -> bool:
        """Whether sidecars send through it, by mTLS of the mesh, whatever leaves it."""
        return self.tls is TlsMode.ISTIO_MUTUAL and not self.is_routed

    @property
    def is_passthrough(self) -> bool:
        """Whether TLS passes unopened to hosts outside, by its server name."""
        return self.tls is TlsMode.PASSTHROUGH and not self.is_routed

    @property
    def is_outwards(self) -> bool:
        """Whether it leads to hosts outside the mesh."""
        return self.is_egress or self.is_passthrough

    @property
    def leads_inwards(self) -> bool:
        """Whether VirtualServices say where it leads."""
        return not self.is_outwards

    @property
    def takes_requests(self) -> bool:
        """Whether VirtualServices say where it leads, request by request."""
        return self.leads_inwards and self.protocol.is_http and self.tls is not TlsMode.PASSTHROUGH

    @property
    def asks_for_certificate(self) -> bool:
        """Whether clients are asked for a certificate of their own."""
        return self.tls in (TlsMode.MUTUAL, TlsMode.OPTIONAL_MUTUAL)

    @property
    def credentials(self) -> tuple[str, ...]:
        """Every directory below ``certs/`` with a certificate that it shows."""
        return tuple(name for name in (self.credential, *self.more_credentials) if name)

    @property
    def server_names(self) -> tuple[str, ...]:
        """The names for which a client may ask in TLS; empty for any."""
        names = tuple(sorted({host.lower() for host in self.hosts}))
        return () if "*" in names else names

    def hosts_for(self, namespace: str) -> tuple[str, ...]:
        """The hosts that a VirtualService of this namespace may take."""
        scoped = {host for _, host in self.scopes}
        allowed = {host for scope, host in self.scopes if scope == namespace}
        return tuple(host for host in self.hosts if host not in scoped or host in allowed)

    def admits(self, host: str, namespace: str) -> bool:
        """Whether a VirtualService of this namespace may have routes for this host, or for some that it stands for."""
        return bool(common_hosts([host.lower()], [one.lower() for one in self.hosts_for(namespace)]))


def server_groups(servers: Iterable[GatewayServer]) -> list[tuple[GatewayServer, ...]]:
    """The servers that share a listener, by port and address, in order."""
    found: dict[tuple[int, str], list[GatewayServer]] = {}
    for server in servers:
        found.setdefault((server.port, server.bind), []).append(server)
    return [tuple(found[key]) for key in sorted(found)]


def group_name(servers: Sequence[GatewayServer]) -> str:
    """Name of the listener of the servers of one port and address."""
    first = servers[0]
    bound = f"_{first.bind.replace(':', '.')}" if first.bind else ""
    return f"{'ingress' if first.leads_inwards else 'egress'}_{first.port}{bound}"


def table_groups(servers: Iterable[GatewayServer]) -> list[tuple[str, tuple[GatewayServer, ...]]]:
    """
    Every route table of a gateway that follows VirtualServices: its name, and the servers whose hosts it has.

    As in Istio, plaintext servers of a port have one table, and each server with TLS has its own: what is asked for by
    one name in TLS does not reach the hosts of another.
    """
    found: list[tuple[str, tuple[GatewayServer, ...]]] = []
    for group in server_groups(servers):
        taking = tuple(server for server in group if server.takes_requests)
        if not taking:
            continue
        if taking[0].tls is TlsMode.DISABLE or len(group) == 1:
            found.append((group_name(group), taking))
        else:
            found += [(f"{group_name(group)}_{one.gateway.replace('/', '_')}_{one.name}", (one,)) for one in taking]
    return found
