"""Mutated Gateways, Sidecars, ServiceEntries and workloads: refused with place and advice, or taken by Envoy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.errors import Problem, Severity
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.rig import Authority
from tests.mesh.meshes import Ports, description
from tests.mesh.mutated import accepted_by_envoy, mutations
from tests.mesh.test_traffic_entries import TEXT
from tests.yaml_text import read_all_yaml, read_yaml

KINDS = ("Gateway", "Sidecar", "ServiceEntry", "WorkloadEntry", "WorkloadGroup")
COUNT = 200
WITH_ENVOY = 12
SEED = 53
DOCUMENTS: list[dict[str, Any]] = list(read_all_yaml(TEXT))
WRITTEN = [yaml.safe_dump(one) for one in DOCUMENTS]


def documents(kind: str) -> list[dict[str, Any]]:
    return [one for one in DOCUMENTS if one["kind"] == kind]


def read(text: str) -> tuple[Mesh, tuple[Problem, ...]]:
    """The mesh with a document in the place of the one with its kind and name."""
    mutated = read_yaml(text)
    own = (mutated["kind"], mutated["metadata"])
    others = [text for one, text in zip(DOCUMENTS, WRITTEN, strict=True) if (one["kind"], one["metadata"]) != own]
    rest = "---\n".join(others).encode()
    return read_mesh_description([("case.yaml", text.encode()), ("rest.yaml", rest)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_document_is_refused_with_its_place_or_read(kind: str) -> None:
    accepted = 0
    for text in mutations(documents(kind), SEED, COUNT):
        mesh, problems = read(text)
        accepted += not any(problem.is_error for problem in problems)
        assert mesh is not None
        for problem in problems:
            assert problem.severity in (Severity.ERROR, Severity.WARNING), str(problem)
            assert problem.location.file in ("case.yaml", "rest.yaml"), (str(problem), text)
            assert problem.location.line > 0, (str(problem), text)
            assert problem.message, text
    assert COUNT / 40 < accepted < COUNT * 39 / 40


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_accepted_envoy_accepts(kind: str, tmp_path: Path) -> None:
    proxies = {"Gateway": ("ingress",), "WorkloadEntry": ("client", "a"), "WorkloadGroup": ("b", "c", "client")}
    authority = Authority.new()
    tried = 0
    for i, text in enumerate(mutations(documents(kind), SEED + 1, COUNT * 10)):
        mesh, problems = read(text)
        if problems:
            continue
        tried += 1
        state = tmp_path / str(i)
        for server in (server for gateway in mesh.gateways for server in gateway.servers):
            for directory in (*server.credentials, server.client.ca_credential):
                if directory:
                    authority.issue(state / "certs" / directory, "x.example")
                    authority.publish(state / "certs" / directory / "ca.crt")
        state.mkdir(exist_ok=True)
        (state / "certs").mkdir(exist_ok=True)
        wanted = [name for name in proxies.get(kind, ("client", "a")) if any(name == w.name for w in mesh.workloads)]
        assert accepted_by_envoy(mesh, tuple(wanted), state) == "", text
        if tried == WITH_ENVOY:
            return
    raise AssertionError(f"only {tried} were accepted")


OUTSIDE = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: app}
spec: {hosts: ["*.wild.example"], resolution: DYNAMIC_DNS, ports: [{number: 443, name: https, protocol: HTTPS}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: app}
spec:
  hosts: [dns.example]
  resolution: DNS
  ports: [{number: 443, name: https, protocol: HTTPS}]
  endpoints: [{address: a.example, weight: 3, locality: r/z}, {address: b.example}]
  subjectAltNames: [x.example]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: app}
spec:
  hosts: [first.example]
  resolution: DNS_ROUND_ROBIN
  ports: [{number: 443, name: https, protocol: HTTPS, targetPort: 8443}, {number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: a.example, ports: {https: 9443}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wild, namespace: app}
spec:
  host: "*.wild.example"
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, tls: {mode: SIMPLE}, outlierDetection: {consecutive5xxErrors: 2}}
"""


NAMED = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dns, namespace: app}
spec: {host: dns.example, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: certs/outside.crt}}}
"""


@pytest.mark.envoy
@pytest.mark.slow
def test_envoy_accepts_hosts_outside_however_they_are_found(tmp_path: Path) -> None:
    hosts = 'hosts: ["./*.example", ./known.example.com]'
    text = description(Ports()).decode().replace("hosts: [./known.example.com]", hosts)
    _, problems = read_mesh_description([("mesh.yaml", f"{text}{OUTSIDE}".encode())])
    assert ["needs an authority" in str(problem) for problem in problems] == [True]
    mesh, problems = read_mesh_description([("mesh.yaml", f"{text}{OUTSIDE}{NAMED}".encode())])
    for name in ("outside.crt", "outside/ca.crt"):
        Authority.new().publish(tmp_path / "certs" / name)
    assert problems == (), [str(problem) for problem in problems]
    assert accepted_by_envoy(mesh, ("client-v1", "egress"), tmp_path) == ""
    narrowed = f"{text}{OUTSIDE}".replace("tls: {mode: SIMPLE}", "tls: {mode: SIMPLE, sni: x.wild.example}")
    _, problems = read_mesh_description([("mesh.yaml", narrowed.encode())])
    assert any("one name is not that of every host" in str(problem) for problem in problems)
