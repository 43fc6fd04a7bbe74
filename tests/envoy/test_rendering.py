"""A mesh that is rendered again is what it would be rendered for the first time."""

from random import Random

import pytest

from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import permissive, render_all
from authz.envoy.rendering import Rendering
from authz.mesh.description import DescriptionReader
from tests.mesh.test_description import BOOKINFO

NAMES = ("details", "reviews", "ratings")
HOST = "{}.bookinfo.svc.cluster.local"
OPTIONS = RenderOptions()
ABORT = "fault: {abort: {httpStatus: 418, percentage: {value: 1}}}, "


def described(random: Random) -> dict[str, str]:
    """Documents by name: routes, rules, and a workload, each of a random form."""
    found = {}
    for name in NAMES:
        host, version = HOST.format(name), random.choice(("v1", "v2", "v3"))
        rule = f"subsets: [{{name: {version}, labels: {{version: {version}}}}}]"
        policy = random.choice(("", ", trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}"))
        target = f"{{host: {host}, subset: {version}}}"
        more = random.choice(
            ("timeout: 3s, ", "", "rewrite: {uri: /x}, ", "fault: {abort: {httpStatus: 418, percentage: {value: 1}}}, ")
        )
        other = HOST.format(random.choice(NAMES))
        mirror = random.choice(("", f"mirror: {{host: {other}}}, "))
        if random.random() < 0.7:
            found[f"{name}-rule"] = document("DestinationRule", name, f"{{host: {host}, {rule}{policy}}}")
            if random.random() < 0.7:
                http = f"[{{{more}{mirror}route: [{{destination: {target}}}]}}]"
                found[f"{name}-routes"] = document("VirtualService", name, f"{{hosts: [{host}], http: {http}}}")
    return found


def document(kind: str, name: str, spec: str) -> str:
    metadata = f"{{name: {name}, namespace: bookinfo}}"
    return f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


EDITS = (
    ("address: 127.0.0.1", "address: 127.0.0.2"),
    ("version: v2", "version: v2, color: red"),
    ("serviceAccount: bookinfo-reviews", "serviceAccount: bookinfo-others"),
    ("trustDomain: cluster.local", "trustDomain: other.example"),
    ("number: 9080, name: http", "number: 9081, name: http"),
    ("books.example.com", "papers.example.com"),
)


@pytest.mark.parametrize("listeners", Listeners)
@pytest.mark.parametrize("seed", range(12))
def test_rendering_again_gives_what_rendering_anew_gives(seed: int, listeners: Listeners) -> None:
    random = Random(seed)  # not for secrets
    text = BOOKINFO.read_text().partition("    mesh.authz/login")
    text_of_mesh = text[0].removesuffix("  annotations:\n") + "spec:" + text[2].partition("\nspec:")[2]
    reader, rendering, options = DescriptionReader(), Rendering(), RenderOptions(listeners=listeners)
    parts = described(random)
    for _ in range(6):
        old, new = random.choice(EDITS)
        edited = text_of_mesh.replace(old, new, random.randrange(1, 3)) if random.random() < 0.4 else text_of_mesh
        mesh, problems = reader.read([("mesh.yaml", edited.encode()), *((n, t.encode()) for n, t in parts.items())])
        if not any(problem.is_error for problem in problems):
            assert rendering.render(mesh, permissive, options) == render_all(mesh, permissive, options)
        parts = {**parts, **described(random)} if random.random() < 0.7 else described(random)


def test_a_changed_route_touches_the_proxy_that_takes_it_alone() -> None:
    text = BOOKINFO.read_text().replace("    mesh.authz/login", "    other/login")
    route = document(
        "VirtualService",
        "reviews",
        "{hosts: [reviews], http: [{timeout: 3s, route: [{destination: {host: reviews}}]}]}",
    )
    reader, rendering = DescriptionReader(), Rendering()
    before, after = (
        rendering.render(reader.read([("mesh.yaml", text.encode()), ("r.yaml", r.encode())])[0], permissive, OPTIONS)
        for r in (route, route.replace("3s", "4s"))
    )
    assert [name for name in before if after[name] != before[name]] == ["rds/productpage-v1.outbound_15112.yaml"]
    others = [name for name in before if "productpage-v1" not in name]
    assert all(after[name] is before[name] for name in others)
