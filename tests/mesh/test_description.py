"""Reading a mesh description: the nouns it becomes, and every mistake with its place."""

from pathlib import Path

import pytest

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Address, InboundPort, Mesh, OutboundPort, Place, Protocol, TlsMode
from tests.mesh.meshes import Ports, description

BOOKINFO = Path(__file__).parents[2] / "envoy-configs" / "mesh.yaml"


def read(text: bytes) -> tuple[Mesh, tuple[Problem, ...]]:
    return read_mesh_description([("mesh.yaml", text)])


@pytest.fixture(scope="module")
def bookinfo() -> Mesh:
    mesh, problems = read(BOOKINFO.read_bytes())
    assert problems == ()
    return mesh


def test_bookinfo_has_every_workload_with_its_identity(bookinfo: Mesh) -> None:
    prefix = "spiffe://cluster.local/ns/"
    assert {w.name: str(w.spiffe_id).removeprefix(prefix) for w in bookinfo.workloads} == {
        "details-v1": "bookinfo/sa/bookinfo-details",
        "egressgateway": "istio-system/sa/istio-egressgateway-service-account",
        "ingressgateway": "istio-system/sa/istio-ingressgateway-service-account",
        "productpage-v1": "bookinfo/sa/bookinfo-productpage",
        "ratings-v1": "bookinfo/sa/bookinfo-ratings",
        "ratings-v2": "bookinfo/sa/bookinfo-ratings-v2",
        "ratingsdb-v1": "bookinfo/sa/bookinfo-ratingsdb",
        "reviews-v1": "bookinfo/sa/bookinfo-reviews",
        "reviews-v2": "bookinfo/sa/bookinfo-reviews",
        "reviews-v3": "bookinfo/sa/bookinfo-reviews",
    }


def test_a_workload_knows_its_ports_in_both_worlds(bookinfo: Mesh) -> None:
    reviews = bookinfo.workload("reviews-v2")
    app = Place(Address("127.0.0.1", 19140), Address("127.0.0.1", 9080))
    assert reviews.inbound == (InboundPort(15140, "http", Protocol.HTTP, app),)
    ratings = "ratings.bookinfo.svc.cluster.local"
    assert reviews.outbound == (OutboundPort(15141, Protocol.HTTP, ratings, 9080),)
    assert reviews.outbound_port(ratings) == 15141
    assert reviews.compose_address == "172.30.0.23"
    assert reviews.workload.labels == {("app", "reviews"), ("version", "v2")}


def test_a_service_is_the_workloads_with_its_labels(bookinfo: Mesh) -> None:
    service = bookinfo.service("reviews.bookinfo.svc.cluster.local")
    assert [w.name for w in bookinfo.workloads_of(service)] == ["reviews-v1", "reviews-v2", "reviews-v3"]


def test_gateways_are_told_apart_by_their_tls(bookinfo: Mesh) -> None:
    assert [(w.name, w.servers[0].tls, w.is_egress_gateway) for w in bookinfo.gateways] == [
        ("egressgateway", TlsMode.ISTIO_MUTUAL, True),
        ("ingressgateway", TlsMode.SIMPLE, False),
    ]
    assert bookinfo.egress_gateway is bookinfo.workload("egressgateway")


def test_every_port_of_bookinfo_is_unique(bookinfo: Mesh) -> None:
    ports = [port for workload in bookinfo.workloads for port in workload.listening]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize(("address", "clashes"), [("10.0.0.2", False), ("127.0.0.1", True), ("127.0.0.9", True)])
def test_a_port_is_unique_on_a_machine_and_every_loopback_address_is_one(address: str, clashes: bool) -> None:
    text = description(Ports()).decode().replace("number: 15001,", "number: 15011,", 1)
    text = text.replace("address: 127.0.0.1, serviceAccount: client", f"address: {address}, serviceAccount: client", 1)
    assert any("is also one of" in str(problem) for problem in read(text.encode())[1]) is clashes


def test_the_order_of_documents_does_not_matter() -> None:
    text = description(Ports())
    backwards = b"\n---\n".join(reversed(text.split(b"\n---\n")))
    assert [w.name for w in read(backwards)[0].workloads] == [w.name for w in read(text)[0].workloads]
    assert read(backwards)[1] == ()
    ours, theirs = read(backwards)[0].workload("client-v1"), read(text)[0].workload("client-v1")
    assert (ours.outbound, ours.spiffe_id) == (theirs.outbound, theirs.spiffe_id)


MISTAKES = [
    # what is written, what stands there instead, the text at the place of the problem, its code and some of its words
    ("labels: {app: client, ", "labelz: {app: client, ", "labelz", "ME-2", "did you mean `labels`?"),
    ("address: 127.0.0.1,", "address: client.example,", "client.example", "ME-1", "is not an IP address"),
    ("serviceAccount: client,", "serviceAccount: a/b,", "a/b", "ME-1", "`a/b`"),
    ("number: 15001,", "number: 150010,", "150010", "ME-1", "`150010` is not a port"),
    ("number: 15001,", f"number: {'9' * 4999},", "9999", "ME-1", "`99999"),
    ('"127.0.0.1:19011"', f'"127.0.0.1:{"9" * 4999}"', '"127.0.0.1:9', "ME-1", "`127.0.0.1:99"),
    ("number: 15001,", "number: 15011,", "apiVersion", "ME-5", "the port 15011 of server-v1 is also one of client-v1"),
    ("15001, protocol: HTTP", "15001, protocol: UDP", "UDP", "ME-6", "the protocol `UDP` is not supported here"),
    ("[./known.example.com]", "[./no.example]", "[./no.example]", "ME-4", "no ServiceEntry has the host `no.example`"),
    ('["*/*"]', '["./x"]', '["./x"]', "ME-1", "an HTTP_PROXY port leads everywhere"),
    ("[./server.app", "[other/server.app", "[other/server", "ME-4", "write `app/server.app.svc.cluster.local`"),
    ("{labels: {app: server}}\n---", "{labels: {app: nobody}}\n---", "hosts", "ME-4", "no workload has the labels"),
    ('"127.0.0.1:19011"', '"localhost"', '"localhost"', "ME-1", "`localhost` is not an address and a port"),
    ("{http: 15011,", "{http: 15999,", "{number: 15011", "ME-4", "is not among `spec.ports` of server-v1"),
    ("tls: {mode: SIMPLE, credentialName: web}", "tls: {mode: SIMPLE}", "{mode", "ME-3", "`credentialName` is missing"),
    ("credentialName: web", "minProtocolVersion: TLSV1_0", "TLSV1_0", "ME-1", "older versions are unsafe"),
    ("gateways: [istio-system/web]", "gateways: [web]", "web]", "ME-4", "no Gateway is called `app/web`"),
    ("port: {number: 80}}}]", "port: {number: 81}}}]", "{number: 81", "ME-4", "has no port 81"),
    ("mode: ISTIO_MUTUAL", "mode: AUTO_PASSTHROUGH", "AUTO", "ME-6", "`AUTO_PASSTHROUGH` is not done"),
    ("mode: PASSTHROUGH", "mode: PASSTHROUGH, credentialName: x", "credentialName", "ME-1", "it opens no TLS"),
    ("name: tls, protocol: TLS", "name: tls, protocol: HTTP", "mode", "ME-1", "on a port that speaks plaintext HTTP"),
    ("name: tls, protocol: TLS", "name: tls, protocol: TCP", "TCP", "ME-6", "what passes through unopened is TLS"),
    ("{mode: SIMPLE, caC", "{mode: PASSTHROUGH, caC", "PASSTHROUGH", "ME-1", "is not one of DISABLE"),
    ("location: MESH_INTERNAL", "location: MESH_EXTERNAL", "{number: 15002", "ME-6", "bytes do not leave the mesh"),
    ("kind: DestinationRule", "kind: ProxyConfig", "ProxyConfig", "ME-6", "does not describe a mesh here"),
    ("  host: known.", "  host: other.", "other.example", "ME-4", "no ServiceEntry has the host"),
    (
        "{name: server-v1,",
        "{name: client-v1,",
        "apiVersion",
        "ME-5",
        "`client-v1` is given twice, first at mesh.yaml:10:1",
    ),
    ("{name: client-v1,", "{annotations: {mesh.authz/x: y},", "mesh.authz/x", "ME-2", "unknown annotation"),
    ("trustDomain: cluster.local", "trustDomain: UPPER", "apiVersion", "ME-1", "`UPPER` is not a trust domain"),
]


@pytest.mark.parametrize(("old", "new", "at", "code", "words"), MISTAKES)
def test_a_mistake_is_named_with_its_place(old: str, new: str, at: str, code: str, words: str) -> None:
    text = description(Ports()).decode()
    assert old in text
    text = text.replace(old, new, 1)
    problems = [problem for problem in read(text.encode())[1] if problem.code == code]
    places = [text.splitlines()[p.location.line - 1][p.location.column - 1 :] for p in problems if words in str(p)]
    assert any(place.startswith(at) for place in places), (places, [str(problem) for problem in problems])


@pytest.mark.parametrize("cut", range(0, 4000, 97))
def test_a_description_cut_short_never_raises(cut: int) -> None:
    text = description(Ports())
    mesh, problems = read(text[:cut])
    assert mesh is not None
    assert all(problem.message for problem in problems)


@pytest.mark.parametrize(
    "document", [b"1", b"[]", b"kind: 7", b"kind: Sidecar", b"kind: WorkloadEntry\nspec: []", b"kind: [}"]
)
def test_nonsense_is_a_problem_and_never_raises(document: bytes) -> None:
    assert any(problem.is_error for problem in read(document)[1])


def test_all_mistakes_are_reported_at_once_and_in_order() -> None:
    text = description(Ports()).decode()
    for old, new in (("number: 15001,", "number: 0,"), ("address: 127.0.0.1, serviceAccount: client", "address: x")):
        text = text.replace(old, new, 1)
    _, problems = read(text.encode())
    assert len(problems) >= 2
    assert list(problems) == sorted(problems, key=lambda p: p.location)
