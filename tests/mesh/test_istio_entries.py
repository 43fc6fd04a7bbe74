"""
Route tables and filter chains of gateways and of ports by host, against those that Istio's own code makes.

``istio_entries.json`` says how it was made, from ``istio_entries.yaml``, which both read alike. What is compared: which
domains lead where and redirect, which chain is for which names, its certificates, and what it demands of clients.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from authz.envoy.listeners import listeners
from authz.envoy.messages import as_json
from authz.envoy.options import RenderOptions
from authz.envoy.render import permissive
from authz.envoy.route_tables import route_tables
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh

Json = Any
HERE = Path(__file__).parent
ISTIO: dict[str, Json] = json.loads((HERE / "istio_entries.json").read_text())
OURS = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: client}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ingress, namespace: istio-system}
spec: {address: 127.0.0.1, labels: {istio: ingress}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: a}, ports: {http: 15101, tls: 15102}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec:
  workloadSelector: {labels: {app: a}}
  ingress:
  - {port: {number: 15101, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:19101"}
  - {port: {number: 15102, protocol: TCP, name: tls}, defaultEndpoint: "127.0.0.1:19102"}
"""


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    text = (HERE / "istio_entries.yaml").read_text() + OURS
    found, problems = read_mesh_description([("istio.yaml", text.encode())])
    assert problems == (), [str(problem) for problem in problems]
    return found


def domains_of(table: Json) -> Json:
    """Each domain with what it demands, and its routes as paths and where they lead."""
    found = {}
    for host in table.get("virtual_hosts", []):
        routes = []
        for route in host.get("routes", []):
            path = next((f"{k} {v}" for k, v in route["match"].items() if k in ("prefix", "path")), "")
            status = route.get("direct_response", {}).get("status", "")
            routes.append([path, route.get("route", {}).get("cluster") or str(status)])
        for domain in host["domains"]:
            found[domain] = {"require_tls": host.get("require_tls", "NONE"), "routes": routes}
    return found


def chain_of(chain: Json) -> Json:
    """A filter chain: its names, where bytes go, and its TLS."""
    filters = {one["name"].rpartition(".")[2]: one["typed_config"] for one in chain["filters"]}
    tls = chain.get("transport_socket", {}).get("typed_config", {})
    common = tls.get("common_tls_context", {})
    parameters, combined = common.get("tls_params", {}), common.get("combined_validation_context", {})
    roots = combined.get("validation_context_sds_secret_config") or common.get("validation_context_sds_secret_config")
    names = combined.get("default_validation_context", {}).get("match_typed_subject_alt_names", [])
    return {
        "server_names": sorted(chain.get("filter_chain_match", {}).get("server_names", [])),
        "requests": "http_connection_manager" in filters,
        "cluster": filters.get("tcp_proxy", {}).get("cluster"),
        "certificates": [one["name"] for one in common.get("tls_certificate_sds_secret_configs", [])],
        "roots": (roots or {}).get("name", ""),
        "demands": bool(tls.get("require_client_certificate")),
        "minimum": parameters.get("tls_minimum_protocol_version", "TLSv1_2"),
        "ciphers": parameters.get("cipher_suites", []),
        "names": sorted({one["matcher"]["exact"] for one in names}),
        "alpn": common.get("alpn_protocols", []),
    }


def test_gateways_have_istios_tables(mesh: Mesh) -> None:
    ours = [domains_of(as_json(table)) for table in route_tables(mesh, mesh.workload("ingress"))]
    tables = ISTIO["gateway"]["tables"]
    order = ("http.15080", *(f"https.15443.https-{name}.web.shop" for name in ("a", "wild", "opt")))
    assert ours == [tables[name] for name in order]


def test_gateways_have_istios_chains(mesh: Mesh) -> None:
    made = (as_json(one) for one in listeners(mesh, mesh.workload("ingress"), permissive, RenderOptions()))
    ours: Json = {
        one["address"]["socket_address"]["port_value"]: [chain_of(chain) for chain in one["filter_chains"]]  # type: ignore[index, attr-defined]  # plain data
        for one in made
    }
    istio = {one["port"]: one["chains"] for one in ISTIO["gateway"]["listeners"]}
    assert ours.keys() == istio.keys(), "no listener where no route leads anywhere"
    for port, chains in istio.items():
        assert sorted(ours[port], key=json.dumps) == sorted(chains, key=json.dumps)


def test_a_port_by_host_has_istios_domains(mesh: Mesh) -> None:
    (table,) = route_tables(mesh, mesh.workload("client"))
    assert domains_of(as_json(table)) == ISTIO["client"]
