"""A request followed through the routes of a proxy, without a proxy; tests/envoy holds the matches against Envoy."""

import pytest
import yaml

from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.mesh.route_following import FollowedRoute, OutgoingRequest, follow, follow_gateway
from tests.mesh.shops import BOTH, OURS
from tests.yaml_text import read_yaml

WORKLOADS = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-v1, namespace: shop}
spec:
  address: 127.0.0.1
  serviceAccount: a
  labels: {app: client, a: b}
  ports: {p9080: 17001, p80: 17002, p9090: 17003}
"""


def mesh_of(spec: str) -> Mesh:
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "routes", "namespace": "shop"},
        "spec": read_yaml(spec),
    }
    text = "\n---\n".join((BOTH, OURS, WORKLOADS, yaml.safe_dump(document)))
    mesh, problems = read_mesh_description([("shop.yaml", text.encode())])
    assert [one for one in problems if "subset" not in str(one) and "shop-v1" not in str(one)] == []
    return mesh


def followed(routes: str, path: str = "/", method: str = "GET", **headers: str) -> FollowedRoute:
    mesh = mesh_of(f"{{hosts: [reviews], http: {routes}}}")
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    service = mesh.service("reviews.shop.svc.cluster.local")
    return follow(
        mesh, mesh.workload("client"), service, 9080, OutgoingRequest(method, "127.0.0.1:16081", path, headers=named)
    )


def test_without_a_virtual_service_the_service_itself_is_reached() -> None:
    mesh = mesh_of("{hosts: [web], http: [{route: [{destination: {host: web}}]}]}")
    service = mesh.service("reviews.shop.svc.cluster.local")
    found = follow(mesh, mesh.workload("client"), service, 9080, OutgoingRequest("GET", "x", "/a"))
    assert found.virtual_service is None
    assert [(end.destination.host, end.share, end.request.host) for end in found.ends] == [
        ("reviews.shop.svc.cluster.local", 1.0, "reviews.shop.svc.cluster.local")
    ]
    assert [(one.workload.name, one.port) for one in found.ends[0].reached] == [("shop-v1", 17001)]


def test_weights_are_shares_and_nothing_goes_where_the_weight_is_0() -> None:
    found = followed(
        "[{route: [{destination: {host: reviews}, weight: 1},"
        " {destination: {host: web, port: {number: 80}}, weight: 3},"
        " {destination: {host: ratings}, weight: 0}]}]"
    )
    assert [(end.destination.host.partition(".")[0], end.share) for end in found.ends] == [
        ("reviews", 0.25),
        ("web", 0.75),
    ]


def test_the_rule_that_took_it_is_named_with_its_place() -> None:
    found = followed(
        "[{match: [{uri: {prefix: /b}}], name: b, route: [{destination: {host: web}}]},"
        " {name: rest, route: [{destination: {host: reviews}}]}]",
        "/a",
    )
    assert found.route is not None
    assert (found.route.name, found.route.location.file) == ("rest", "shop.yaml")


def test_what_no_rule_takes_ends_there() -> None:
    found = followed("[{match: [{uri: {exact: /a}}], route: [{destination: {host: reviews}}]}]", "/b")
    assert (found.route, found.ends) == (None, ())
    assert found.virtual_service is not None


@pytest.mark.parametrize(
    ("rewrite", "match", "path", "wanted"),
    [
        ("{uri: /new}", "{uri: {prefix: /old}}", "/old/x?y", "/new/x?y"),
        ("{uri: /new}", "{uri: {exact: /old}}", "/old?y", "/new?y"),
        ("{uri: /new}", "{uri: {regex: '/o.*'}}", "/old/x", "/new"),
        ("{uri: /new}", "{method: {exact: GET}}", "/x", "/newx"),
        ("{uriRegexRewrite: {match: '/(a+)/(b+)', rewrite: '/\\2/\\1'}}", "{uri: {prefix: /}}", "/aa/b?c", "/b/aa?c"),
    ],
)
def test_a_path_is_rewritten_as_envoy_does(rewrite: str, match: str, path: str, wanted: str) -> None:
    found = followed(f"[{{match: [{match}], rewrite: {rewrite}, route: [{{destination: {{host: reviews}}}}]}}]", path)
    assert found.ends[0].request.path == wanted


def test_host_and_headers_are_those_that_arrive() -> None:
    changes = "{request: {set: {x-a: '1'}, add: {x-b: '2'}, remove: [x-c]}}"
    found = followed(
        f"[{{headers: {changes}, rewrite: {{authority: new.example}}, route: [{{destination: {{host: reviews}}}}]}}]",
        x_a="0",
        x_b="0",
        x_c="0",
    )
    request = found.ends[0].request
    assert request.host == "new.example"
    assert sorted(request.headers) == [("x-a", "1"), ("x-b", "0"), ("x-b", "2")]


def test_what_only_envoy_can_tell_is_said() -> None:
    found = followed("[{match: [{uri: {regex: '\\pN+'}}], route: [{destination: {host: web}}]}]")
    assert found.route is None
    assert "only Envoy can tell" in found.notes[0]


def test_faults_and_mirrors_are_noted() -> None:
    found = followed(
        "[{fault: {delay: {fixedDelay: 7s, percentage: {value: 10}}, abort: {httpStatus: 500, percentage: {value: 5}}},"
        " mirror: {host: web}, route: [{destination: {host: reviews}}]}]"
    )
    assert found.notes == (
        "10 % wait for 7 s first",
        "5 % are answered 500 at once",
        "a copy goes to web.shop.svc.cluster.local",
    )


@pytest.mark.parametrize(("host", "path", "wanted"), [("a.example.com", "/x", "web"), ("other", "/x", "")])
def test_a_gateway_leads_by_host(host: str, path: str, wanted: str) -> None:
    mesh = mesh_of(
        '{hosts: ["*.example.com"], gateways: [istio-system/web], http: [{route: [{destination: {host: web}}]}]}'
    )
    gateway = mesh.workload("ingress")
    found = follow_gateway(mesh, gateway, gateway.servers[0], OutgoingRequest("GET", host, path))
    assert [end.destination.host.partition(".")[0] for end in found.ends] == ([wanted] if wanted else [])
