"""Issue what the demo's proxies, gateways and outside world show, and say who may have which."""

import secrets
import shutil
from pathlib import Path

from authz.demo.layout import (
    LOOPBACK,
    Layout,
)
from authz.envoy.options import CLIENT_SECRET, Secrets
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.kept import entries_for_this_user, kept_authority
from authz.identity.secret_files import write_file, write_secret_files

WEB_NAMES = ("localhost", "bookinfo.example")
OUTSIDE_NAMES = ("books.example.com", "news.example.com")
CERTIFICATE_TTL_SECONDS = 24 * 3600.0
CLIENT_SECRET_BYTES, GROUP_MODE = 24, 0o640
NOTHING_REVOKED = b"# One `serial:` or SPIFFE ID a line is refused within a second of saving.\n"


def authority(layout: Layout, name: str, trust_domain: str, now: float) -> CertificateAuthority:
    """Load or make the authority kept in ``<state>/<name>``."""
    return kept_authority(layout.state / name, trust_domain, now)


def issue_certificates(layout: Layout, now: float) -> None:
    """
    Issue a certificate for every proxy, the ingress gateway's web side, and the stand-in for the outside world.

    Running Envoys follow the renamed files (XA-148), so this also renews them.
    """
    certs = layout.state / "certs"
    mesh_ca = authority(layout, "ca", layout.mesh.config.trust_domain, now)
    _write_bundle(certs / "roots", mesh_ca.bundle_pem)
    intermediates = b"".join(authority.chain_pem for authority in mesh_ca.authorities)
    write_file(certs / "roots" / "intermediates.crt", intermediates)  # for judges of lone leaves (XA-35)
    if not layout.revocations.exists():
        write_file(layout.revocations, NOTHING_REVOKED)
    if layout.secrets is Secrets.SDS:
        write_file(layout.entries, entries_for_this_user(w.spiffe_id for w in layout.mesh.workloads).encode())
        for workload in layout.mesh.workloads:  # from a run with files: nobody renews them any longer
            shutil.rmtree(certs / workload.name, ignore_errors=True)
    else:
        for workload in layout.mesh.workloads:
            _write_pair(certs / workload.name, mesh_ca.issue_svid(workload.spiffe_id, now))
    issue_web(layout, now)
    make_client_secrets(layout)
    issue_outside(layout, now)


def issue_web(layout: Layout, now: float) -> None:
    """Issue what gateways show to browsers, by an authority of its own."""
    certs = layout.state / "certs"
    web = authority(layout, "web", "web.demo", now)
    _write_bundle(certs / "web", web.bundle_pem)
    for gateway in layout.mesh.gateways:
        for server in gateway.servers:
            for credential in server.credentials:
                issued = web.issue_server_certificate(
                    WEB_NAMES, now, addresses=(LOOPBACK, "::1"), ttl_seconds=CERTIFICATE_TTL_SECONDS
                )
                _write_pair(certs / credential, issued)


def make_client_secrets(layout: Layout) -> None:
    """Make the secret that the gateway and the demo's own issuer share, once; among containers its group reads it."""
    if layout.login is None:
        return
    path = layout.state / "certs" / layout.login.credential / CLIENT_SECRET
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, secrets.token_urlsafe(CLIENT_SECRET_BYTES).encode(), GROUP_MODE)


def issue_outside(layout: Layout, now: float, ttl_seconds: float = CERTIFICATE_TTL_SECONDS) -> None:
    """Issue what the outside world shows, by another authority."""
    certs = layout.state / "certs"
    outside = authority(layout, "outside", "outside.demo", now)
    _write_bundle(certs / "outside", outside.bundle_pem)
    issued = outside.issue_server_certificate(OUTSIDE_NAMES, now, ttl_seconds=ttl_seconds)
    _write_pair(certs / "outside-server", issued)  # apart from the bundle, which is the egress gateway's


def _write_bundle(directory: Path, bundle: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_file(directory / "ca.crt", bundle)


def _write_pair(directory: Path, issued: Issued) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_secret_files(directory, "tls", issued.chain_pem, issued.key_pem)
