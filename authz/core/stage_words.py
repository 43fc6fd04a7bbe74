"""The results of the first stages in words: the mode of mTLS and its object, the token and where it was looked for."""

from collections.abc import Iterator

from authz.core.attributes import AttributeContext, AuthenticationOutcome, Unknown
from authz.core.engine import WorkloadPolicies
from authz.core.pipeline import peer_mode
from authz.core.resources import JwtRule, MtlsMode, PeerAuthentication


def mtls_in_words(policies: WorkloadPolicies, attributes: AttributeContext) -> str:
    """
    The mode of PeerAuthentication in force and the object it comes from (PA-4, PA-7).

    ``STRICT of shop/default``; where an object sets ports, also whether this one is among them.
    """
    destination = attributes.destination
    mode = peer_mode(policies, destination)
    if destination.is_gateway:
        return f"{mode}"
    said = [peer for peer in policies.peer_authentications if peer.mode is not MtlsMode.UNSET]
    whole = f" of {_name(said[-1])}" if said else ""
    if not policies.port_modes:
        return f"{mode}{whole}"
    own = _name(policies.peer_authentications[-1])
    if destination.port in policies.port_modes:
        return f"{mode} of {own}, which sets port {destination.port} in `portLevelMtls`"
    ports = ", ".join(f"{port} {listed}" for port, listed in sorted(policies.port_modes.items()))
    which = "the port is unknown" if isinstance(destination.port, Unknown) else f"{destination.port} is none of them"
    advice = "they are ports of the workload, not of its Service"
    return f"{mode}{whole} (`portLevelMtls` of {own} sets ports {ports}; {which}: {advice})"


def _name(peer: PeerAuthentication) -> str:
    return f"{peer.metadata.namespace}/{peer.metadata.name}"


def token_in_words(policies: WorkloadPolicies, attributes: AttributeContext) -> str:
    """Say what came of the token: refused and why, none and where it was looked for, or accepted and whose it is."""
    found = attributes.authentication
    if not policies.jwt_rules:
        return "no policy applies"
    if found.outcome is AuthenticationOutcome.REJECTED:
        return f"refused: {found.reason or found.body}"
    if found.token is None:
        return _no_token(policies.jwt_rules, attributes)
    return f"accepted {found.token.issuer}/{found.token.subject} by {found.token.rule}"


def _no_token(rules: tuple[JwtRule, ...], attributes: AttributeContext) -> str:
    """Where tokens are looked for, when a credential was sent that is at none of these places (RA-10, RA-16)."""
    http = attributes.http
    if http is None:
        return "no token"
    if http.method == "OPTIONS" and attributes.header("access-control-request-method"):
        return "not asked: a CORS preflight skips this stage, with or without token (RA-44)"
    places = token_places(rules)
    sent = (
        "" if not attributes.header("authorization") else "; the header `authorization` that was sent holds none there"
    )
    return f"no token at {', '.join(places)}{sent}"


def token_places(rules: tuple[JwtRule, ...]) -> tuple[str, ...]:
    """Where the rules look for tokens (RA-10): ``header `authorization` after `Bearer ` ``."""
    return tuple(dict.fromkeys(place for rule in rules for place in _places(rule)))


def _places(rule: JwtRule) -> Iterator[str]:
    if not (rule.from_headers or rule.from_params or rule.from_cookies):
        yield "header `authorization` after `Bearer `"
        yield "parameter `access_token`"
    for header in rule.from_headers:
        yield f"header `{header.name.lower()}`{f' after `{header.prefix}`' if header.prefix else ''}"
    yield from (f"parameter `{name}`" for name in rule.from_params)
    yield from (f"cookie `{name}`" for name in rule.from_cookies)
