"""
Where the truth of a fleet is, and who asks: servers of NATS, the fleet's name, and the files of one's own certificate.

    nats://one.example:4222,two.example:4222/shop

Servers know their clients by the SPIFFE ID in the certificate; a connection without TLS is for this machine alone.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from authz.core.errors import SettingsError

SCHEME = "nats"
DEFAULT_PORT = 4222
FORM = "nats://HOST:PORT[,HOST:PORT…]/FLEET"
_FLEET = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class TruthAddress:
    """An address taken apart."""

    servers: tuple[str, ...]
    """``host:port`` each."""
    fleet: str
    """Buckets of several fleets may be on the same servers."""

    @property
    def is_local(self) -> bool:
        """Whether nothing of it leaves this machine."""
        return all(server.rpartition(":")[0] in _LOCAL for server in self.servers)

    def __str__(self) -> str:
        """As it is written."""
        return f"{SCHEME}://{','.join(self.servers)}/{self.fleet}"


@dataclass(frozen=True, slots=True)
class TruthAccess:
    """By what a client and the servers know each other."""

    ca: Path | None = None
    """PEM bundle that alone vouches for the servers; None: no TLS, which is for this machine alone."""
    certificate: Path | None = None
    """PEM chain of the client, read again for every connection: SVIDs are short-lived."""
    key: Path | None = None
    name: str = ""
    """The DNS name that every server's certificate has; empty: each has its own host."""


def read_truth_address(text: str) -> TruthAddress:
    """
    Take an address apart.

    Raises:
        SettingsError: it is none.
    """
    scheme, divider, rest = text.partition("://")
    hosts, slash, fleet = rest.partition("/")
    if scheme != SCHEME or not divider or not slash or "@" in rest:
        raise SettingsError(f"`{scheme}` is not followed by what the truth of a fleet needs: {FORM}")
    if not _FLEET.fullmatch(fleet):
        raise SettingsError(f"the name of a fleet has at most 63 characters of a-z, 0-9 and `-`: {FORM}")
    return TruthAddress(tuple(_server(host) for host in hosts.split(",")), fleet)


def refuse_access(address: TruthAddress, access: TruthAccess) -> None:
    """
    Check that an address and what goes with it fit.

    Raises:
        SettingsError: TLS is missing where others could listen, half of it is missing, or a file is.
    """
    if (access.certificate is None) != (access.key is None):
        raise SettingsError("the truth's certificate and key belong together: `--truth-cert` and `--truth-key`")
    if access.ca is None and access.certificate is not None:
        raise SettingsError("a certificate for the truth needs the bundle that vouches for its servers: `--truth-ca`")
    if access.ca is None and not address.is_local:
        raise SettingsError(
            f"{address} is on other machines, which needs TLS: `--truth-ca`, `--truth-cert`, `--truth-key`"
        )
    for file in (access.ca, access.certificate, access.key):
        if file is not None and not file.is_file():
            raise SettingsError(f"`{file}`: there is no such file")


def _server(text: str) -> str:
    host, divider, port = text, "", ""
    if not text.endswith("]"):
        host, divider, port = text.rpartition(":")
        if not divider:
            host, port = text, ""
    number = int(port) if port.isascii() and port.isdigit() else DEFAULT_PORT if not divider else 0
    if not _HOST.fullmatch(host) or not 0 < number < 65536:
        raise SettingsError(f"`{text[:100]}` is no server of the truth: {FORM}")
    return f"{host}:{number}"
