"""A shop whose VirtualServices are compared with Istio's: services, a client, a gateway; the same YAML for both."""

from pathlib import Path
from typing import Any

import yaml

from tests.yaml_text import read_yaml

CASES: list[dict[str, Any]] = read_yaml((Path(__file__).parent / "virtual_services.yaml").read_text())
SERVICES = {
    "web": [(80, "HTTP")],
    "reviews": [(9080, "HTTP")],
    "ratings": [(9080, "HTTP"), (9090, "HTTP")],
    "db": [(6379, "TCP")],
    "secure": [(8443, "TLS")],
}
NAMESPACE = "shop"
LABELS = {"app": "client", "version": "v1"}
GATEWAY_LABELS = {"istio": "ingress"}
BOTH = "\n---\n".join(
    [
        *(
            yaml.safe_dump(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "ServiceEntry",
                    "metadata": {"name": name, "namespace": NAMESPACE},
                    "spec": {
                        "hosts": [f"{name}.{NAMESPACE}.svc.cluster.local"],
                        "location": "MESH_INTERNAL",
                        "resolution": "STATIC",
                        "ports": [
                            {"number": number, "name": f"p{number}", "protocol": protocol} for number, protocol in ports
                        ],
                        "workloadSelector": {"labels": {"app": "client"}},
                    },
                }
            )
            for name, ports in SERVICES.items()
        ),
        """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingress}
  servers:
  - {port: {number: 15021, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 15022, name: other, protocol: HTTP}, hosts: [a.example.com, "*.b.example.com"]}
""",
    ]
)
"""What Istio and we read alike."""
OURS = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: client, labels: {app: client, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ingress, namespace: istio-system}
spec: {address: 127.0.0.1, serviceAccount: ingress, labels: {istio: ingress}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: shop}
spec:
  workloadSelector: {labels: {app: client}}
  egress:
  - {port: {number: 16080, protocol: HTTP, name: web}, hosts: [./web.shop.svc.cluster.local]}
  - {port: {number: 16081, protocol: HTTP, name: reviews}, hosts: [./reviews.shop.svc.cluster.local]}
  - {port: {number: 16082, protocol: HTTP, name: ratings}, hosts: [./ratings.shop.svc.cluster.local]}
  - {port: {number: 16083, protocol: TCP, name: db}, hosts: [./db.shop.svc.cluster.local]}
  - {port: {number: 16084, protocol: TLS, name: secure}, hosts: [./secure.shop.svc.cluster.local]}
"""
"""Our loopback ports in the place of captured traffic."""


def virtual_services(case: dict[str, Any]) -> str:
    """The documents of a case."""
    specs = {case["name"]: case["spec"]} if "spec" in case else {}
    return "\n---\n".join(
        yaml.safe_dump(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
            }
        )
        for name, spec in (specs | case.get("more", {})).items()
    )
