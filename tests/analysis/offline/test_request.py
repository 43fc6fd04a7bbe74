import pytest

from authz.analysis.offline.request import OfflineRequest, passed_through
from authz.core import resources as r
from tests import build


@pytest.mark.parametrize(
    ("mode", "tls", "opaque"),
    [
        ("PERMISSIVE", "simple", True),
        ("PERMISSIVE", "mtls", False),
        ("PERMISSIVE", "plaintext", False),
        ("STRICT", "simple", False),
        ("DISABLE", "simple", True),
        ("DISABLE", "mtls", True),
        ("DISABLE", "plaintext", False),
    ],
)
def test_tls_that_the_proxy_does_not_terminate_is_opaque_tcp(mode: str, tls: str, opaque: bool) -> None:
    """PA-10, PA-11."""
    peer = r.PeerAuthentication(r.Metadata("m", "istio-system"), mode=r.MtlsMode(mode))
    policies = build.policies_for(peer)
    caller = build.CALLER if tls == "mtls" else ""
    described = OfflineRequest(tls=tls, source_principal=caller)
    seen = passed_through(described, build.request(caller=caller or None), policies)

    assert (seen.http is None) is opaque
    assert bool(seen.source.identities) is (tls == "mtls" and not opaque)
