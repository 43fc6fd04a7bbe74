"""What is said of a server that cannot be reached: by real servers with TLS, and with certificates that do not fit."""

import time
from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority
from authz.identity.secret_files import write_secret_files
from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_client import TruthAway, TruthClient
from tests.nats_server import NAME, TRUST_DOMAIN, NatsServers, free_ports, shared_servers

DAY = 24 * 3600.0


servers = shared_servers(tls=True)


def why(address: TruthAddress, access: TruthAccess) -> str:
    """What a client says after its first attempt."""
    client = TruthClient(address, access)
    client.begin()
    until = time.monotonic() + 10
    try:
        while time.monotonic() < until:
            with pytest.raises(TruthAway) as away:
                client.call(lambda js: js.account_info())
            if not str(away.value).endswith("does not answer"):
                return str(away.value)
            client.wait(0.05)
    finally:
        client.stop()
    raise AssertionError("nothing more was said")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no certificate", "it asks for a certificate: `--truth-cert`"),
        ("expired", "the certificate of `--truth-cert` has expired"),
        ("of another authority", "it does not trust the authority of `--truth-cert`"),
        ("no role", "no role"),
        ("another's bundle", "nobody in `--truth-ca` vouches for its certificate"),
        ("another name", "`--truth-name` says which one it has"),
        ("no server", "nothing listens there"),
        ("no such name", "its name is not known here"),
    ],
)
def test_a_failed_connection_says_why(servers: NatsServers, tmp_path: Path, case: str, said: str) -> None:
    ours, now = servers.ca, time.time()
    assert ours is not None
    other = CertificateAuthority.create(TrustDomain(TRUST_DOMAIN), now)
    good = servers.access("/authz/ca")
    (tmp_path / "other.pem").write_bytes(other.bundle_pem)

    def issued(ca: CertificateAuthority, path: str, at: float) -> tuple[Path, Path]:
        made = ca.issue_svid(SpiffeId(ca.trust_domain, path), at)
        return write_secret_files(tmp_path / "own", "tls", made.chain_pem, made.key_pem)

    access = {
        "no certificate": lambda: TruthAccess(good.ca, None, None, NAME),
        "expired": lambda: TruthAccess(good.ca, *issued(ours, "/authz/ca", now - 10 * DAY), NAME),
        "of another authority": lambda: TruthAccess(good.ca, *issued(other, "/authz/ca", now), NAME),
        "no role": lambda: TruthAccess(good.ca, *issued(ours, "/ns/shop/sa/web", now), NAME),
        "another's bundle": lambda: TruthAccess(tmp_path / "other.pem", good.certificate, good.key, NAME),
        "another name": lambda: TruthAccess(good.ca, good.certificate, good.key, "other.shop"),
    }.get(case, lambda: good)()
    places = {"no server": f"localhost:{free_ports(1)[0]}", "no such name": "nothing.invalid:4222"}
    address = TruthAddress((places[case],), "shop") if case in places else servers.address
    assert said in why(address, access)
