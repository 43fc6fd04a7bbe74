"""
The choices when a mesh is rendered, and the layout of the state directory in which every Envoy runs.

All paths are relative to the state directory, the working directory of every process (XA-11):

    envoy/<proxy>.yaml      bootstrap: node, admin socket
    cds/<proxy>.yaml        clusters: the services that the proxy calls
    rds/<proxy>.<listener>.yaml  routes of one listener; replaced without touching a connection
    lds/<proxy>.yaml        listeners; follow PeerAuthentication without a restart
    ecds/<proxy>.<slot>.json  the filters of a proxy that decides by itself; replaced without touching a connection
    eds/<cluster>.yaml      addresses (``eds-compose/`` is mounted in their place among containers)
    sds/<proxy>.yaml        where a proxy finds its certificate; ``sds/roots.yaml`` and ``sds/<credential>.yaml``
    certs/<proxy>/          tls.crt, tls.key: renamed into place, key first (XA-150, XA-151)
    certs/roots/ca.crt      the trust bundle
    certs/<credential>/     tls.crt, tls.key (and ca.crt for MUTUAL) of a gateway's server
                            client-secret, hmac of a browser login; sds/<credential>.hmac.yaml leads to it
    run/authz-<i>.sock      worker i of the authorization server; among containers run/authz/authz-<i>.sock
    run/limits.sock         the service that counts for all proxies; among containers run/authz/limits.sock
    run/sds.sock            the secret discovery server, if secrets come from it; among containers run/ca/sds.sock
    run/<proxy>.admin.sock  administration of an Envoy
    logs/<proxy>.json       access log; logs/<proxy>.outbound.json and logs/<proxy>.filtered.json if a Telemetry asks
    login/<credential>.json what the issuer of a browser login said about itself, in case it does not answer

The caller makes ``run/`` and ``logs/``. This file imports no Envoy library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from authz.mesh.login import LoginEndpoints
from authz.mesh.nouns import Enforce, MeshWorkload

AUTHZ_CLUSTER = "authz"
LIMITS_CLUSTER = "limits"
OTLP_CLUSTER = "otlp"
SDS_CLUSTER = "sds"
CONTROL_CLUSTER = "authz-control"
CLIENT_SECRET, HMAC_KEY = "client-secret", "hmac"
"""Files in the directory of a browser login's credential."""
HOST_MODULE = "run/authz-host.so"
"""The hosting module of embedded authorization, or a link to it: ``authz mesh environment`` makes one."""
ROOTS_SECRET = "ROOTCA"  # noqa: S105  # the name under which Istio's agents ask for the trust bundle, no secret
LABEL_NAMESPACE = "authz/namespace"
LABEL_SERVICE_ACCOUNT = "authz/service-account"
LABEL_WORKLOAD = "authz/workload"
LABEL_PROXY = "authz/proxy"
"""Reserved labels by which the authorization server knows who asks; the service strips them."""


RENDERED_DIRECTORIES = ("envoy", "ecds", "cds", "rds", "lds", "eds", "eds-compose", "sds", "login")
HEADER = b"# rendered by `authz mesh render`; do not edit\n"
"""First line of every rendered file."""
FILTERS_HEADER = b'{"version_info":'
"""How a file of filters begins, which is JSON and has no comment."""
LOGIN_HEADER = b'{\n "issuer":'
"""How the kept document of an issuer begins, for the same reason."""


def log_file(proxy: str) -> str:
    """The access log of a proxy."""
    return f"logs/{proxy}.json"


def filtered_log_file(proxy: str) -> str:
    """What a Telemetry's filter leaves of the access log of a proxy whose whole log is the record."""
    return f"logs/{proxy}.filtered.json"


def outbound_log_file(proxy: str) -> str:
    """The access log of what leaves a workload, if a Telemetry asks for one."""
    return f"logs/{proxy}.outbound.json"


def filters_file(proxy: str, slot: str) -> str:
    """Where one slot's filters of a proxy that decides by itself are; Envoy wants one resource a file."""
    return f"ecds/{proxy}.{slot}.json"


def routes_file(proxy: str, listener: str) -> str:
    """Where the routes of one listener of a proxy are; Envoy wants one route table a file."""
    return f"rds/{proxy}.{listener}.yaml"


def embedded_socket(proxy: str) -> str:
    """Where a proxy with the authorization server inside asks itself."""
    return f"run/{proxy}.authz.sock"


class Secrets(StrEnum):
    """Where certificates come from: files that are renamed into place, or the secret discovery server."""

    FILES = "files"
    SDS = "sds"


class Authz(StrEnum):
    """Who answers the checks: the authorization server's workers, or the proxy itself with the server inside."""

    SERVER = "server"
    EMBEDDED = "embedded"


class Records(StrEnum):
    """
    The carrier of what a proxy that decides by itself says of its decisions.

    ``FILE``: its log, for whoever reads it on its machine. ``CONTROL``: the control plane, by its access log service;
    only with ``Listeners.ADS``.
    """

    FILE = "file"
    CONTROL = "control"


class Listeners(StrEnum):
    """
    Where a proxy has its listeners from, and with them everything else that changes.

    ``DYNAMIC``: a file of their own that Envoy follows. ``STATIC``: in the bootstrap, one file for each proxy. ``ADS``:
    the control plane; what is rendered names files all the same, and becomes resources where it is served.
    """

    DYNAMIC = "dynamic"
    STATIC = "static"
    ADS = "ads"


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Everything about the rendering that is neither the mesh nor its policies."""

    authz: Authz = Authz.SERVER
    enforce: Enforce = Enforce.CHECK
    """The way of workloads without the annotation ``mesh.authz/enforce``."""
    keep_check: frozenset[str] = frozenset()
    """Names of workloads that ask the check in any case, because Envoy could not decide some of their policies."""
    workers: int = 2
    """Endpoints of the authorization server, one socket each (XA-123); none when it is embedded."""
    secrets: Secrets = Secrets.FILES
    listeners: Listeners = Listeners.DYNAMIC
    control: tuple[str, ...] = ()
    """``host:port`` of every replica of the control plane, for ``Listeners.ADS``."""
    report_seconds: int = 0
    """How often a proxy tells the control plane what it refused, for ``Listeners.ADS``; 0: never."""
    records: Records = Records.FILE
    otlp: str = ""
    """Address of an OpenTelemetry collector: ``host:port``, or the path of a socket; empty: no tracing."""
    otlp_compose: str = ""
    """The same among containers; empty: as ``otlp``."""
    sampling_percent: float = 100.0
    tls_minimum: str = "TLSv1_3"
    """The minimum between proxies; TLSv1_2 or TLSv1_3."""
    tls_ciphers: tuple[str, ...] = ()
    """Cipher suites of TLS 1.2; empty: Envoy's default."""
    check_timeout_seconds: float = 0.5
    """Seconds for one check with its retries. Envoy's own 0.2 s (XA-101) is too short for a cold worker."""
    check_try_seconds: float = 0.2
    """Seconds for one try; it is ``retry_back_off.max_interval`` (XA-103)."""
    max_connection_seconds: int = 600
    """Bounds how long a connection outlives its certificate (XA-141)."""
    max_downstream_connections: int = 10_000
    """Connections to one proxy; further ones are refused."""
    query_values: tuple[str, ...] = ()
    """Query parameters whose values native proxies log, so that records have them; of others not even the names."""
    poll_seconds: float = 0
    """
    Look at followed files this often instead of watching them; 0 watches.

    Each watch takes an inotify instance, eight for a proxy, and a user has 128 of them by default: a whole mesh of
    processes on a desktop exhausts them, and Envoy then aborts.
    """
    logins: Mapping[str, LoginEndpoints] = field(default_factory=dict)
    """What the issuers of browser logins say about themselves, by issuer; every login of the mesh needs its own."""
    include_peer_certificate: bool = False
    """Send the caller's certificate with every check, about 800 bytes (XA-35)."""
    refuse_underscores: bool = True
    """Answer 400 to header names with ``_``, which applications confuse with ``-`` (XA-73)."""
    source_addresses: bool = False
    """
    Give each workload its own loopback source address, ``127.0.1.n``, so that IP blocks can be tried (XA-140).

    Only for processes on Linux: container networks refuse it.
    """

    def is_native(self, workload: MeshWorkload) -> bool:
        """Whether the workload's own Envoy decides."""
        return workload.name not in self.keep_check and (workload.enforce or self.enforce) is Enforce.NATIVE
