"""Names become parts of file names: what could lead elsewhere is refused where it is written."""

import pytest

from authz.mesh.description import read_mesh_description
from tests.mesh.test_description import BOOKINFO

TEXT = BOOKINFO.read_text()
NAMES = ("../../etc/x", "a/b", "..", ".", "a..b", "%41", "a b", "UPPER", "a_b", "a\\n")
PLACES = {
    "a workload": ("name: productpage-v1\n", "name: {}\n", "a name"),
    "a namespace": (
        "name: productpage-v1\n  namespace: bookinfo",
        "name: productpage-v1\n  namespace: {}",
        "a namespace",
    ),
    "a Gateway": ("name: bookinfo-gateway\n", "name: {}\n", "a name"),
    "a service": ("metadata: {{name: ratings, ", "metadata: {{name: {}, ", "a name"),
    "a certificate": ("credentialName: bookinfo-web", "credentialName: {}", "a name"),
    "a login": ("credentialName: bookinfo-login ", "credentialName: {} ", "a name"),
    "a port": ("number: 15443, name: https", "number: 15443, name: {}", "the name of a port"),
    "a host": ("hosts: [ratings.bookinfo.svc.cluster.local]", "hosts: [{}]", "a host"),
    "a host outside": ("hosts: [books.example.com,", "hosts: [{},", "a host"),
    "a server": ('hosts: ["*"]\n    tls: {{mode: SIMPLE', "hosts: [{}]\n    tls: {{mode: SIMPLE", "a host"),
}
HARMLESS = {
    *(("a certificate", name) for name in ("UPPER", "a_b", "a..b")),  # a directory of the user's own
    ("a server", "a/b"),  # a namespace and a host
    *((place, "UPPER") for place in ("a host", "a host outside", "a server")),
    ("a login", "a..b"),
}
"""What stays within one directory all the same."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_a_name_that_could_lead_to_another_file_is_refused(place: str, name: str) -> None:
    old, new, what = PLACES[place]
    written = TEXT.replace(old.format(), new.format(f'"{name}"'), 1)
    assert written != TEXT
    _, problems = read_mesh_description([("mesh.yaml", written.encode())])
    told = [problem.message for problem in problems if problem.is_error]
    assert any(one.endswith(f"is not {what}") for one in told) is ((place, name) not in HARMLESS), told


@pytest.mark.parametrize("host", ["../../x:y", "a:/b", "::g", "1.2.3.4:80", "fe80::1%/x"])
def test_a_host_with_a_colon_is_an_address_or_refused(host: str) -> None:
    written = TEXT.replace('hosts: ["*"]\n    tls: {mode: SIMPLE', f'hosts: ["{host}"]\n    tls: {{mode: SIMPLE', 1)
    _, problems = read_mesh_description([("mesh.yaml", written.encode())])
    assert any(f"`{host}` is not a host" in problem.message for problem in problems if problem.is_error)


SERVER = "tls: {mode: SIMPLE, credentialName: bookinfo-web, minProtocolVersion: TLSV1_2}"
BOTH = """tls: {mode: MUTUAL, credentialName: web}
  - port: {number: 15443, name: two, protocol: HTTPS}
    hosts: [a.example]
    tls: {mode: SIMPLE, credentialName: web-cacert}"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: own, namespace: bookinfo}
spec: {host: ratings.bookinfo.svc.cluster.local, trafficPolicy: {tls: {mode: MUTUAL, credentialName: NAME}}}
"""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (TEXT.replace("bookinfo-web", "roots"), "the credential `roots` has the name of the mesh's own"),
        (TEXT.replace("bookinfo-web", "ratings-v1"), "the credential `ratings-v1` has the name of the mesh's own"),
        (TEXT.replace(SERVER, BOTH), "the credential `web-cacert` has the name of a bundle of another server"),
        (TEXT + RULE.replace("NAME", "roots"), "the credential `roots` has the name of the mesh's own"),
        (TEXT + RULE.replace("NAME", "ratings-v2"), "the credential `ratings-v2` has the name of the mesh's own"),
        (TEXT.replace("name: ratings-v1", "name: roots"), "`roots` is what the mesh's own authorities are called"),
    ],
)
def test_no_certificate_of_ones_own_takes_the_place_of_the_meshs(written: str, told: str) -> None:
    assert written != TEXT
    _, problems = read_mesh_description([("mesh.yaml", written.encode())])
    assert told in [problem.message for problem in problems if problem.is_error]
