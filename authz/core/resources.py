"""
Istio's resources as frozen values, fields named as Istio names them (camelCase becomes snake_case).

What stands here has passed the checks of ``policy`` (VA); defaults are filled in. An empty tuple is the same as an
absent list everywhere (RE-8), except ``PeerAuthentication.port_level_mtls`` which is None when absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from authz.core.errors import NOWHERE, Location
from authz.core.introspection import Introspection

GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
"""A workload with this label is a Gateway-API gateway (RE-16, RE-19)."""
DRY_RUN_ANNOTATION = "istio.io/dry-run"


class Action(StrEnum):
    """The effect of a rule of an AuthorizationPolicy that fires."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


class MtlsMode(StrEnum):
    """How plaintext and mTLS are accepted on a port; UNSET inherits (PA-4)."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class PathNormalization(StrEnum):
    """``DEFAULT`` is read as BASE (RE-14)."""

    NONE = "NONE"
    BASE = "BASE"
    MERGE_SLASHES = "MERGE_SLASHES"
    DECODE_AND_MERGE_SLASHES = "DECODE_AND_MERGE_SLASHES"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of ``metadata`` that influences evaluation (RE-4)."""

    name: str
    namespace: str = "default"
    creation_timestamp: str = ""
    """The text as written; RFC 3339. Compared as text, absent is the oldest (RE-13)."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    location: Location = NOWHERE
    """Where the document begins."""

    @property
    def age_key(self) -> tuple[bytes, bytes, bytes]:
        """Sort key of RE-13: age, name, namespace, as byte strings."""
        return (self.creation_timestamp.encode(), self.name.encode(), self.namespace.encode())


@dataclass(frozen=True, slots=True)
class TargetRef:
    """A reference to the object that a policy is attached to, instead of a selector."""

    kind: str
    name: str
    group: str = ""
    """``core`` is read as the empty group (RE-21)."""


@dataclass(frozen=True, slots=True)
class Target:
    """The workloads that a policy is for: ``selector`` or ``targetRefs``, never both (VA-1)."""

    match_labels: Mapping[str, str] = field(default_factory=dict)
    """Empty selects the whole scope, as no selector does (RE-9)."""
    target_refs: tuple[TargetRef, ...] = ()
    """A singular ``targetRef`` is read as a list of one (RE-21)."""


@dataclass(frozen=True, slots=True)
class Source:
    """The fields of ``from.source`` as written (AP-24 to AP-41)."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """The fields of ``to.operation`` as written (AP-42 to AP-55)."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One element of ``when`` as written (AP-56 to AP-67)."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()
    location: Location = NOWHERE


@dataclass(frozen=True, slots=True)
class Rule:
    """``rules[i]``: ``from``, ``to`` and ``when`` (AP-10). Empty tuples constrain nothing."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()
    location: Location = NOWHERE


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """An AuthorizationPolicy as a value: its rules are alternatives."""

    metadata: Metadata
    target: Target = Target()
    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    provider: str = ""
    """``provider.name`` of a CUSTOM policy (AP-77)."""
    dry_run: bool = False
    """The annotation ``istio.io/dry-run`` (AP-86)."""


@dataclass(frozen=True, slots=True)
class JwtHeader:
    """``fromHeaders[i]``; ``name`` as written, compared ignoring case (RA-10)."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ClaimToHeader:
    """A verified claim that the upstream gets as a header."""

    header: str
    claim: str
    """A dot-separated path into nested objects (RA-48)."""


class Presence(StrEnum):
    """``jwtRules[].presence`` of the newest Istio; REQUIRED refuses a request without a token (section 10)."""

    OPTIONAL = "OPTIONAL"
    REQUIRED = "REQUIRED"


@dataclass(frozen=True, slots=True)
class JwtRule:
    """One element of ``jwtRules``: whose tokens are accepted, and where they stand (RA)."""

    issuer: str = ""
    """Empty: any issuer, or none (RA-24)."""
    audiences: tuple[str, ...] = ()
    jwks: str = ""
    """Inline key set, JSON text; wins over ``jwks_uri`` (RA-38)."""
    jwks_uri: str = ""
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    forward_original_token: bool = False
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    space_delimited_claims: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    """Seconds for key retrieval, all attempts of a round together (RA-39)."""
    presence: Presence = Presence.OPTIONAL
    name: str = ""
    """``namespace/name/index``, for people and audit records."""
    location: Location = NOWHERE
    introspection: Introspection | None = None
    """How the issuer is asked about its opaque tokens; the engine sets it from the mesh settings."""

    @property
    def is_asked_only(self) -> bool:
        """Whether the issuer is asked about every token: it can be asked, and the rule names no keys."""
        return self.introspection is not None and not self.jwks and not self.jwks_uri

    @property
    def keys_from(self) -> str:
        """
        Where the keys of this rule come from, as a key of the key-set table.

        ``inline:<name>`` for inline sets, ``uri:<jwksUri>``, or ``oidc:<issuer>`` for discovery (RA-38).
        """
        if self.jwks:
            return f"inline:{self.name}"
        return f"uri:{self.jwks_uri}" if self.jwks_uri else f"oidc:{self.issuer}"


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    """A RequestAuthentication as a value: which tokens are accepted."""

    metadata: Metadata
    target: Target = Target()
    jwt_rules: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """A PeerAuthentication as a value: whether mTLS is required."""

    metadata: Metadata
    match_labels: Mapping[str, str] = field(default_factory=dict)
    mode: MtlsMode = MtlsMode.UNSET
    port_level_mtls: Mapping[int, MtlsMode] | None = None


@dataclass(frozen=True, slots=True)
class ExtensionProvider:
    """
    One entry of ``extensionProviders`` of type ``envoyExtAuthzGrpc`` or ``envoyExtAuthzHttp``.

    An unusable provider is kept with its ``problems``: policies naming it turn into DENY (AP-80).
    """

    name: str
    protocol: str = "grpc"
    """``grpc`` or ``http``."""
    service: str = ""
    port: int = 0
    timeout_seconds: float = 600.0
    fail_open: bool = False
    status_on_error: int = 403
    path_prefix: str = ""
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: Mapping[str, str] = field(default_factory=dict)
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()
    max_request_bytes: int = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False
    clear_route_cache: bool = False
    problems: tuple[str, ...] = ()
    location: Location = NOWHERE

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked: nothing is wrong with its description."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """The part of Istio's MeshConfig that is consulted, with Istio's defaults (RE-14)."""

    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    path_normalization: PathNormalization = PathNormalization.BASE
    extension_providers: tuple[ExtensionProvider, ...] = ()
    introspections: tuple[Introspection, ...] = ()
    """``tokenIntrospection``, which Istio does not have."""
    num_trusted_proxies: int = 0
    """``defaultConfig.gatewayTopology.numTrustedProxies``."""
    multiple_custom_providers: bool = False
    """The control-plane flag PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS (AP-81, AP-82)."""
    skip_validate_trust_domain: bool = False
    """PILOT_SKIP_VALIDATE_TRUST_DOMAIN (PA-13)."""
    is_registry_only: bool = False
    """``outboundTrafficPolicy.mode: REGISTRY_ONLY``, for every Sidecar that says nothing of it."""
    written: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of these attributes that were given, even as Istio's default: so it shows what a later reading has lost."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """B of AP-27: the trust domain and its aliases, duplicates removed, in order."""
        return tuple(dict.fromkeys((self.trust_domain, *self.trust_domain_aliases)))


DIGEST = 32
"""Bytes of one digest of ``Resources.digests``."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that was read and accepted: the input of the compiler."""

    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    version: str = ""
    """Policy version: digest of the documents and mesh settings that were read."""
    digests: bytes = field(default=b"", compare=False, repr=False)
    """
    What each policy and each RequestAuthentication means, in their order, then the mesh settings: DIGEST bytes each.

    Empty where nobody read them from text.
    """
