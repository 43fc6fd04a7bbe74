"""A valid thing of each kind; tests change one field by name."""

from collections.abc import Mapping

from authz.core import resources as r
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    UNKNOWN,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Json,
    Source,
    Token,
    Unknown,
    Workload,
)
from authz.core.compiler import compile_engine
from authz.core.decision import Decision
from authz.core.engine import WorkloadPolicies
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion

NAMESPACE = "shop"
CALLER = "spiffe://cluster.local/ns/web/sa/front"


def request(
    *,
    method: str = "GET",
    host: str = "api.example.com",
    path: str = "/",
    headers: Mapping[str, tuple[str, ...]] | None = None,
    caller: str | None = CALLER,
    source_ip: str | Unknown = "10.9.9.9",
    remote_ip: str | Unknown = "10.9.9.9",
    destination_ip: str | Unknown = "10.1.0.5",
    port: int | Unknown = 8080,
    sni: str | Unknown = "",
    claims: dict[str, Json] | None = None,
    metadata: Mapping[str, Mapping[str, object]] | Unknown = UNKNOWN,
    workload: Workload | None = None,
    tcp: bool = False,
) -> AttributeContext:
    http = (
        None
        if tcp
        else HttpRequest(
            method, host, path, {":method": (method,), ":path": (path,), ":authority": (host,), **(headers or {})}
        )
    )
    authentication = NOT_AUTHENTICATED
    if claims is not None:
        authentication = Authentication(AuthenticationOutcome.ACCEPTED, Token(claims))
    return AttributeContext(
        Source((caller,) if caller else (), source_ip, remote_ip),
        Destination(workload or Workload(NAMESPACE, frozenset({("app", "api")})), destination_ip, port),
        http,
        sni,
        authentication,
        metadata,
    )


def policy(
    *rules: r.Rule,
    action: r.Action = r.Action.ALLOW,
    name: str = "p",
    namespace: str = NAMESPACE,
    labels: Mapping[str, str] | None = None,
    target_refs: tuple[r.TargetRef, ...] = (),
    provider: str = "",
    dry_run: bool = False,
) -> r.AuthorizationPolicy:
    return r.AuthorizationPolicy(
        r.Metadata(name, namespace), r.Target(labels or {}, target_refs), action, rules, provider, dry_run
    )


def source(**fields: tuple[str, ...]) -> r.Rule:
    """A rule with one ``from`` entry."""
    return r.Rule(sources=(r.Source(**fields),))


def operation(**fields: tuple[str, ...]) -> r.Rule:
    """A rule with one ``to`` entry."""
    return r.Rule(operations=(r.Operation(**fields),))


def when(key: str, *values: str, none_of: tuple[str, ...] = ()) -> r.Rule:
    """A rule with one condition."""
    return r.Rule(conditions=(r.Condition(key, values, none_of),))


ANYTHING = r.Rule()
"""The empty rule: it matches every request (AP-5)."""


def policies_for(
    *items: r.AuthorizationPolicy | r.RequestAuthentication | r.PeerAuthentication,
    mesh: r.MeshConfig | None = None,
    workload: Workload | None = None,
) -> WorkloadPolicies:
    resources = r.Resources(
        tuple(item for item in items if isinstance(item, r.AuthorizationPolicy)),
        tuple(item for item in items if isinstance(item, r.RequestAuthentication)),
        tuple(item for item in items if isinstance(item, r.PeerAuthentication)),
        version="v1",
    )
    engine = compile_engine(resources, mesh or r.MeshConfig())
    return engine.for_workload(workload or Workload(NAMESPACE, frozenset({("app", "api")})))


def keep_token(attributes: AttributeContext, rules: tuple[r.JwtRule, ...]) -> Authentication:
    """Stands for the JWT stage: the claims that the test gave are the verified ones."""
    return attributes.authentication


def refuse_everything(question: ProviderQuestion) -> ProviderAnswer:
    return ProviderAnswer(allowed=False)


def decided(
    attributes: AttributeContext,
    *items: r.AuthorizationPolicy | r.RequestAuthentication | r.PeerAuthentication,
    mesh: r.MeshConfig | None = None,
) -> Decision:
    found = policies_for(*items, mesh=mesh, workload=attributes.destination.workload)
    return decide(found, attributes, keep_token, refuse_everything)[1]
