"""Remarks on a whole set of resources that Istio's validation does not make and that cost next to nothing."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from authz.core.errors import Problem, Severity
from authz.core.resources import Action, JwtRule, MeshConfig, RequestAuthentication, Resources

MAX_COMPARED = 64
"""Most rules of one issuer in one namespace that another is compared with; a bound without a meaning."""


def lint(resources: Resources, mesh: MeshConfig | None) -> Iterator[Problem]:
    """Yield the remarks; those that need mesh settings only when these are given."""
    yield from _repeated_issuers(resources, mesh or MeshConfig())
    if mesh is not None:
        yield from _unusable_providers(resources, mesh)
        yield from _unused_introspections(resources, mesh)
        yield from _ignored_peer_authentications(resources, mesh)


def _unused_introspections(resources: Resources, mesh: MeshConfig) -> Iterator[Problem]:
    """An issuer that is misspelt in one of the two places: its opaque tokens would be refused and nobody told why."""
    issuers = {rule.issuer for item in resources.request_authentications for rule in item.jwt_rules}
    for one in mesh.introspections:
        if one.issuer not in issuers:
            near = next(iter(get_close_matches(one.issuer, sorted(issuers - {""}), 1, 0.8)), "")
            yield Problem(
                Severity.WARNING,
                "introspection",
                f"`tokenIntrospection` names the issuer `{one.issuer}`, and no jwtRule does",
                one.location,
                help=f"did you mean `{near}`?" if near else "add it to the `jwtRules` of a RequestAuthentication",
            )


def _repeated_issuers(resources: Resources, mesh: MeshConfig) -> Iterator[Problem]:
    """RA-52: two rules for one issuer on the same workloads; the more lenient one is effective (RA-7)."""
    seen: dict[tuple[str, str], list[tuple[RequestAuthentication, JwtRule]]] = {}
    for authentication in resources.request_authentications:
        namespace = authentication.metadata.namespace
        for rule in authentication.jwt_rules:
            own = seen.setdefault((namespace, rule.issuer), [])
            root = seen.get((mesh.root_namespace, rule.issuer), []) if namespace != mesh.root_namespace else []
            other = next((r for a, r in (*own, *root)[:MAX_COMPARED] if _overlap(a, authentication)), None)
            if other is not None:
                yield _issuer_problem(authentication, rule, other)
            if len(own) < MAX_COMPARED:
                own.append((authentication, rule))


def _overlap(one: RequestAuthentication, other: RequestAuthentication) -> bool:
    """Whether some workload can have the labels of both."""
    if one.target.target_refs or other.target.target_refs:
        return one.target.target_refs == other.target.target_refs
    return _compatible(one.target.match_labels, other.target.match_labels)


def _compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(name, value) == value for name, value in one.items())


def _issuer_problem(authentication: RequestAuthentication, rule: JwtRule, other: JwtRule) -> Problem:
    metadata = authentication.metadata
    issuer = f"the issuer `{rule.issuer}`" if rule.issuer else "a rule without an issuer"
    return Problem(
        Severity.WARNING,
        "RA-52",
        f"{issuer} has another rule on the same workloads at {other.location}",
        rule.location,
        resource=f"RequestAuthentication {metadata.namespace}/{metadata.name}",
        path=f"spec.jwtRules[{rule.name.rpartition('/')[2]}]",
        help="a token accepted by one of the two passes; put both into one rule",
    )


def _unusable_providers(resources: Resources, mesh: MeshConfig) -> Iterator[Problem]:
    """Warn of CUSTOM policies whose provider is missing or unusable (AP-80)."""
    usable = {provider.name: provider.is_usable for provider in mesh.extension_providers}
    for policy in resources.authorization_policies:
        if policy.action is Action.CUSTOM and not usable.get(policy.provider, False):
            state = "has problems" if policy.provider in usable else "is not defined"
            metadata = policy.metadata
            yield Problem(
                Severity.WARNING,
                "AP-80",
                f"the provider `{policy.provider}` {state}, so this policy denies what it matches",
                metadata.location,
                resource=f"AuthorizationPolicy {metadata.namespace}/{metadata.name}",
                path="spec.provider.name",
                help="define it among the mesh's `extensionProviders`",
            )


def _ignored_peer_authentications(resources: Resources, mesh: MeshConfig) -> Iterator[Problem]:
    """Warn of a selector in the root namespace, where Istio ignores it (PA-5)."""
    for peer in resources.peer_authentications:
        metadata = peer.metadata
        if metadata.namespace == mesh.root_namespace and peer.match_labels:
            yield Problem(
                Severity.WARNING,
                "PA-5",
                f"a selector in the root namespace `{mesh.root_namespace}` makes Istio ignore this object",
                metadata.location,
                resource=f"PeerAuthentication {metadata.namespace}/{metadata.name}",
                path="spec.selector",
                help="remove the selector, or move the object to the workloads' namespace",
            )
