"""Which Telemetries hold for a workload, and what is left of them: the same as in Istio's own code."""

import json
from pathlib import Path
from typing import Any

import pytest

from authz.mesh.description import read_mesh_description
from authz.mesh.telemetry_kind import SideTelemetry, TagSource

ISTIO = json.loads((Path(__file__).parent / "istio_telemetry.json").read_text())
EVERYWHERE = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %(name)s, namespace: %(namespace)s}
spec: {address: 127.0.0.1, labels: %(labels)s, ports: {http: %(port)d}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: %(name)s, namespace: %(namespace)s}
spec:
  workloadSelector: {labels: {who: %(name)s}}
  ingress: [{port: {number: %(port)d, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:1%(port)d"}]
"""


def described(case: dict[str, Any]) -> tuple[SideTelemetry, SideTelemetry]:
    """The sides of the case's workload; bystanders make sure that no Telemetry selects nobody."""
    mesh = dict(ISTIO["mesh"])
    if case["defaults"]:
        mesh["defaultProviders"] = {"accessLogging": ["envoy"], "tracing": ["spans"]}
    everybody = [("it", case["namespace"], case["labels"])]
    for index, one in enumerate(case["telemetries"]):
        gateway = {"gateway.networking.k8s.io/gateway-name": one["spec"].get("targetRefs", [{}])[0].get("name", "x")}
        labels = one["spec"].get("selector", {}).get("matchLabels", {}) | gateway
        everybody.append((f"bystander{index}", one["metadata"]["namespace"], labels))
    documents = [
        json.dumps(
            {
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": {"name": "istio", "namespace": "istio-system"},
                "data": {"mesh": json.dumps(mesh)},
            }
        ),
        *(
            EVERYWHERE
            % {"name": name, "namespace": namespace, "labels": json.dumps(labels | {"who": name}), "port": port}
            for port, (name, namespace, labels) in enumerate(everybody, 2000)
        ),
        *(json.dumps(one) for one in case["telemetries"]),
    ]
    found, problems = read_mesh_description([("mesh.yaml", "\n---\n".join(documents).encode())])
    assert [str(one) for one in problems if one.is_error] == []
    telemetry = found.workload("it").telemetry
    return telemetry.server, telemetry.client


@pytest.mark.parametrize("index", range(len(ISTIO["cases"])))
def test_logs_and_spans_are_those_that_istio_selects_and_merges(index: int) -> None:
    case = ISTIO["cases"][index]
    for name, side in zip(("server", "client"), described(case), strict=True):
        logs = case["istio"][name]
        ours = None if side.logs is None else [[log.provider, log.expression] for log in side.logs]
        assert ours == ([[provider, text] for provider, off, text in logs if not off] if logs else None)
        istio = case["istio"]["spans"].get(name)
        if side.spans is None or istio is None:
            assert side.spans is istio
            continue
        spans = side.spans
        # Without any provider Istio traces nothing; here spans then go to the collector of the rendering.
        assert (spans.tracer is not None) == bool(istio["provider"])
        if istio["provider"]:
            assert spans.is_disabled == istio["disabled"]
            assert spans.tracer is not None
            assert spans.tracer.collector.port == {"spans": 4317, "other-spans": 4318}[istio["provider"]]
        assert spans.sampling_percent == istio["sampling"]
        assert {key: tag.value for key, tag in spans.tags.items()} == istio["tags"]
        assert all(tag.source is TagSource.LITERAL for tag in spans.tags.values())
        flags = (spans.samples_by_request_id, spans.has_istio_tags, not spans.propagates_context)
        assert flags == (istio["byRequestId"], istio["istioTags"], istio["silent"])
