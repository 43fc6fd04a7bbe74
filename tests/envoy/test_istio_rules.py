"""
DestinationRules as istiod follows them: the same clusters and endpoints for the same description.

``tests/mesh/istio_clusters.json`` was made by Istio's own code (istio.io/istio of 2026-08-27). ``NewConfigGenTest`` of
``pilot/pkg/networking/core`` was given ``istio_mesh.yaml`` with the rules of each case in ``istio_rules.yaml``, all of
one time of creation. It was asked for the proxy's ``Clusters``, and ``NewEndpointBuilder`` of
``pilot/pkg/xds/endpoints`` for the endpoints of each. Both went through ``reduced``, ``socket_of`` and ``places`` of
``istio_clusters.py``.
"""

import json
from typing import Any

import pytest

from authz.envoy.clusters import clusters
from authz.envoy.endpoints import endpoint_files
from authz.envoy.messages import as_json
from authz.envoy.options import RenderOptions
from authz.envoy.render import permissive
from authz.mesh.description import read_mesh_description
from tests.envoy.istio_clusters import CASES, MESH, PROXIES, ROOT, places, reduced, rules_of, socket_of

EXPECTED: dict[str, Any] = json.loads((ROOT / "istio_clusters.json").read_text())

_CALLER = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: caller, namespace: {namespace}}}
spec: {{address: 10.0.1.1, serviceAccount: caller, labels: {labels}, locality: {place}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: caller, namespace: {namespace}}}
spec:
  workloadSelector: {{labels: {{app: {app}}}}}
  egress:
  - {{port: {{number: 16001, protocol: HTTP, name: http}}, hosts: [app/server.app.svc.cluster.local]}}
  - {{port: {{number: 16002, protocol: TCP, name: tcp}}, hosts: [app/server.app.svc.cluster.local]}}
"""
_SERVER = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: server-{i}, namespace: app}}
spec:
  workloadSelector: {{labels: {{app: server, only: "{i}"}}}}
  ingress:
  - {{port: {{number: 150{i}1, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:190{i}1"}}
  - {{port: {{number: 150{i}2, protocol: TCP, name: tcp}}, defaultEndpoint: "127.0.0.1:190{i}2"}}
"""


def ours(case: dict[str, Any]) -> dict[str, Any]:
    """What we render for the proxy that a case asks about."""
    namespace, labels, place = PROXIES[case.get("as", "near")]
    text = MESH + rules_of(case)
    for i in range(1, 6):
        text += _SERVER.format(i=i)
        head, name, tail = text.partition(f"metadata: {{name: server-{i}, namespace: app}}\nspec:\n  address")
        text = head + name + tail.replace("labels: {app: server,", f'labels: {{app: server, only: "{i}",', 1)
    text += _CALLER.format(namespace=namespace, labels=json.dumps(labels), place=place, app=labels["app"])
    mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert not any(one.is_error for one in problems)
    options = RenderOptions()
    files = {name: as_json(one) for name, one in endpoint_files(mesh, permissive, options, compose=False).items()}
    found = {}
    for cluster in clusters(mesh, mesh.workload("caller"), options):
        written = as_json(cluster)
        file = written["eds_cluster_config"]["service_name"]  # type: ignore[index]  # plain data
        http = "|80|" in cluster.name
        found[cluster.name] = {
            "cluster": reduced(written, http=http),
            "socket": socket_of(written),
            "endpoints": places(files[f"{file}.yaml"]),
        }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # plain data


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_clusters_and_endpoints_are_those_of_istiod(case: dict[str, Any]) -> None:
    expected, found = EXPECTED[case["name"]], ours(case)
    assert found.keys() == expected.keys()
    for name, cluster in expected.items():
        assert found[name]["cluster"] == cluster["cluster"], name
        assert found[name]["endpoints"] == cluster["endpoints"], name
        if cluster["socket"]["tls"] or "DISABLE" in json.dumps(case["rules"]):  # else PeerAuthentication decides
            assert found[name]["socket"] == cluster["socket"], name


def test_every_case_was_asked_of_istiod() -> None:
    assert len(CASES) > 40
    assert {case["name"] for case in CASES} == EXPECTED.keys()
