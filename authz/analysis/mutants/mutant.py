"""One small fault in one resource, and the engine of a set of policies that has it."""

from dataclasses import dataclass, replace

from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import Location
from authz.core.resources import (
    AuthorizationPolicy,
    MeshConfig,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
)
from authz.core.rules import CompiledPolicy

ChangedResource = AuthorizationPolicy | RequestAuthentication | PeerAuthentication
"""What can be changed."""
Origin = tuple[str, str, str, Location]
"""Kind, namespace, name, and the place where its document begins: the same file in two groups is the same resource."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one resource."""

    origin: Origin
    location: Location
    """The rule or condition that was changed, else the document."""
    change: str
    """In words, with the path of the field: ``rules[0].to[0].operation.methods: `GET` dropped``."""
    resource: ChangedResource | None
    """The resource as changed; None: it is not there."""
    lost_rule: int | None = None
    """A rule of a policy that never fires; the others keep their numbers."""

    @property
    def name(self) -> str:
        """``AuthorizationPolicy shop/cart``."""
        kind, namespace, name, _ = self.origin
        return f"{kind} {namespace}/{name}"


def origin_of(resource: ChangedResource) -> Origin:
    """What a resource is known by."""
    metadata = resource.metadata
    return type(resource).__name__, metadata.namespace, metadata.name, metadata.location


def mutated(engine: Engine, mutant: Mutant) -> Engine:
    """
    Compile what the mutant changes; all else is taken from ``engine``, which has compiled all its policies.

    Raises:
        LoadError: the change makes a value that cannot be compiled.
    """
    before = engine.resources
    known = engine.compiled_by_id()
    policies: list[AuthorizationPolicy] = []
    compiled: list[CompiledPolicy | None] = []
    for policy in before.authorization_policies:
        if origin_of(policy) != mutant.origin:
            policies.append(policy)
            compiled.append(known[id(policy)])
        elif isinstance(mutant.resource, AuthorizationPolicy):
            policies.append(mutant.resource)
            compiled.append(_compiled(mutant.resource, mutant.lost_rule, engine.mesh))
    tokens: list[RequestAuthentication] = []
    for one in before.request_authentications:
        if origin_of(one) != mutant.origin:
            tokens.append(one)
        elif isinstance(mutant.resource, RequestAuthentication):
            tokens.append(mutant.resource)
    peers: list[PeerAuthentication] = []
    for peer in before.peer_authentications:
        if origin_of(peer) != mutant.origin:
            peers.append(peer)
        elif isinstance(mutant.resource, PeerAuthentication):
            peers.append(mutant.resource)
    resources = Resources(tuple(policies), tuple(tokens), tuple(peers), before.version)
    return Engine(resources, engine.mesh, _not_compiled, compiled)


def _compiled(policy: AuthorizationPolicy, lost_rule: int | None, mesh: MeshConfig) -> CompiledPolicy:
    made = compile_engine(Resources((policy,)), mesh).compiled_by_id()[id(policy)]
    assert made is not None  # ``compile_engine`` compiles everything
    if lost_rule is None:
        return made
    http, tcp = (
        tuple(rule for rule in rules if rule.reference.index != lost_rule)
        for rules in (made.http_rules, made.tcp_rules)
    )
    return replace(made, http_rules=http, tcp_rules=tcp)


def _not_compiled(policy: AuthorizationPolicy) -> CompiledPolicy:
    raise AssertionError(f"{policy.metadata.name} was compiled before")
