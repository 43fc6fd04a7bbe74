"""Relationships with other trust domains: read as written, every problem at its place."""

from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.federation import Profile, Relationship, read_relationships

OURS, PARTNER, OTHER = TrustDomain("mesh.test"), TrustDomain("partner.test"), TrustDomain("other.test")
WRITTEN = b"""
federatesWith:
- trustDomain: partner.test
  bundleEndpointURL: https://bundle.partner.test:8443/
  bundleEndpointProfile: https_spiffe
  endpointSpiffeID: spiffe://partner.test/spire/server
  trustDomainBundlePath: partner.json
- trustDomain: spiffe://other.test
  bundleEndpointURL: https://other.test/bundle.json
  bundleEndpointProfile: https_web
  caBundlePath: /etc/ssl/private-web.pem
"""


def test_relationships_are_read_as_written() -> None:
    found, problems = read_relationships("conf/federation.yaml", WRITTEN, OURS)
    assert problems == ()
    assert found == (
        Relationship(
            PARTNER,
            "https://bundle.partner.test:8443/",
            Profile.SPIFFE,
            SpiffeId(PARTNER, "/spire/server"),
            Path("conf/partner.json"),
        ),
        Relationship(OTHER, "https://other.test/bundle.json", Profile.WEB, ca_bundle=Path("/etc/ssl/private-web.pem")),
    )


def one(text: str) -> bytes:
    return f"federatesWith:\n- {{ {text} }}\n".encode()


URL = "bundleEndpointURL: 'https://a.test/'"
WEB = f"{URL}, bundleEndpointProfile: https_web"
SPIFFE = f"trustDomain: a.test, {URL}, bundleEndpointProfile: https_spiffe"
ID_RULE = "`endpointSpiffeID` belongs to the profile https_spiffe, and is needed there"
BROKEN = [
    (b"federatesWith: [", "not YAML: "),
    (b"entries: []", "unknown field `entries`"),
    (b"federatesWith: []\n---\n{}", "expected one document with one list `federatesWith`"),
    (b"{}", "there is no list `federatesWith`"),
    (b"federatesWith: [3]", "expected a mapping"),
    (one(WEB), "`trustDomain` is missing"),
    (one(f"trustDomain: UPPER, {WEB}"), "`UPPER` is not a trust domain"),
    (one(f"trustDomain: [a], {WEB}"), "expected a string"),
    (one(f"trustDomain: mesh.test, {WEB}"), "`mesh.test` is our own trust domain, whose bundle comes from nobody else"),
    (one("trustDomain: a.test, bundleEndpointProfile: https_web"), "`bundleEndpointURL` is missing"),
    (one(f"trustDomain: a.test, {URL}"), "`bundleEndpointProfile` is missing"),
    (one(f"trustDomain: a.test, {URL}, bundleEndpointProfile: http"), "`http` is neither https_web nor https_spiffe"),
    (one(SPIFFE), ID_RULE),
    (one(f"{SPIFFE}, endpointSpiffeID: nonsense"), "`nonsense` is not a SPIFFE ID"),
    (one(f"trustDomain: a.test, {WEB}, endpointSpiffeID: spiffe://a.test/x"), ID_RULE),
    (
        one(f"{SPIFFE}, endpointSpiffeID: spiffe://a.test/x, caBundlePath: x"),
        "`caBundlePath` belongs to the profile https_web",
    ),
    (one(f"trustDomain: a.test, {WEB}") + f"- {{ trustDomain: a.test, {WEB} }}\n".encode(), "`a.test` is listed twice"),
    *(
        (
            one(f"trustDomain: a.test, bundleEndpointURL: '{url}', bundleEndpointProfile: https_web"),
            "is not an https URL",
        )
        for url in ("http://a.test/", "https://me@a.test/", "https:///x", "https://a.test:x/", "https://[::1/")
    ),
]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    found, problems = read_relationships("federation.yaml", data, OURS)
    assert message in "; ".join(problem.message for problem in problems)
    assert all(problem.location.file == "federation.yaml" for problem in problems)
    assert len(found) <= 1


def test_everything_that_is_wrong_is_said_at_once() -> None:
    data = one("trustDomain: UPPER, bundleEndpointURL: 'http://a', bundleEndpointProfile: x, typo: 1")
    _, problems = read_relationships("federation.yaml", data, OURS)
    assert len(problems) == 4
