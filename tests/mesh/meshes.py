"""Mesh descriptions for tests: of two workloads with free ports, and of a single sidecar."""

from dataclasses import asdict, dataclass
from string import Template

from authz.mesh.login import LoginEndpoints
from authz.mesh.nouns import Mesh

ONE_SIDECAR = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: api}, serviceAccount: api, ports: {http: 15080}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: 15080, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:19080"}]
"""
"""One HTTP workload with a sidecar."""
DESCRIPTION = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: cluster.local
    pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client-v1, namespace: app}
spec: {address: 127.0.0.1, serviceAccount: client, labels: {app: client, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: app}
spec:
  workloadSelector: {labels: {app: client}}
  egress:
  - {port: {number: $out_http, protocol: HTTP, name: server}, hosts: [./server.app.svc.cluster.local]}
  - {port: {number: $out_tcp, protocol: TCP, name: db}, hosts: [./server.app.svc.cluster.local]}
  - {port: {number: $out_known, protocol: HTTP, name: known}, hosts: [./known.example.com]}
  - {port: {number: $out_any, protocol: HTTP_PROXY, name: any}, hosts: ["*/*"]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: server, namespace: app}
spec:
  hosts: [server.app.svc.cluster.local]
  location: MESH_INTERNAL
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 6379, name: tcp, protocol: TCP}
  workloadSelector: {labels: {app: server}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: server-v1, namespace: app}
spec:
  address: 127.0.0.1
  serviceAccount: server
  labels: {app: server, version: v1}
  ports: {http: $in_http, tcp: $in_tcp}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: server, namespace: app}
spec:
  workloadSelector: {labels: {app: server}}
  ingress:
  - {port: {number: $in_http, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:$app_http"}
  - {port: {number: $in_tcp, protocol: TCP, name: tcp}, defaultEndpoint: "127.0.0.1:$app_tcp"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ingress, namespace: istio-system}
spec: {address: 127.0.0.1, serviceAccount: ingress, labels: {istio: ingress}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingress}
  servers:
  - port: {number: $ingress, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, credentialName: web}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: app}
spec:
  hosts: ["*"]
  gateways: [istio-system/web]
  http:
  - match: [{uri: {prefix: /}}]
    route: [{destination: {host: server.app.svc.cluster.local, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: egress, namespace: istio-system}
spec: {address: 127.0.0.1, serviceAccount: egress, labels: {istio: egress}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: istio-system}
spec:
  selector: {istio: egress}
  servers:
  - {port: {number: $egress, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}
  - {port: {number: $through, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: known, namespace: app}
spec:
  hosts: [known.example.com]
  location: MESH_EXTERNAL
  ports: [{number: 443, name: https, protocol: HTTPS}]
  endpoints: [{address: 127.0.0.1, ports: {https: $outside}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: known, namespace: app}
spec:
  host: known.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: certs/outside/ca.crt}}
"""


@dataclass(frozen=True)
class Ports:
    """Every port of the description."""

    out_http: int = 15001
    out_tcp: int = 15002
    out_known: int = 15003
    out_any: int = 15004
    in_http: int = 15011
    in_tcp: int = 15012
    app_http: int = 19011
    app_tcp: int = 19012
    ingress: int = 15021
    egress: int = 15022
    outside: int = 19022
    through: int = 15023


def description(ports: Ports) -> bytes:
    return Template(DESCRIPTION).substitute(asdict(ports)).encode()


def logins(mesh: Mesh) -> dict[str, LoginEndpoints]:
    """What the demo's issuer says of itself, for every login of a mesh: nobody has to be asked."""
    issuers = [login.issuer for login in mesh.logins]
    return {issuer: LoginEndpoints(f"{issuer}/authorize", f"{issuer}/token", f"{issuer}/logout") for issuer in issuers}
