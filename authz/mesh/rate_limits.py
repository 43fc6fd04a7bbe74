"""
Rate limits as nouns: the ``rateLimit`` of Envoy Gateway's BackendTrafficPolicy, for the workloads that it selects.

A rule counts the requests that all its selectors choose. ``Distinct`` ones count every value by itself. Nothing here
knows YAML, Envoy or who counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from authz.core.decision import RuleReference

PRINCIPAL, NAMESPACE = "source.principal", "source.namespace"
CLAIMS = "request.auth.claims"
_SECONDS = {"Second": 1, "Minute": 60, "Hour": 3600, "Day": 86_400, "Month": 30 * 86_400, "Year": 365 * 86_400}


class LimitUnit(StrEnum):
    """The window of a limit; a month has 30 days and a year 365, as with the rate limit service of Envoy's project."""

    SECOND = "Second"
    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"
    MONTH = "Month"
    YEAR = "Year"

    @property
    def seconds(self) -> int:
        """Its length."""
        return _SECONDS[self]


class LimitScope(StrEnum):
    """Who counts: every proxy for itself, or the service that all replicas share."""

    LOCAL = "local"
    GLOBAL = "global"


class ValueMatch(StrEnum):
    """How a value is compared; ``DISTINCT`` takes any and counts each by itself."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"
    DISTINCT = "Distinct"


class PathMatch(StrEnum):
    """How a path is compared, without its query. ``TEMPLATE`` is ours: ``/books/{*}``, as in Istio's policies."""

    EXACT = "Exact"
    PREFIX = "PathPrefix"
    REGULAR_EXPRESSION = "RegularExpression"
    TEMPLATE = "Template"


class AddressMatch(StrEnum):
    """Whether addresses of a range share a counter."""

    EXACT = "Exact"
    DISTINCT = "Distinct"


@dataclass(frozen=True, slots=True)
class HeaderSelector:
    """One header; ``name`` is lower-case. An absent header matches nothing, so ``invert`` takes it."""

    name: str
    match: ValueMatch = ValueMatch.EXACT
    value: str = ""
    invert: bool = False


@dataclass(frozen=True, slots=True)
class MethodSelector:
    """One of these methods, or with ``invert`` none of them."""

    methods: tuple[str, ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class PathSelector:
    """The path of a request."""

    match: PathMatch
    value: str
    invert: bool = False


@dataclass(frozen=True, slots=True)
class AddressSelector:
    """The client's address, as the proxy determined it (``remoteIpBlocks`` of a policy)."""

    address: str
    length: int
    match: AddressMatch = AddressMatch.EXACT


@dataclass(frozen=True, slots=True)
class AttributeSelector:
    """
    Ours: what is proven of the caller. ``key`` is Istio's: source.principal, source.namespace,
    request.auth.claims[NAME].
    """

    key: str
    match: ValueMatch = ValueMatch.EXACT
    value: str = ""
    invert: bool = False
    default: str = ""
    """Stands for a value that is not there; empty: the rule does not apply to such a request."""

    @property
    def claim(self) -> tuple[str, ...]:
        """The path of the claim; empty for what is no claim."""
        if not self.key.startswith(CLAIMS):
            return ()
        return tuple(self.key[len(CLAIMS) + 1 : -1].split("]["))


Selector = HeaderSelector | MethodSelector | PathSelector | AddressSelector | AttributeSelector


@dataclass(frozen=True, slots=True)
class RateLimitRule:
    """One ``rules[]`` of a policy."""

    reference: RuleReference
    scope: LimitScope
    requests: int
    """Most requests in a window; 0 refuses all."""
    unit: LimitUnit
    selectors: tuple[Selector, ...] = ()
    cost: int = 1
    """What a request takes; 0 only looks whether there is something left."""
    is_shared: bool = False
    """One counter for all targets of the policy, instead of one for each."""
    is_shadow: bool = False
    """Counted and reported, never refused."""
    fails_closed: bool = False
    """Refuse requests that nobody can count; by default they pass, because a quota is no authorization."""

    @property
    def id(self) -> str:
        """``namespace/policy/global/0``: unique in the mesh."""
        found = self.reference
        return f"{found.namespace}/{found.policy}/{self.scope}/{found.index}"

    @property
    def attributes(self) -> tuple[AttributeSelector, ...]:
        """The selectors of what is proven."""
        return tuple(one for one in self.selectors if isinstance(one, AttributeSelector))

    @property
    def claims(self) -> Iterator[tuple[str, ...]]:
        """Every claim that the rule looks at."""
        return (one.claim for one in self.attributes if one.claim)


@dataclass(frozen=True, slots=True)
class RateLimitTarget:
    """What a policy is for: a resource by name, or all of a kind by labels."""

    kind: str
    """WorkloadEntry, ServiceEntry or Gateway."""
    name: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """A BackendTrafficPolicy as written."""

    name: str
    namespace: str
    targets: tuple[RateLimitTarget, ...]
    rules: tuple[RateLimitRule, ...] = ()


@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A rule at one workload. Workloads with the same ``target`` share a counter where the service counts."""

    rule: RateLimitRule
    target: str = ""
    """Number of the policy's target by which the workload was selected; empty where there is one counter for all."""
