"""VirtualServices as they are read: every field of Istio's, every mistake at its place, and who sees which."""

import json
from pathlib import Path
from string import Template

import pytest

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.mesh.virtual_service import HttpMatch, HttpRoute, MatchKind, StringMatch, VirtualService
from authz.mesh.virtual_service_fields import FIELDS
from authz.mesh.virtual_services import VirtualServices, common_hosts, holds, is_subset, reachable, with_known_host
from tests.mesh.shops import BOTH, OURS

ISTIO = json.loads((Path(__file__).parent / "istio_virtual_service_fields.json").read_text())["messages"]
HEAD = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
"""
OUTSIDE = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [out.example.com], location: MESH_EXTERNAL, ports: [{number: 443, name: https, protocol: HTTPS}]}
"""
TO = "route: [{destination: {host: reviews}}]"


def read(text: str) -> tuple[Mesh, tuple[Problem, ...]]:
    return read_mesh_description([("vs.yaml", text.encode()), ("shop.yaml", f"{BOTH}\n---\n{OURS}".encode())])


def test_every_field_of_istios_is_known() -> None:
    assert {message: set(fields) for message, fields in FIELDS.items()} == {
        message: set(fields) for message, fields in ISTIO.items()
    }


WRONG = [
    *(
        (f"{{hosts: [reviews], http: [{{$to, headers: {{{side}: {way}}}}}]}}", where, "ME-6", "is not changed here")
        for side in ("request", "response")
        for way, where in (
            ('{set: {content-length: "0"}}', '"0"'),
            ("{add: {Transfer-Encoding: chunked}}", "chunked"),
            ("{remove: [content-length]}", "content"),
        )
    ),
    # what stands below `spec`, the text at the place of the problem, its code and some of its words
    ("{hosts: [reviews]}", "{hosts", "ME-3", "`http`, `tls` or `tcp` is missing"),
    ("{hosts: [reviews], http: [{}]}", "{}", "ME-3", "`route`, `redirect`, `directResponse` or `delegate` is missing"),
    ("{hosts: [reviews], htp: []}", "htp", "ME-2", "did you mean `http`?"),
    ('{hosts: ["*"], http: [{$to}]}', '"*"', "ME-1", "a sidecar has no route for every host"),
    ('{hosts: ["a b"], http: [{$to}]}', '"a b"', "ME-1", "`a b` is not a host"),
    ('{hosts: ["*.x.y", a.x.y], http: [{$to}]}', "a.x.y], http", "ME-5", "stand for the same names"),
    ("{hosts: [reviews], gateways: [other/no], http: [{$to}]}", "other/no", "ME-4", "no Gateway is called `other/no`"),
    ("{hosts: [reviews], gateways: [A_B], http: [{$to}]}", "[A_B]", "ME-1", "is not the name of a Gateway"),
    ("{hosts: [reviews], exportTo: [a/b], http: [{$to}]}", "a/b", "ME-1", "`a/b` is not a namespace"),
    ("{hosts: [reviews], http: [{$to, redirect: {uri: /x}}]}", "[{dest", "ME-1", "`redirect` and `route` exclude"),
    ("{hosts: [reviews], http: [{route: []}]}", "[]", "ME-3", "`route` is empty"),
    (
        "{hosts: [reviews], http: [{route: [{destination: {host: nob}}]}]}",
        "nob}",
        "ME-4",
        "no ServiceEntry has the host",
    ),
    (
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v9}}]}]}",
        "v9",
        "ME-4",
        "the subset `v9` is defined by no DestinationRule of `reviews.shop.svc.cluster.local`",
    ),
    (
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 1}}}]}]}",
        "{number",
        "ME-4",
        "has no port 1",
    ),
    ("{hosts: [web], http: [{route: [{destination: {host: ratings}}]}]}", "ratings", "ME-4", "and none is 80"),
    ("{hosts: [reviews], http: [{route: [{destination: {host: db}}]}]}", "db}", "ME-4", "does not speak HTTP"),
    ("{hosts: [db], tcp: [{route: [{destination: {host: reviews}}]}]}", "reviews", "ME-4", "does not speak bytes"),
    (
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}, {destination: {host: web}}]}]}",
        "[{dest",
        "ME-1",
        "the weights of several destinations are all 0",
    ),
    ("{hosts: [reviews], http: [{$to, timeout: 5}]}", "5}", "ME-1", "expected a duration"),
    ("{hosts: [reviews], http: [{$to, timeout: 5 s}]}", "5 s", "ME-1", "`5 s` is not a duration"),
    ("{hosts: [reviews], http: [{$to, timeout: ١s}]}", "١s", "ME-1", "`١s` is not a duration"),
    ("{hosts: [reviews], http: [{$to, timeout: 0s}]}", "0s", "ME-1", "whole number of milliseconds"),
    ("{hosts: [reviews], http: [{$to, timeout: 1.0001s}]}", "1.0001s", "ME-1", "whole number of milliseconds"),
    ("{hosts: [reviews], http: [{$to, retries: {attempts: 1, retryOn: 'x'}}]}", "'x'", "ME-1", "not a reason to retry"),
    ("{hosts: [reviews], http: [{$to, retries: {retryOn: 5xx}}]}", "5xx", "ME-1", "of no use without `attempts`"),
    ("{hosts: [reviews], http: [{$to, fault: {}}]}", "{}", "ME-3", "`delay` or `abort` is missing"),
    ("{hosts: [reviews], http: [{$to, fault: {abort: {httpStatus: 99}}}]}", "99", "ME-1", "not a status from 200"),
    ("{hosts: [reviews], http: [{$to, fault: {abort: {http2Error: x}}}]}", "x}", "ME-6", "Istio does not do it either"),
    ("{hosts: [reviews], http: [{$to, fault: {abort: {grpcStatus: BAD}}}]}", "BAD", "ME-1", "not a status of gRPC"),
    (
        "{hosts: [reviews], http: [{$to, mirror: {host: web}, mirrorPercentage: {value: 101}}]}",
        "101",
        "ME-1",
        "from 0.0001 to 100",
    ),
    ("{hosts: [reviews], http: [{$to, rewrite: {}}]}", "{}", "ME-3", "`uri`, `uriRegexRewrite` or `authority`"),
    (
        "{hosts: [reviews], http: [{$to, rewrite: {uriRegexRewrite: {match: '/(a)', rewrite: '\\2'}}}]}",
        "'\\2'",
        "ME-1",
        "the pattern has 1 groups",
    ),
    ("{hosts: [reviews], http: [{redirect: {}}]}", "{}", "ME-3", "the redirect changes nothing"),
    ("{hosts: [reviews], http: [{redirect: {uri: /x, redirectCode: 304}}]}", "304", "ME-6", "that Envoy sends"),
    ("{hosts: [reviews], http: [{redirect: {uri: /x, redirectCode: 200}}]}", "200", "ME-1", "`200` is no redirect"),
    ("{hosts: [reviews], http: [{directResponse: {status: 99}}]}", "99", "ME-1", "not a status from 200 to 599"),
    (
        "{hosts: [reviews], http: [{$to, match: [{uri: {exact: /a, prefix: /b}}]}]}",
        "/b",
        "ME-1",
        "`exact` and `prefix` exclude each other",
    ),
    ("{hosts: [reviews], http: [{$to, match: [{uri: {regex: '(?=a)'}}]}]}", "'(?=a)'", "ME-1", "RE2 has no `(?=`"),
    ("{hosts: [reviews], http: [{$to, match: [{method: {prefix: ''}}]}]}", "''", "ME-1", "an empty prefix"),
    ("{hosts: [reviews], http: [{$to, match: [{headers: {'a b': {exact: x}}}]}]}", "'a b'", "ME-1", "of a header"),
    (
        "{hosts: [reviews], http: [{$to, match: [{headers: {'@request.auth.claims.x': {exact: x}}}]}]}",
        "'@request",
        "ME-6",
        "claims are not known before the route is chosen",
    ),
    (
        "{hosts: [reviews], http: [{$to, match: [{authority: {regex: '[[:alpha:]]+'}}]}]}",
        "[{auth",
        "ME-6",
        "compares a host in a way that is not done here",
    ),
    ("{hosts: [reviews], http: [{$to, headers: {request: {set: {':path': x}}}}]}", "x}", "ME-1", "cannot be changed"),
    ("{hosts: [reviews], http: [{$to, headers: {request: {set: {a: '%NO%'}}}}]}", "'%NO%'", "ME-1", "write `%%`"),
    ("{hosts: [reviews], http: [{$to, corsPolicy: {allowMethods: [BAD]}}]}", "[BAD]", "ME-1", "`BAD` is not a method"),
    ("{hosts: [reviews], http: [{$to, delegate: {name: x}}]}", "[{dest", "ME-1", "`delegate` and `route` exclude"),
    ("{hosts: [reviews], http: [{delegate: {name: nobody}}]}", "nobody", "ME-4", "no VirtualService is called"),
    ("{hosts: [reviews], http: [{delegate: {name: reviews}}]}", "reviews}", "ME-4", "nobody can delegate to it"),
    ("{gateways: [mesh], http: [{$to}]}", "[mesh]", "ME-1", "without `hosts` it is a delegate"),
    ("{hosts: [secure], tls: [{$to}]}", "route", "ME-3", "`match` is missing"),
    (
        "{hosts: [secure], tls: [{match: [{sniHosts: [x.example]}], route: [{destination: {host: secure}}]}]}",
        "x.ex",
        "ME-1",
        "none of the VirtualService's hosts",
    ),
    (
        "{hosts: [db], tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: db}}]}]}",
        "[10.",
        "ME-6",
        "traffic is not captured here",
    ),
    (
        "{hosts: [reviews], http: [{rewrite: {authority: x.y}, route: [{destination: {host: out.example.com}}]}]}",
        "{rewrite",
        "ME-6",
        "the egress gateway, which leads by host",
    ),
]


@pytest.mark.parametrize(("spec", "at", "code", "words"), WRONG)
def test_a_mistake_is_refused_at_its_place(spec: str, at: str, code: str, words: str) -> None:
    text = HEAD + "  " + Template(spec).safe_substitute(to=TO) + OUTSIDE
    lines = text.splitlines()
    problems = [one for one in read(text)[1] if one.code == code and words in str(one) and one.is_error]
    places = [lines[one.location.line - 1][one.location.column - 1 :] for one in problems]
    assert any(at in place[: len(at) + 14] for place in places), (places, [str(one) for one in read(text)[1]])


def named(name: str, *hosts: str, export: tuple[str, ...] = (), namespace: str = "shop") -> VirtualService:
    return VirtualService(name, namespace, hosts, export_to=export)


@pytest.mark.parametrize(
    ("services", "wanted"),
    [
        ([named("b", "x.y"), named("a", "x.y")], ["a", "b"]),
        ([named("a", "x.y"), named("b", "x.y", export=("shop",))], ["b", "a"]),
        ([named("a", "x.y", export=("other",))], []),
        ([named("a", "x.y", export=("shop", "other"), namespace="far")], ["a"]),
        ([named("a", "*.y"), named("b", "x.y")], ["b"]),
        ([named("a", "*.y"), named("b", "*.x.y")], ["a"]),
        ([named("a", "*.z")], []),
    ],
)
def test_who_decides_about_a_host_is_found_in_istios_order(services: list[VirtualService], wanted: list[str]) -> None:
    assert [one.name for one in VirtualServices(services).of_host("x.y", "shop")] == wanted


def test_the_older_one_goes_first() -> None:
    young = VirtualService("a", "shop", ("x.y",), created="2026-02-01T00:00:00Z")
    old = VirtualService("b", "shop", ("x.y",), created="2026-01-01T00:00:00Z")
    assert [one.name for one in VirtualServices([young, old]).of_host("x.y", "shop")] == ["b", "a"]


@pytest.mark.parametrize(
    ("host", "of", "wanted"),
    [
        ("a.b", "a.b", True),
        ("a.b", "*.b", True),
        ("*.a.b", "*.b", True),
        ("*.b", "*.a.b", False),
        ("*.b", "a.b", False),
        ("a.b", "*", True),
        ("*", "*", True),
    ],
)
def test_hosts_contain_each_other(host: str, of: str, wanted: bool) -> None:
    assert is_subset(host, of) is wanted


def test_the_narrower_host_of_a_pair_is_served() -> None:
    assert common_hosts(["*.b", "c.d"], ["a.b", "*", "*.d"]) == ["a.b", "*.b", "c.d"]


HOST = "reviews.shop.svc.cluster.local"
TEXT = StringMatch(MatchKind.EXACT, HOST)
OTHER = StringMatch(MatchKind.PREFIX, "other")


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        (HttpMatch(authority=TEXT), HttpMatch()),
        (HttpMatch(authority=OTHER), None),
        (HttpMatch(headers={":authority": TEXT, "x": OTHER}), HttpMatch(headers={"x": OTHER})),
        (HttpMatch(headers={"Host": OTHER}), None),
        (HttpMatch(without_headers={"host": OTHER}), HttpMatch()),
        (HttpMatch(without_headers={"host": TEXT}), None),
        (HttpMatch(without_headers={"host": None}), None),
        (HttpMatch(headers={"host": None}), HttpMatch()),
    ],
)
def test_what_is_said_of_a_known_host_is_decided_while_rendering(match: HttpMatch, wanted: HttpMatch | None) -> None:
    assert with_known_host(match, HOST) == wanted


def test_a_rule_for_another_port_is_left_out_and_nothing_follows_a_catch_all() -> None:
    routes = [
        HttpRoute("other", (HttpMatch(port=81),)),
        HttpRoute("all", (HttpMatch(source_labels={"app": "x"}),)),
        HttpRoute("never"),
    ]
    assert [route.name for route, _ in reachable(routes, "mesh", 80, {"app": "x"}, "shop")] == ["all"]
    assert [route.name for route, _ in reachable(routes, "mesh", 81, {}, "shop")] == ["other"]


def test_a_regular_expression_is_compared_as_a_whole() -> None:
    assert holds(StringMatch(MatchKind.REGEX, "rev[a-z]+"), "reviews")
    assert not holds(StringMatch(MatchKind.REGEX, "rev"), "reviews")
