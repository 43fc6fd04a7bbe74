"""The invariants of a plan: who may call each service, mutual TLS, a token at the gateway."""

from collections.abc import Iterator

from authz.starter.mesh_plan import StarterPlan, StarterService
from authz.starter.quoting import quoted

_HEAD = """\
# What no change of the policies may break; add what matters to you. Run it: authz prove invariants.yaml
format: 1
policyFiles: [policies]
meshFile: mesh.yaml
invariants:
- id: mutual-tls-everywhere
  never: {to: {kind: sidecar}, when: {tls: [plaintext, simple]}}
"""
_GATEWAY = """\
- id: a-token-at-the-gateway
  onlyIf: {{to: {{kind: gateway}}, has: {{requestPrincipal: {principals}}}}}
"""
_CALLERS = """\
- id: callers-of-{name}
  never: {{to: {to}{unless}}}
"""


def invariants_text(plan: StarterPlan) -> str:
    """Write one for the mesh, one for the gateway and one for each service."""
    gateway = ""
    if plan.issuer is not None:
        gateway = _GATEWAY.format(principals=quoted(f"{plan.issuer.url}/*"))
    return "".join([_HEAD, gateway, *(_callers(plan, service) for service in plan.services)])


def _callers(plan: StarterPlan, service: StarterService) -> str:
    principals = ", ".join(_principals(plan, service))
    unless = f", unless: {{sourcePrincipal: [{principals}]}}" if principals else ""
    return _CALLERS.format(name=service.name, to=quoted(service.name), unless=unless)


def _principals(plan: StarterPlan, service: StarterService) -> Iterator[str]:
    if service.name == plan.ingress:
        yield quoted(plan.gateway_principal)
    yield from (quoted(plan.principal(caller)) for caller in plan.callers_of(service.name))
