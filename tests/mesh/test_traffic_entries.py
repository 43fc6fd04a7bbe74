"""Gateways, Sidecars, ServiceEntries and WorkloadGroups: what they become, and every mistake with its place."""

import json
from pathlib import Path
from string import Template

import pytest

from authz.core.compiler import compile_engine
from authz.core.errors import Problem
from authz.core.resources import MtlsMode, Resources
from authz.envoy.listeners import listeners
from authz.envoy.messages import as_json
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import Native, permissive, render_all
from authz.mesh.description import read_mesh_description
from authz.mesh.domains import domains
from authz.mesh.gateway_server import group_name, server_groups, table_groups
from authz.mesh.nouns import Enforce, Mesh, MeshService, Resolution
from authz.mesh.probes import Probe, ProbeKind
from authz.mesh.traffic_entry_fields import FIELDS
from tests.envoy.test_traffic_entries import DESCRIPTION, NAMES
from tests.mesh.meshes import Ports, description
from tests.yaml_text import read_yaml

PORTS = {name: 21000 + i for i, name in enumerate(NAMES)}
TEXT = Template(DESCRIPTION).substitute(PORTS)
ISTIO = json.loads((Path(__file__).parent / "istio_traffic_entries.json").read_text())["messages"]


def read(text: str) -> tuple[Mesh, tuple[Problem, ...]]:
    return read_mesh_description([("mesh.yaml", text.encode())])


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    found, problems = read(TEXT)
    assert problems == (), [str(problem) for problem in problems]
    return found


def test_every_field_of_istios_is_done_or_refused_with_a_reason() -> None:
    assert {message: sorted(fields) for message, fields in FIELDS.items()} == ISTIO
    refused = [(field, reason) for fields in FIELDS.values() for field, reason in fields.items() if reason]
    assert all(len(reason) > 20 or field == "command" for field, reason in refused)
    page = (Path(__file__).parents[2] / "docs" / "traffic-entries.md").read_text()
    assert [field for field, _ in refused if f"`{field}`" not in page] == []


OTHERS = """
---
apiVersion: networking.istio.io/v1
kind: $kind
metadata: {name: more, namespace: shop}
spec: $spec
"""
WEB = "port: {number: 443, name: x, protocol: HTTPS}, hosts: [x]"
WRONG = [
    # kind, spec, the text at the place of the problem, its code and some of its words
    (
        "Gateway",
        "{servers: [{$web, tls: {mode: SIMPLE, credentialName: x}}]}",
        "{servers",
        "ME-3",
        "every workload would",
    ),
    ("Gateway", "{selector: {a: b}}", "{selector", "ME-3", "`servers` is missing"),
    ("Gateway", "{selector: {a: b}, servers: [{$web}]}", "{port", "ME-3", "`tls` is missing"),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {credentialName: x}}]}",
        "{cred",
        "ME-3",
        "`mode` is missing",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: SIMPLE}}]}",
        "{mode",
        "ME-3",
        "`credentialName` is missing",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: DISABLE}}]}",
        "DISABLE",
        "ME-1",
        "is no mode of a server",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: AUTO_PASSTHROUGH}}]}",
        "AUTO",
        "ME-6",
        "networks of one",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, caCrl: x}}]}",
        "x}",
        "ME-1",
        "asks for no certificate",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, credentialNames: [y]}}]}",
        "[y]",
        "ME-1",
        "exclude each",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, minProtocolVersion: TLSV1_1}}]}",
        "TLSV1_1",
        "ME-1",
        "unsafe",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, $newest, maxProtocolVersion: TLSV1_2}}]}",
        "TLSV1_2}",
        "ME-1",
        "is older than",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, cipherSuites: [RC4]}}]}",
        "RC4",
        "ME-1",
        "`RC4` is not",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, insecureSkipVerify: true}}]}",
        "true",
        "ME-6",
        "believed",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: SIMPLE, credentialName: ../x}}]}",
        "../x",
        "ME-1",
        "not a name",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: SIMPLE, serverCertificate: /etc/x, privateKey: y}}]}",
        "/etc/x",
        "ME-1",
        "not a path within the state directory",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {mode: MUTUAL, tlsCertificates: []}}]}",
        "[]",
        "ME-1",
        "one or two",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple, httpsRedirect: true}}]}",
        "true",
        "ME-1",
        "without TLS",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{port: {number: 80, name: x, protocol: HTTP}, hosts: [x], tls: {mode: SIMPLE}}]}",
        "mode",
        "ME-1",
        "plaintext HTTP",
    ),
    ("Gateway", "{selector: {a: b}, servers: [{$web, defaultEndpoint: x}]}", "x}", "ME-6", "leads to services"),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{port: {number: 80, name: x, protocol: HTTP}, hosts: [x], bind: here}]}",
        "here",
        "ME-1",
        "is not an IP",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{port: {number: 80, name: x, protocol: HTTP}, hosts: [a/b/c]}]}",
        "a/b/c",
        "ME-1",
        "is not a host",
    ),
    (
        "Gateway",
        "{selector: {a: b}, servers: [{$web, tls: {$simple}}, {$web, tls: {$simple}}]}",
        "{number: 443",
        "ME-5",
        "`x` is given twice",
    ),
    ("Sidecar", "{workloadSelector: {labels: {a: b}}}", "{workload", "ME-3", "says nothing"),
    ("Sidecar", '{egress: [{hosts: ["./*"]}, {hosts: ["./*"]}]}', "{hosts", "ME-1", "without a port is the last one"),
    ("Sidecar", "{egress: [{$out, bind: 0.0.0.0, hosts: ['./*']}]}", "0.0.0.0", "ME-6", "127.0.0.1 only"),
    ("Sidecar", "{egress: [{$out, hosts: ['a b/c']}]}", "'a b/c'", "ME-1", "is not a namespace and a host"),
    ("Sidecar", "{egress: [{$out, hosts: []}]}", "[]", "ME-3", "`hosts` is empty"),
    ("Sidecar", "{outboundTrafficPolicy: {mode: SOME}}", "SOME", "ME-1", "REGISTRY_ONLY, ALLOW_ANY"),
    ("Sidecar", "{outboundTrafficPolicy: {egressProxy: {host: x}}}", "{host", "ME-6", "through the egress gateway"),
    ("Sidecar", "{ingress: [], inboundConnectionPool: {}}", "{}", "ME-6", "not bounded here"),
    ("ServiceEntry", "{$port, hosts: ['*'], resolution: DNS}", "'*'", "ME-1", "`*` is not a host"),
    ("ServiceEntry", "{$port, hosts: []}", "[]", "ME-3", "`hosts` is empty"),
    ("ServiceEntry", "{hosts: [x.example]}", "{hosts", "ME-3", "`ports` is missing"),
    ("ServiceEntry", "{$port, hosts: [x.example], location: HERE}", "HERE", "ME-1", "MESH_EXTERNAL, MESH_INTERNAL"),
    ("ServiceEntry", "{$port, hosts: [x.example], resolution: STATIC}", "STATIC", "ME-3", "`endpoints` is missing"),
    ("ServiceEntry", "{$port, hosts: ['*.x.example'], resolution: DNS}", "'*.x", "ME-1", "has no address in the DNS"),
    ("ServiceEntry", "{$port, hosts: [x.example], resolution: DYNAMIC_DNS}", "x.example", "ME-1", "is for wildcards"),
    (
        "ServiceEntry",
        "{$port, hosts: [x.example], resolution: NONE, location: MESH_INTERNAL}",
        "NONE",
        "ME-6",
        "no address",
    ),
    ("ServiceEntry", "{$port, hosts: ['*.x.example'], subjectAltNames: [y]}", "[y]", "ME-6", "a wildcard"),
    ("ServiceEntry", "{$port, hosts: [x.example], workloadSelector: {}}", "{}", "ME-6", "no workloads of this mesh"),
    ("ServiceEntry", "{$port, hosts: [x.example], addresses: [10.0.0.0/8]}", "10.0.0.0/8", "ME-6", "is a network"),
    ("ServiceEntry", "{$port, hosts: [x.example], exportTo: [a b]}", "a b", "ME-1", "is not a namespace"),
    (
        "ServiceEntry",
        "{$port, hosts: [x.example], location: MESH_INTERNAL, endpoints: [{address: 10.0.0.1}]}",
        "{address",
        "ME-3",
        "who answers must be known",
    ),
    (
        "ServiceEntry",
        "{$port, hosts: [x.example], location: MESH_INTERNAL, endpoints: [{address: x.y, serviceAccount: a}]}",
        "x.y",
        "ME-1",
        "for names write `resolution: DNS`",
    ),
    (
        "ServiceEntry",
        "{$port, hosts: [x.example], endpoints: [{address: 10.0.0.1, ports: {no: 1}}]}",
        "1}",
        "ME-4",
        "no port `no`",
    ),
    (
        "ServiceEntry",
        "{ports: [{number: 1, name: a}, {number: 1, name: b}], hosts: [x.example]}",
        "b}",
        "ME-5",
        "given twice",
    ),
    ("WorkloadGroup", "{}", "{}", "ME-3", "`template` is missing"),
    ("WorkloadGroup", "{template: {address: 10.0.0.1}}", "10.0.0.1", "ME-1", "a template has no address"),
    ("WorkloadGroup", "{template: {}, probe: {exec: {command: [x]}}}", "{command", "ME-6", "starts no programs"),
    ("WorkloadGroup", "{template: {}, probe: {}}", "{}", "ME-3", "exactly one of httpGet"),
    ("WorkloadGroup", "{template: {}, probe: {httpGet: {port: 1, host: other}}}", "other", "ME-6", "beside it"),
    (
        "WorkloadGroup",
        "{template: {}, probe: {httpGet: {port: 1, scheme: HTTPS}}}",
        "HTTPS",
        "ME-6",
        "is not done here",
    ),
    ("WorkloadGroup", "{template: {}, probe: {periodSeconds: -1, tcpSocket: {port: 1}}}", "-1", "ME-1", "whole number"),
    ("WorkloadEntry", "{address: 10.0.0.1, serviceAccount: a/b}", "a/b", "ME-1", "`a/b`"),
]


@pytest.mark.parametrize(("kind", "spec", "at", "code", "words"), WRONG)
def test_a_mistake_is_refused_at_its_place(kind: str, spec: str, at: str, code: str, words: str) -> None:
    parts = {
        "web": WEB,
        "simple": "mode: SIMPLE, credentialName: x",
        "newest": "minProtocolVersion: TLSV1_3",
        "out": "port: {number: 15001, name: x, protocol: HTTP}",
        "port": "ports: [{number: 80, name: http, protocol: HTTP}]",
    }
    text = TEXT + Template(OTHERS).substitute(kind=kind, spec=Template(spec).substitute(parts))
    problems = read(text)[1]
    fitting = [problem for problem in problems if problem.code == code and words in str(problem)]
    places = [text.splitlines()[one.location.line - 1][one.location.column - 1 :] for one in fitting]
    assert any(place.startswith(at) for place in places), (places, [str(problem) for problem in problems])
    assert all(problem.is_error for problem in fitting)


CLASHES = [
    ("hosts: [files.example.com]\n    tls:", "hosts: [a.example.com]\n    tls:", "are for `a.example.com`"),
    (f"number: {PORTS['secure']}, name: https-a", f"number: {PORTS['web']}, name: https-a", "is with TLS and without"),
    (
        f"number: {PORTS['web']}, name: http-plain, protocol: HTTP",
        f"number: {PORTS['bytes']}, name: b, protocol: TCP",
        "only HTTP",
    ),
    (
        "---\n",
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: out, namespace: shop}\nspec:\n"
        "  selector: {istio: ingress}\n  servers:\n"
        f"  - {{port: {{number: {PORTS['secure']}, name: o, protocol: HTTPS}}, hosts: [o], "
        "tls: {mode: ISTIO_MUTUAL}}\n---\n",
        "has a port of its own",
    ),
    ("labels: {app: a}, ports", "labels: {app: a, istio: ingress}, ports", "a Gateway and a Sidecar"),
    (
        "hosts: [a.shop.svc.cluster.local]\n",
        "hosts: [a.shop.svc.cluster.local]\n  exportTo: [.]\n",
        "a route of ingress leads",
    ),
    ("autoRegistrationGroup: b}", "autoRegistrationGroup: z}", "no WorkloadGroup of `shop` is called `z`"),
]


@pytest.mark.parametrize(("old", "new", "words"), CLASHES)
def test_what_does_not_fit_together_is_named(old: str, new: str, words: str) -> None:
    assert old in TEXT
    assert [str(problem) for problem in read(TEXT.replace(old, new, 1))[1] if words in str(problem)] != []


def test_hosts_of_a_server_are_for_the_namespaces_that_are_written(mesh: Mesh) -> None:
    plain = next(server for server in mesh.workload("ingress").servers if server.name == "http-plain")
    assert plain.hosts == ("*.plain.example", "scoped.example")
    assert (plain.hosts_for("shop"), plain.hosts_for("other")) == (("*.plain.example",), ("scoped.example",))


def test_servers_share_ports_and_tables_as_istios_do(mesh: Mesh) -> None:
    servers = mesh.workload("ingress").servers
    assert [(group_name(group), len(group)) for group in server_groups(servers)] == [
        (f"ingress_{PORTS['web']}", 2),
        (f"ingress_{PORTS['secure']}", 4),
        (f"ingress_{PORTS['bytes']}", 1),
    ]
    assert [(name, [one.name for one in group]) for name, group in table_groups(servers)] == [
        (f"ingress_{PORTS['web']}", ["http", "http-plain"]),
        *((f"ingress_{PORTS['secure']}_shop_web_{name}", [name]) for name in ("https-a", "https-wild", "https-files")),
    ]


def test_every_chain_of_every_server_has_the_check(mesh: Mesh) -> None:
    for listener in listeners(mesh, mesh.workload("ingress"), permissive, RenderOptions()):
        for chain in as_json(listener)["filter_chains"]:  # type: ignore[attr-defined]  # plain data
            assert "ext_authz" in json.dumps(chain["filters"]), chain["name"]


def test_a_gateway_that_decides_by_itself_decides_on_every_chain(mesh: Mesh) -> None:
    options = RenderOptions(enforce=Enforce.NATIVE, listeners=Listeners.STATIC)
    files = render_all(mesh, permissive, options, Native(compile_engine(Resources(), mesh.config)))
    listeners_made = read_yaml(files["envoy/ingress.yaml"])["static_resources"]["listeners"]
    for chain in (chain for one in listeners_made for chain in one["filter_chains"]):
        decides = [
            one for one in chain["filters"] if "rbac" in json.dumps(one) or "config_discovery" in json.dumps(one)
        ]
        assert decides != [], chain["name"]
        assert "authz-native-tcp" not in json.dumps(chain)


def test_a_probed_port_has_one_chain_more_and_none_without_tls(mesh: Mesh) -> None:
    def chains(name: str, mode: MtlsMode) -> list[str]:
        made = listeners(mesh, mesh.workload(name), lambda _workload, _port: mode, RenderOptions())
        return [chain.name for listener in made for chain in listener.filter_chains]

    assert chains("b", MtlsMode.STRICT) == ["health", "mtls"]
    assert chains("b", MtlsMode.PERMISSIVE) == ["health", "mtls", "plaintext"]
    assert chains("b", MtlsMode.DISABLE) == ["plaintext"]
    assert chains("a", MtlsMode.STRICT) == ["mtls"]


def test_a_port_leads_to_what_its_hosts_name_and_is_exported(mesh: Mesh) -> None:
    by_host, by_name = mesh.workload("client").outbound
    assert by_host.targets is not None
    assert [host for host, _ in by_host.targets] == [
        *("*.many.example", "a.shop.svc.cluster.local", "b.shop.svc.cluster.local"),
        *("direct.example", "impostor.example", "named.example"),
    ]
    assert (by_host.leaves, by_name.targets) == (False, (("raw.shop.svc.cluster.local", 443),))


def test_a_workload_has_what_its_group_says_unless_it_says_so_itself(mesh: Mesh) -> None:
    b = mesh.workload("b")
    assert b.labels == {"app": "b", "replica": "one"}
    assert (str(b.spiffe_id), b.locality.region) == ("spiffe://cluster.local/ns/shop/sa/b", "here")
    assert b.probe == Probe(
        ProbeKind.HTTP, PORTS["app_b"], "/ready", headers=(("x-probe", "yes"),), period_seconds=1, failure_threshold=2
    )


@pytest.mark.parametrize(
    ("spec", "resolution"),
    [
        ("hosts: [x.example]", Resolution.DNS_ROUND_ROBIN),
        ("hosts: [x.example], resolution: NONE", Resolution.DNS_ROUND_ROBIN),
        ("hosts: [x.example], resolution: DNS", Resolution.DNS),
        ("hosts: [x.example], resolution: DNS_ROUND_ROBIN", Resolution.DNS_ROUND_ROBIN),
        ("hosts: ['*.x.example'], resolution: NONE", Resolution.BY_NAME),
        ("hosts: ['*.x.example'], resolution: DYNAMIC_DNS", Resolution.BY_NAME),
        ("hosts: ['*.x.example'], resolution: STATIC, endpoints: [{address: 10.0.0.1}]", Resolution.STATIC),
        ("hosts: ['*.x.example'], resolution: DNS, endpoints: [{address: y.example}]", Resolution.DNS),
    ],
)
def test_addresses_are_found_as_the_resolution_says(spec: str, resolution: Resolution) -> None:
    spec = f"{{ports: [{{number: 443, name: https, protocol: HTTPS}}], {spec}}}"
    mesh, problems = read(
        TEXT + Template(OTHERS.replace("namespace: shop", "namespace: away")).substitute(kind="ServiceEntry", spec=spec)
    )
    assert problems == (), [str(problem) for problem in problems]
    assert mesh.service(next(s.host for s in mesh.services if s.name == "more")).resolution is resolution


def test_names_of_services_are_those_of_istio() -> None:
    def service(host: str, *addresses: str) -> MeshService:
        return MeshService(host, "", host, (), addresses=addresses)

    found = domains(
        [
            service("a.shop.svc.cluster.local", "10.0.0.1", "fd00::1"),
            service("a.other.svc.cluster.local"),
            service("b.other.svc.cluster.local"),
            service("b"),
            service("*.Wild.example"),
        ],
        "shop",
    )
    assert found["a.shop.svc.cluster.local"] == [
        *("a.shop.svc.cluster.local", "a.shop.svc.cluster.local.", "a", "a.shop", "a.shop.svc", "10.0.0.1", "[fd00::1]")
    ]
    assert found["a.other.svc.cluster.local"][2:] == ["a.other", "a.other.svc"]
    assert found["b"] == ["b", "b."]
    assert found["*.Wild.example"][0] == "*.wild.example"
    every = [name for names in found.values() for name in names]
    assert len(every) == len(set(every))


UNWRITTEN = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {egress: [{hosts: ["./*", "istio-system/*"]}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: shop}
spec: {address: $a, serviceAccount: a, labels: {app: a}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: b, namespace: shop}
spec: {address: $b, serviceAccount: b, labels: {app: b}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 9090, name: more, protocol: HTTP}, {number: 80, name: web, protocol: HTTP}]
  endpoints: [{address: 10.0.0.9, serviceAccount: web}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: away, namespace: elsewhere}
spec:
  hosts: [away.elsewhere.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 80, name: web, protocol: HTTP}]
  endpoints: [{address: 10.0.0.9, serviceAccount: away}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [out.example], ports: [{number: 80, name: web, protocol: HTTP}]}
"""


def test_an_egress_listener_without_a_port_leads_to_every_port_of_its_services() -> None:
    mesh, problems = read(Template(UNWRITTEN).substitute(a="10.0.0.1", b="10.0.0.2"))
    assert {(problem.code, str(problem.severity)) for problem in problems} == {("ME-4", "warning")}
    assert all("`out.example:80`: reached through an egress gateway" in problem.message for problem in problems)
    for workload in mesh.workloads:
        (port,) = workload.outbound
        assert port.number == 15001
        assert port.targets == (("web.shop.svc.cluster.local", 80), ("web.shop.svc.cluster.local", 9090))
    (table,) = read_yaml(render_all(mesh)["rds/a.outbound_15001.yaml"])["resources"]
    assert not table.get("ignore_port_in_host_matching")
    first, second, elsewhere = table["virtual_hosts"]
    assert {"web", "web:80", "web.shop", "web.shop.svc.cluster.local:80"} < set(first["domains"])
    assert {"web:9090", "web.shop:9090"} < set(second["domains"])
    assert not set(first["domains"]) & set(second["domains"])
    assert (elsewhere["domains"], elsewhere["routes"][0]["direct_response"]["status"]) == (["*"], 502)


@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.0.0.1"), ("127.0.0.1", "127.0.0.2")])
def test_on_one_machine_nobody_has_the_port_that_all_would_have(addresses: tuple[str, str]) -> None:
    mesh, problems = read(Template(UNWRITTEN).substitute(a=addresses[0], b=addresses[1]))
    (found,) = [problem for problem in problems if problem.code == "ME-5"]
    assert (str(found.severity), found.path) == ("warning", "spec.egress[0].hosts")
    assert "a, b run on one machine" in found.message
    assert [workload.outbound for workload in mesh.workloads] == [(), ()]


APPLICATION_THERE = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec:
  workloadSelector: {labels: {app: a}}
  ingress: [{port: {number: 15080, protocol: HTTP, name: web}, defaultEndpoint: "127.0.0.1:15001"}]
  egress: [{hosts: ["./*"]}]
"""


def test_an_application_that_has_the_port_keeps_it() -> None:
    text = Template(UNWRITTEN).substitute(a="10.0.0.1", b="10.0.0.2") + APPLICATION_THERE
    mesh, problems = read(text.replace("labels: {app: a}}", "labels: {app: a}, ports: {web: 15080}}", 1))
    assert [str(problem) for problem in problems if problem.is_error] == []
    (found,) = [problem for problem in problems if problem.code == "ME-5"]
    assert "a, the application of a run on one machine" in found.message
    assert [[port.number for port in workload.outbound] for workload in mesh.workloads] == [[], [15001]]


OUTBOUND = [
    ("", "", True),
    ("REGISTRY_ONLY", "", False),
    ("REGISTRY_ONLY", "ALLOW_ANY", True),
    ("ALLOW_ANY", "", True),
    ("ALLOW_ANY", "REGISTRY_ONLY", False),
]


@pytest.mark.parametrize(("mesh_wide", "own", "leaves"), OUTBOUND)
def test_the_outbound_policy_of_the_mesh_holds_where_a_sidecar_has_none(mesh_wide: str, own: str, leaves: bool) -> None:
    text = description(Ports()).decode()
    if mesh_wide:
        text = text.replace("    trustDomain:", f"    outboundTrafficPolicy: {{mode: {mesh_wide}}}\n    trustDomain:")
    if own:
        policy = f"spec:\n  outboundTrafficPolicy: {{mode: {own}}}\n  workloadSelector: {{labels: {{app: client}}}}"
        text = text.replace("spec:\n  workloadSelector: {labels: {app: client}}", policy)
    found, problems = read(text)
    assert problems == ()
    assert [port.leaves for port in found.workload("client-v1").outbound] == [False, False, False, leaves]
