"""A mesh that is rendered again is what it would be rendered for the first time."""

from random import Random
from typing import Any

import pytest

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy import messages
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.plain import plain
from authz.envoy.render import Native, modes_of, permissive, render_all
from authz.envoy.rendering import Rendering
from authz.mesh.description import DescriptionReader
from authz.mesh.nouns import Enforce, Mesh
from tests.mesh.test_description import BOOKINFO

NAMES = ("details", "reviews", "ratings")
HOST = "{}.bookinfo.svc.cluster.local"
OPTIONS = RenderOptions()
API = {
    "Telemetry": "telemetry.istio.io/v1",
    "BackendTrafficPolicy": "gateway.envoyproxy.io/v1alpha1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
}


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
    return found | {kind: random.choice(texts) for kind, texts in BESIDE.items() if random.random() < 0.9}


def document(kind: str, name: str, spec: str, namespace: str = "bookinfo") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    api = API.get(kind, "networking.istio.io/v1")
    return f"apiVersion: {api}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def telemetry(*specs: str) -> list[str]:
    return [document("Telemetry", "all", spec, "istio-system") for spec in specs]


def patched(action: str, number: str) -> str:
    """A route's metadata, a Struct, in which 1 and true are different things."""
    patch = f"operation: MERGE, value: {{metadata: {{filter_metadata: {{own: {{{action}: {number}}}}}}}}}"
    match = "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {}}}"
    spec = f"{{configPatches: [{{applyTo: HTTP_ROUTE, match: {{{match}}}, patch: {{{patch}}}}}]}}"
    return document("EnvoyFilter", "own", spec)


def limited(name: str, scope: str, requests: int) -> str:
    target = f"targetRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: {name}}}]"
    rate = f"{{{scope}: {{rules: [{{limit: {{requests: {requests}, unit: Minute}}}}]}}}}"
    return document("BackendTrafficPolicy", "quota", f"{{{target}, rateLimit: {rate}}}")


def outside(name: str, port: int) -> str:
    endpoints = f"[{{address: 127.0.0.1, ports: {{https: {port}}}}}]"
    ports = f"ports: [{{number: {port}, name: https, protocol: HTTPS}}]"
    spec = (
        f"{{hosts: [{name}.example.net], location: MESH_EXTERNAL, resolution: STATIC, {ports}, endpoints: {endpoints}}}"
    )
    return document("ServiceEntry", "outside", spec)


def gateway(port: int, tls: str) -> str:
    server = f"{{port: {{number: {port}, name: more, protocol: HTTPS}}, hosts: [more.example.com], tls: {tls}}}"
    return document("Gateway", "more", f"{{selector: {{istio: ingressgateway}}, servers: [{server}]}}")


MUTUAL = "{mode: MUTUAL, credentialName: more}"
BESIDE = {
    "telemetry": telemetry(
        *(f"{{tracing: [{{providers: [{{name: {name}}}]}}]}}" for name in ("spans", "outside-spans")),
        *(f"{{accessLogging: [{{providers: [{{name: {name}}}]}}]}}" for name in ("ab", "ba", "envoy")),
        "{accessLogging: [{disabled: true}]}",
    ),
    "filter": [patched("a", "1"), patched("a", "true"), patched("b", "1"), patched("b", "1.0")],
    "limits": [limited("details", "local", 1), limited("details", "global", 1), limited("ratings", "global", 2)],
    "outside": [outside("one", 443), outside("two", 443), outside("two", 8443)],
    "gateway": [gateway(15443, "{mode: SIMPLE, credentialName: more}"), gateway(15446, MUTUAL), gateway(15443, MUTUAL)],
}
PROVIDERS = """extensionProviders:
    - {name: spans, opentelemetry: {service: details.bookinfo.svc.cluster.local, port: 9080}}
    - {name: outside-spans, opentelemetry: {service: one.example.net, port: 443}}
    - {name: ab, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {a: "1", b: x}}}}
    - {name: ba, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {b: x, a: "1"}}}}"""


EDITS = (
    ("address: 127.0.0.1", "address: 127.0.0.2"),
    ("version: v2", "version: v2, color: red"),
    ("serviceAccount: bookinfo-reviews", "serviceAccount: bookinfo-others"),
    ("trustDomain: cluster.local", "trustDomain: other.example"),
    ("number: 9080, name: http", "number: 9081, name: http"),
    ("books.example.com", "papers.example.com"),
    ("serviceAccount: bookinfo-details", "serviceAccount: bookinfo-others"),
    ("location: MESH_INTERNAL", 'exportTo: ["."]\n  location: MESH_INTERNAL'),
    ("locality: north/a", "locality: south/b"),
    ('labels: {a: "1", b: x}', 'labels: {b: x, a: "1"}'),
    ("path: /dev/stdout", "path: /dev/stderr"),
    ("hosts: [./details.bookinfo.svc.cluster.local]", 'hosts: ["./*"]'),
    (
        "labels: {app: details, version: v1}}",
        "labels: {app: details, version: v1}}\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
    ),
)
POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: MODE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: bookinfo}
spec: {selector: {matchLabels: {app: ratingsdb}}, rules: [{to: [{operation: {ports: ["PORT"]}}]}]}
"""


def native(mode: str, port: int) -> Native:
    text = POLICIES.replace("MODE", mode).replace("PORT", str(port))
    compiled = compile_texts([PolicyText("p.yaml", text)], MeshConfig())
    assert isinstance(compiled, Engine)
    return Native(compiled)


WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"enforce": Enforce.NATIVE},
    {"enforce": Enforce.NATIVE, "query_values": ("page",)},
    {"otlp": "127.0.0.1:4317", "source_addresses": True},
)
EVERY_PART = (*BESIDE, *(f"{name}-{what}" for name in NAMES for what in ("rule", "routes")))
NATIVES = tuple(native(mode, port) for mode, port in (("STRICT", 15180), ("PERMISSIVE", 15180), ("STRICT", 1)))


_HEAD, _, _TAIL = BOOKINFO.read_text().partition("    mesh.authz/login")
_WITHOUT_LOGIN = _HEAD.removesuffix("  annotations:\n") + "spec:" + _TAIL.partition("\nspec:")[2]
TEXT = _WITHOUT_LOGIN.replace("extensionProviders:", PROVIDERS)


def anew(mesh: Mesh, given: Native, options: RenderOptions) -> dict[str, bytes]:
    """
    Every file but filters, which follow the policies and are always rendered.

    The library does not look at their messages once more: it has looked at those of files that must be equal.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(messages, "plain", plain)
        every = render_all(mesh, modes_of(given.engine), options, given)
    return {name: content for name, content in every.items() if not name.startswith("ecds/")}


@pytest.mark.parametrize("listeners", Listeners)
@pytest.mark.parametrize("seed", range(1000, 1012))
def test_rendering_again_gives_what_rendering_anew_gives(seed: int, listeners: Listeners) -> None:
    random = Random(seed)  # not for secrets
    reader, rendering = DescriptionReader(), Rendering()
    parts, made, given, way, rendered = described(random), frozenset[int](), NATIVES[0], WAYS[0], 0
    while rendered < 6:
        # One change at a time: what several touch would be rendered again for one, and hide what another overlooks.
        old_parts, old_made = parts, made
        match random.randrange(5):
            case 0 | 1:
                name, wanted = random.choice(EVERY_PART), described(random)
                parts = {n: t for n, t in parts.items() if n != name} | {n: t for n, t in wanted.items() if n == name}
            case 2 | 3:
                made = made ^ {random.randrange(len(EDITS))}
            case 4:
                given, way = random.choice(NATIVES), random.choice((way, *WAYS))
        text = TEXT
        for i in sorted(made):
            text = text.replace(*EDITS[i])
        options = RenderOptions(listeners=listeners, **way)
        mesh, problems = reader.read([("mesh.yaml", text.encode()), *((n, t.encode()) for n, t in parts.items())])
        if any(problem.is_error for problem in problems):
            parts, made = old_parts, old_made
            continue
        rendered += 1
        found = rendering.render(mesh, modes_of(given.engine), options, given)
        assert found == anew(mesh, given, options)


SPANS, OUTSIDE, DETAILS = BESIDE["telemetry"][0], BESIDE["outside"], EDITS[6]
ONE_CHANGE = {
    "who answers for a collector": ({"telemetry": SPANS}, {"telemetry": SPANS}, DETAILS),
    "a host outside that a forward proxy may ask for": ({}, {"outside": OUTSIDE[0]}, EDITS[-1]),
    "true instead of 1 in a patch": ({"f": patched("a", "1")}, {"f": patched("a", "true")}, None),
    "another order in a log": ({"telemetry": BESIDE["telemetry"][2]}, {"telemetry": BESIDE["telemetry"][2]}, EDITS[9]),
}


@pytest.mark.parametrize("what", ONE_CHANGE)
def test_what_is_easily_overlooked_is_rendered_again(what: str) -> None:
    before, after, edit = ONE_CHANGE[what]
    edited = TEXT.replace(*edit) if edit else TEXT
    first = edited if what.startswith("a host") else TEXT
    reader, rendering, found = DescriptionReader(), Rendering(), []
    for text, parts in ((first, before), (edited, after)):
        mesh, problems = reader.read([("mesh.yaml", text.encode()), *((n, t.encode()) for n, t in parts.items())])
        assert not any(problem.is_error for problem in problems), [str(one) for one in problems]
        found.append(rendering.render(mesh, permissive, OPTIONS))
        assert found[-1] == render_all(mesh, permissive, OPTIONS)
    assert found[0] != found[1]


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
