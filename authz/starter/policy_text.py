"""The policies of a plan: nothing is allowed, one ALLOW for each edge, and a token at the gateway."""

from collections.abc import Iterable

from authz.starter.mesh_plan import GATEWAY, ROOT_NAMESPACE, StarterIssuer, StarterPlan
from authz.starter.quoting import quoted

_EVERYWHERE = """\
# For the whole mesh. Nobody speaks plaintext:
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {root}}}
spec:
  mtls: {{mode: STRICT}}
---
# and nobody is allowed anything: an ALLOW without rules matches no request. Every other ALLOW opens one edge.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow-nothing, namespace: {root}}}
spec: {{}}
"""
_EDGES_HEAD = """\
# One ALLOW for each edge, by the identity in the caller's certificate. To narrow one:
#     to: [{operation: {methods: [GET], paths: [/products/*]}}]
"""
_EDGE = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}-from-{caller}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {quoted}}}}}
  action: ALLOW
  rules:
  - from: [{{source: {{principals: [{principal}]}}}}]
"""
_INGRESS = """\
# Who comes in from outside: whoever has a token {of_whom}
# made for the audience {audience}. A wrong token is answered 401 (403 for another audience), none at all 403.
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: ingress, namespace: {root}}}
spec:
  selector: {{matchLabels: {{istio: {gateway}}}}}
  jwtRules:
  - issuer: {issuer}
{jwks}    audiences: [{quoted_audience}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ingress, namespace: {root}}}
spec:
  selector: {{matchLabels: {{istio: {gateway}}}}}
  action: ALLOW
  rules:
  - from: [{{source: {{requestPrincipals: [{principals}]}}}}]
"""


def everywhere_text() -> str:
    """Demand mutual TLS, and allow nothing."""
    return _EVERYWHERE.format(root=ROOT_NAMESPACE)


def edges_text(plan: StarterPlan) -> str:
    """Allow each call; empty if nobody calls anybody."""
    edges = [_edge(plan, plan.ingress, "ingress", plan.gateway_principal)] if plan.ingress else []
    for service in plan.services:
        edges += [_edge(plan, service.name, caller, plan.principal(caller)) for caller in plan.callers_of(service.name)]
    return _EDGES_HEAD + "---\n".join(edges) if edges else ""


def edge_name(called: str, caller: str) -> str:
    """The name of the policy that allows a call; ``ingress`` is the gateway."""
    return f"{called}-from-{caller}"


def _edge(plan: StarterPlan, name: str, caller: str, principal: str) -> str:
    return _EDGE.format(
        name=name, quoted=quoted(name), caller=caller, namespace=quoted(plan.namespace), principal=quoted(principal)
    )


def ingress_text(plan: StarterPlan, issuer: StarterIssuer) -> str:
    """Accept the issuer's tokens at the gateway, and let nobody in without one."""
    of_whom = f"of {issuer.url}"
    if issuer.is_for_trying:
        of_whom += " (a trial one, which `authz up` runs: put your own issuer in its place)"
    return _INGRESS.format(
        root=ROOT_NAMESPACE,
        gateway=GATEWAY,
        of_whom=of_whom,
        audience=issuer.audience,
        quoted_audience=quoted(issuer.audience),
        issuer=quoted(issuer.url),
        jwks="".join(_jwks(issuer)),
        principals=quoted(f"{issuer.url}/*"),
    )


def _jwks(issuer: StarterIssuer) -> Iterable[str]:
    if issuer.jwks_uri:
        yield f"    jwksUri: {quoted(issuer.jwks_uri)}\n"
