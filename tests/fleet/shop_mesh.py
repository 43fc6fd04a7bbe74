"""The mesh of the tests: on the second and third machine a caller, and whom it calls, each with a proxy of its own."""

OUT, INBOUND, APP = 15001, 15006, 9000
"""Where callers ask their own proxies, where proxies are called, and the application."""
API, STOCK = (f"{name}.shop.svc.cluster.local" for name in ("api", "stock"))
"""The services: on the third machine, and on the second."""
NEAR = {"two": STOCK, "three": API}
"""The service on the same machine."""
MACHINE_OF = {"web-v1": "two", "stock-v1": "two", "web-v2": "three", "api-v1": "three"}
IDENTITY = {name: f"spiffe://mesh.test/ns/shop/sa/{name.partition('-')[0]}" for name in MACHINE_OF}
_CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: mesh.test"}
"""
_CALLER = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: shop}}
spec: {{address: {address}, serviceAccount: web, labels: {{app: web}}}}
"""
_CALLERS = f"""---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  egress: [{{port: {{number: {OUT}, protocol: HTTP, name: out}}, hosts: [./{API}, ./{STOCK}]}}]
"""
_CALLED = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {app}, namespace: shop}}
spec:
  hosts: [{app}.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: {app}}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {app}-v1, namespace: shop}}
spec:
  address: {address}
  serviceAccount: {app}
  labels: {{app: {app}, kind: called}}
  ports: {{http: {inbound}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {app}, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: {app}}}}}
  ingress: [{{port: {{number: {inbound}, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:{own}"}}]
"""
MESH = (
    _CONFIG
    + _CALLER.format(name="web-v1", address="10.77.0.2")
    + _CALLER.format(name="web-v2", address="10.77.0.3")
    + _CALLERS
    + _CALLED.format(app="stock", address="10.77.0.2", inbound=INBOUND, own=APP)
    + _CALLED.format(app="api", address="10.77.0.3", inbound=INBOUND, own=APP)
)


def allow(*paths: str) -> str:
    """Only callers of ours, and only these paths."""
    told = ", ".join(f'"{path}"' for path in paths)
    return (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: shop}\n"
        "spec: {mtls: {mode: STRICT}}\n---\n"
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: called, namespace: shop}\n"
        "spec:\n  selector: {matchLabels: {kind: called}}\n"
        '  rules: [{from: [{source: {principals: ["mesh.test/ns/shop/sa/web"]}}], '
        f"to: [{{operation: {{paths: [{told}]}}}}]}}]\n"
    )
