"""The mesh description of a plan, in Istio's own kinds."""

from collections.abc import Iterator

from authz.starter.mesh_plan import GATEWAY, LOOPBACK, ROOT_NAMESPACE, StarterPlan, StarterService
from authz.starter.quoting import quoted

_HEAD = """\
# The mesh: what there is and how it is reached. `authz up` follows this file; docs/mesh.md knows every field.
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: {root}}}
data:
  mesh: |
    rootNamespace: {root}
    trustDomain: {domain}
"""
_INGRESS = """\
---
# From outside: https://localhost:{port}/ leads to {ingress}.
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {gateway}, namespace: {root}}}
spec: {{address: {loopback}, serviceAccount: {gateway}, labels: {{istio: {gateway}}}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: ingress, namespace: {root}}}
spec:
  selector: {{istio: {gateway}}}
  servers:
  - port: {{number: {port}, name: https, protocol: HTTPS}}
    hosts: ["*"]
    tls: {{mode: SIMPLE, credentialName: ingress}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: ingress, namespace: {namespace}}}
spec:
  hosts: ["*"]
  gateways: [{root}/ingress]
  http:
  - match: [{{uri: {{prefix: /}}}}]   # everything: the policies decide
    route: [{{destination: {{host: {ingress}.{plain_namespace}.svc.cluster.local, port: {{number: {ingress_port}}}}}}}]
"""
_SERVICE = """\
---
# {name} listens on {loopback}:{app_port}; its proxy receives on {port}{calls}.
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {quoted}, namespace: {namespace}}}
spec:
  hosts: [{name}.{plain_namespace}.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {app_port}, name: {protocol}, protocol: {upper}}}]
  workloadSelector: {{labels: {{app: {quoted}}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {quoted}, namespace: {namespace}}}
spec: {{address: {loopback}, serviceAccount: {quoted}, labels: {{app: {quoted}}}, ports: {{{protocol}: {port}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {quoted}, namespace: {namespace}}}
spec:
  workloadSelector: {{labels: {{app: {quoted}}}}}
  ingress:
  - {{port: {{number: {port}, name: {protocol}, protocol: {upper}}}, defaultEndpoint: "{loopback}:{app_port}"}}
"""
_EGRESS = """\
  - port: {{number: {port}, name: {protocol}-{name}, protocol: {upper}}}
    bind: {loopback}
    captureMode: NONE
    hosts: [./{name}.{namespace}.svc.cluster.local]
"""


def mesh_text(plan: StarterPlan) -> str:
    """Describe every service, its proxy and the gateway."""
    parts = [_HEAD.format(root=ROOT_NAMESPACE, domain=quoted(plan.trust_domain))]
    if plan.ingress:
        parts.append(
            _INGRESS.format(
                gateway=GATEWAY,
                root=ROOT_NAMESPACE,
                loopback=LOOPBACK,
                port=plan.ingress_port,
                namespace=quoted(plan.namespace),
                plain_namespace=plan.namespace,
                ingress=plan.ingress,
                ingress_port=plan.service(plan.ingress).port,
            )
        )
    for service in plan.services:
        parts += _service(plan, service)
    return "".join(parts)


def _service(plan: StarterPlan, service: StarterService) -> Iterator[str]:
    called = plan.called_by(service.name)
    reached = ", ".join(f"{name} at {plan.leads[service.name, name]}" for name in called)
    yield _SERVICE.format(
        name=service.name,
        quoted=quoted(service.name),
        namespace=quoted(plan.namespace),
        plain_namespace=plan.namespace,
        app_port=service.port,
        port=plan.receives[service.name],
        protocol=service.protocol,
        upper=service.protocol.upper(),
        loopback=LOOPBACK,
        calls=f"; it reaches {reached}" if reached else "",
    )
    if called:
        yield "  egress:\n"
    for name in called:
        protocol = plan.service(name).protocol
        yield _EGRESS.format(
            port=plan.leads[service.name, name],
            protocol=protocol,
            upper=protocol.upper(),
            name=name,
            namespace=plan.namespace,
            loopback=LOOPBACK,
        )
