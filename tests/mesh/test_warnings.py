"""What Istio takes although nobody can mean it: a warning at its place, and none where everything has its use."""

from pathlib import Path

import pytest

from authz.core.errors import Problem, Severity
from authz.mesh.description import read_mesh_description
from authz.mesh.kind_parts import API_VERSIONS
from authz.mesh.kinds import READERS
from tests.mesh.shops import BOTH, OURS

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: networking.istio.io/v1\n"
TO = "route: [{destination: {host: reviews}}]"
GATEWAY = """kind: Gateway
metadata: {name: front, namespace: shop}
spec: {selector: {app: ingress}, servers: [{port: {number: 18080, name: http, protocol: HTTP}, hosts: [a.example]}]}
"""


def virtual(spec: str, name: str = "reviews", more: str = "") -> str:
    return f"{HEAD}kind: VirtualService\nmetadata: {{name: {name}, namespace: shop{more}}}\nspec: {spec}\n"


def rule(spec: str) -> str:
    return f"{HEAD}kind: DestinationRule\nmetadata: {{name: reviews, namespace: shop}}\nspec: {spec}\n"


def read(*documents: str) -> list[Problem]:
    """Problems of these documents, beside a whole shop."""
    files = [("here.yaml", "---\n".join(documents).encode()), ("shop.yaml", f"{BOTH}\n---\n{OURS}".encode())]
    return [one for one in read_mesh_description(files)[1] if one.location.file == "here.yaml"]


ALL, SOME = f"{{{TO}}}", f"{{match: [{{uri: {{prefix: /a}}}}], {TO}}}"
SUBSETS = "{host: reviews, subsets: [{name: gone, labels: {version: v9}}]}"
TELLING = {
    # documents, and of each problem: its severity, its path and some of its words
    "a route behind one for everything": (
        [virtual(f"{{hosts: [reviews], http: [{ALL}, {SOME}]}}")],
        [("warning", "spec.http[1]", "no request takes this route: what stands at here.yaml:4:33 takes every one")],
    ),
    "a match behind a wider one": (
        [virtual(f"{{hosts: [reviews], http: [{SOME}, {{match: [{{uri: {{exact: /ab}}}}, {{port: 80}}], {TO}}}]}}")],
        [("warning", "spec.http[1].match[0]", "no request takes this match")],
    ),
    "two of one host for sidecars": (
        [virtual(f"{{hosts: [reviews], http: [{SOME}]}}", "b"), virtual(f"{{hosts: [reviews], http: [{ALL}]}}", "a")],
        [("warning", "spec.hosts[0]", "`reviews.shop.svc.cluster.local` take the routes of `shop/a`")],
    ),
    "the older of two counts": (
        [
            virtual(f"{{hosts: [reviews], http: [{ALL}]}}", "b", ", creationTimestamp: '2024-01-01T00:00:00Z'"),
            virtual(f"{{hosts: [reviews], http: [{ALL}]}}", "a", ", creationTimestamp: '2025-01-01T00:00:00Z'"),
        ],
        [("warning", "spec.hosts[0]", "take the routes of `shop/b`, and none of these")],
    ),
    "two of one host at a gateway": (
        [
            HEAD + GATEWAY,
            virtual(f"{{hosts: [a.example], gateways: [front], http: [{SOME}]}}", "a"),
            virtual(f"{{hosts: [a.example], gateways: [front], http: [{SOME}, {ALL}]}}", "b"),
        ],
        [("warning", "spec.http[0]", "`shop/a` takes every request to `a.example` at `shop/front` that this is for")],
    ),
    "a host that the gateway has not": (
        [HEAD + GATEWAY, virtual(f"{{hosts: [b.example], gateways: [front], http: [{ALL}]}}")],
        [("warning", "spec.hosts[0]", "no server of `shop/front` has the host `b.example`")],
    ),
    "a destination without weight": (
        [virtual(
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews}, weight: 100}, "
            "{destination: {host: ratings}}]}]}"
        )],
        [("warning", "spec.http[0].route[1]", "a destination without `weight` gets nothing beside others")],
    ),
    "an empty subset to which a route leads": (
        [rule(SUBSETS), virtual("{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: gone}}]}]}")],
        [("warning", "spec.subsets[0]", "the subset `gone` is empty: no workload of")],
    ),
    "an empty subset that nobody uses": ([rule(SUBSETS)], [("info", "spec.subsets[0]", "the subset `gone` is empty")]),
    "deprecated fields": (
        [virtual(
            f"{{hosts: [reviews], http: [{{{TO}, mirror: {{host: ratings}}, mirrorPercent: 5, "
            "corsPolicy: {allowOrigin: [https://a]}, fault: {delay: {fixedDelay: 1s, percent: 5}}}]}"
        )],
        [
            ("warning", "spec.http[0].mirrorPercent", "`mirrorPercent` is deprecated"),
            ("warning", "spec.http[0].corsPolicy.allowOrigin", "`allowOrigin` is deprecated"),
            ("warning", "spec.http[0].fault.delay.percent", "`percent` is deprecated"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TELLING)
def test_what_misleads_is_told_at_its_place(name: str) -> None:
    documents, expected = TELLING[name]
    found = [one for one in read(*documents) if "no workload has these labels" not in one.message]
    assert [(one.severity.value, one.path) for one in found] == [told[:2] for told in expected], found
    for problem, (_, _, words) in zip(found, expected, strict=True):
        assert words in problem.message
        assert problem.location.line > 1
        assert problem.help, "it says what to do"


USEFUL = {
    "everything last": f"{{hosts: [reviews], http: [{SOME}, {ALL}]}}",
    "another header": (
        f"{{hosts: [reviews], http: [{{match: [{{headers: {{a: {{exact: x}}}}}}], {TO}}}, "
        f"{{match: [{{headers: {{a: {{exact: y}}}}}}], {TO}}}]}}"
    ),
    "other callers": f"{{hosts: [reviews], http: [{{match: [{{sourceLabels: {{app: a}}}}], {TO}}}, {ALL}]}}",
    "narrower before wider": (
        f"{{hosts: [reviews], http: [{{match: [{{uri: {{prefix: /a/b}}}}], {TO}}}, {SOME}, "
        f"{{match: [{{uri: {{prefix: /A}}, ignoreUriCase: true}}], {TO}}}]}}"
    ),
    "other ports": (f"{{hosts: [reviews], http: [{{match: [{{port: 80}}], {TO}}}, {{match: [{{port: 81}}], {TO}}}]}}"),
}


def asking(headers: str, path: str = "") -> str:
    uri = f", uri: {{prefix: {path}}}" if path else ""
    return f"{{match: [{{headers: {{{headers}}}{uri}}}], {TO}}}"


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (asking("a: {exact: x}"), asking("a: {exact: x}")),
        (asking("a: {exact: x}"), asking("A: {exact: x}, b: {exact: w}", "/c")),
        (asking("b: {exact: w}", "/c"), asking("a: {prefix: z}, b: {exact: w}", "/c/d")),
        (asking("a: {prefix: x}"), asking("a: {exact: xy}")),
        (asking("a: {}"), asking("a: {exact: xy}")),
    ],
)
def test_a_route_behind_one_that_asks_for_fewer_headers_is_told(first: str, later: str) -> None:
    (found,) = read(virtual(f"{{hosts: [reviews], http: [{first}, {later}]}}"))
    assert (found.path, "no request takes this route" in found.message) == ("spec.http[1]", True)


@pytest.mark.parametrize("name", USEFUL)
def test_routes_that_have_their_use_are_not_warned_of(name: str) -> None:
    assert not [one for one in read(virtual(USEFUL[name])) if "no request takes" in one.message]


def test_the_meshes_that_are_shipped_have_nothing_to_warn_of() -> None:
    for more in ([], *([one] for one in sorted((ROOT / "traffic" / "examples").glob("*.off")))):
        named = [ROOT / "envoy-configs" / "mesh.yaml", *sorted((ROOT / "traffic").glob("*.yaml")), *more]
        _, problems = read_mesh_description((str(path), path.read_bytes()) for path in named)
        assert [str(one) for one in problems if one.severity is not Severity.INFO] == []


@pytest.mark.parametrize("kind", READERS)
def test_a_version_that_a_kind_has_not_is_refused_with_those_that_it_has(kind: str) -> None:
    def told(version: str) -> list[Problem]:
        text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"
        return [one for one in read(text) if one.path == "apiVersion"]

    (problem,) = told(f"{API_VERSIONS[kind][0].partition('/')[0]}/v1beta2")
    assert (problem.is_error, problem.location.line) == (True, 1)
    assert all(version in problem.help for version in API_VERSIONS[kind])
    assert not [one for version in API_VERSIONS[kind] for one in told(version)]
