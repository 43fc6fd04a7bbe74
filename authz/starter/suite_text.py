"""The test cases of a plan: who is let in and who is not for each service, and the tokens at the gateway."""

from collections.abc import Iterator

from authz.starter.mesh_plan import GATEWAY, ROOT_NAMESPACE, StarterIssuer, StarterPlan, StarterService
from authz.starter.policy_text import edge_name
from authz.starter.quoting import quoted

_HEAD = """\
# What the policies are meant to do; add what matters to you. Run it: authz test suite.yaml --coverage
format: 1
policyFiles: [policies]
meshFile: mesh.yaml
groups:
"""
_GATEWAY_GROUP = """\
- id: ingress
  about: nobody comes in without a token of the issuer
  workload: {{namespace: {root}, labels: {{istio: {gateway}}}, serviceAccount: {gateway}, port: {port}}}
  mesh: {{clientAddress: {{mode: gateway}}}}   # its own TLS, which is no mutual TLS of the mesh
  keys:
    idp: {{kty: EC, kid: main}}
    stranger: {{kty: EC, kid: main}}
  keySets:
    {keys}: [idp]     # what the issuer publishes
  tokens:
    good: {{key: idp, alg: ES256, claims: &claims {{iss: {issuer}, sub: ann, aud: {audience}}}}}
    forged: {{key: stranger, alg: ES256, claims: *claims}}
    late: {{key: idp, alg: ES256, claims: {{iss: {issuer}, sub: ann, aud: {audience}, exp: {{$now: -3600}}}}}}
    elsewhere: {{key: idp, alg: ES256, claims: {{iss: {issuer}, sub: ann, aud: somebody-else}}}}
  request: {{tls: simple}}
  cases:
  - {{id: no-token, expect: {{decision: deny, status: 403}}}}
  - id: good-token
    request: {{headers: {{authorization: "Bearer ${{TOKEN:good}}"}}}}
    expect: {{decision: allow, by: {root}/ingress/0}}
  - id: forged-token
    request: {{headers: {{authorization: "Bearer ${{TOKEN:forged}}"}}}}
    expect: {{decision: deny, status: 401}}
  - id: expired-token
    request: {{headers: {{authorization: "Bearer ${{TOKEN:late}}"}}}}
    expect: {{decision: deny, status: 401}}
  - id: token-for-somebody-else
    request: {{headers: {{authorization: "Bearer ${{TOKEN:elsewhere}}"}}}}
    expect: {{decision: deny, status: 403}}
"""
_GROUP = """\
- id: {name}
  workload: {{namespace: {namespace}, labels: {{app: {name}}}, serviceAccount: {name}, port: {port}}}
{request}  cases:
"""
_TCP = "  request: {protocol: tcp}\n"
_CASE = """\
  - id: {id}
    request: {{sourcePrincipal: {principal}}}
    expect: {expect}
"""
_PLAINTEXT = "  - {id: plaintext, request: {tls: plaintext}, expect: {decision: deny}}\n"


def suite_text(plan: StarterPlan) -> str:
    """Write a group for the gateway and one for each service."""
    groups = [part for service in plan.services for part in _group(plan, service)]
    gateway = [_gateway(plan, plan.issuer)] if plan.issuer is not None else []
    return "".join([_HEAD, *gateway, *groups])


def _gateway(plan: StarterPlan, issuer: StarterIssuer) -> str:
    return _GATEWAY_GROUP.format(
        root=ROOT_NAMESPACE,
        gateway=GATEWAY,
        port=plan.ingress_port,
        keys=quoted(issuer.jwks_uri or issuer.url),
        issuer=quoted(issuer.url),
        audience=quoted(issuer.audience),
    )


def _group(plan: StarterPlan, service: StarterService) -> Iterator[str]:
    yield _GROUP.format(
        name=quoted(service.name),
        namespace=quoted(plan.namespace),
        port=plan.receives[service.name],
        request="" if service.is_http else _TCP,
    )
    callers = plan.callers_of(service.name)
    if service.name == plan.ingress:
        yield _case(plan, service.name, "ingress", plan.gateway_principal, is_allowed=True)
    for other in plan.services:
        if other.name != service.name:
            yield _case(plan, service.name, other.name, plan.principal(other.name), is_allowed=other.name in callers)
    if service.name != plan.ingress and plan.ingress:
        yield _case(plan, service.name, "ingress", plan.gateway_principal, is_allowed=False)
    yield _case(plan, service.name, "strangers", f"{plan.trust_domain}/ns/strangers/sa/nobody", is_allowed=False)
    yield _PLAINTEXT


def _case(plan: StarterPlan, name: str, caller: str, principal: str, *, is_allowed: bool) -> str:
    expect = "{decision: deny}"
    if is_allowed:
        expect = f"{{decision: allow, by: {plan.namespace}/{edge_name(name, caller)}/0}}"
    return _CASE.format(
        id=f"{caller}-may" if is_allowed else f"{caller}-may-not",
        principal=quoted(f"spiffe://{principal}"),
        expect=expect,
    )
