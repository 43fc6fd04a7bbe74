"""Two sets of policies for one workload, and the variables by which the requests differ that they tell apart."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from authz.analysis.sets.boxes import Space
from authz.analysis.sets.relevant import pruned_pair, pruned_to, staged
from authz.analysis.sets.request_variables import CLAIM, HEADER, PATH, REMOTE_IP, Variables
from authz.analysis.sets.situations import Situation, situations
from authz.analysis.sets.token_cases import TokenCase, asked_elsewhere, split_alike, token_cases, undecided_about
from authz.core.engine import WorkloadPolicies
from authz.core.errors import NOWHERE
from authz.core.matchers import Strings
from authz.core.resources import ExtensionProvider, PathNormalization
from authz.core.rules import CompiledRule, Predicate

_REFUSING_ALIKE = {PathNormalization.BASE, PathNormalization.MERGE_SLASHES}
"""They answer 400 for the same paths (PN-10)."""


@dataclass(frozen=True, slots=True)
class PolicyPair:
    """Two answers to the question what applies to one workload, and what is known of the workload."""

    old: WorkloadPolicies
    new: WorkloadPolicies
    is_gateway: bool = False
    ports: tuple[int, ...] = ()
    """Its only ports; empty: not known, any may be."""
    callers: tuple[str, ...] = ()
    """Identities that are natural callers, with ``spiffe://``."""


@dataclass(slots=True)
class Model:
    """The variables of a pair. ``undecided`` says what is not modelled; then nothing can be proved."""

    pair: PolicyPair
    expired: Callable[[], bool] = lambda: False
    about: tuple[CompiledRule, ...] = ()
    """The requests that an invariant is about; empty: those that the sides answer differently."""
    extra: tuple[Predicate, ...] = ()
    """What is asked besides by an invariant."""
    old: WorkloadPolicies = field(init=False)
    new: WorkloadPolicies = field(init=False)
    """The sides, with the rules that matter."""
    space: Space = field(init=False)
    variables: Variables = field(init=False)
    tokens: list[TokenCase] = field(init=False)
    undecided: list[str] = field(init=False)

    def __post_init__(self) -> None:
        pair = self.pair
        if self.about:
            self.old = self.new = pruned_to(pair.new, self.about)
        else:
            self.old, self.new = pruned_pair(pair.old, pair.new)
        self.space = Space(self.expired)
        own_ports = {port for policies in (pair.old, pair.new) for port in policies.port_modes}
        predicates = [*_predicates(self.old), *_predicates(self.new), *self.extra]
        self.variables = Variables(
            self.space,
            predicates,
            normalization=pair.new.mesh.path_normalization,
            ports=pair.ports or own_ports,
            only_ports=bool(pair.ports),
            callers=(*pair.callers, *_strangers(pair), *_named(pair, predicates)),
            audiences=[a for p in (pair.old, pair.new) for rule in p.jwt_rules for a in rule.audiences],
        )
        for policies in (self.old, self.new):
            for custom in (*policies.http.custom, *policies.tcp.custom):
                if custom.provider is not None:
                    self.variables.add_provider(custom.provider.name)
        self.undecided = [*self.variables.undecided, *_dependent(pair, self.variables)]
        self.tokens = []
        if not self.undecided:
            needed = any(name.startswith(CLAIM) for name in self.variables.asked)
            self.tokens = list(token_cases(pair.old.jwt_rules, pair.new.jwt_rules, self.variables, needed=needed))

    def situations(self) -> Iterator[Situation]:
        """Every kind of request."""
        pair = self.pair
        return situations(self.old, self.new, self.variables, self.tokens, gateway=pair.is_gateway)


def _strangers(pair: PolicyPair) -> Iterator[str]:
    namespace = pair.new.workload.namespace
    for trust_domain in dict.fromkeys((pair.new.mesh.trust_domain, pair.old.mesh.trust_domain)):
        yield f"spiffe://{trust_domain}/ns/{namespace}/sa/other"
        yield f"spiffe://{trust_domain}/ns/elsewhere/sa/other"
    yield "spiffe://elsewhere.example/ns/elsewhere/sa/other"


def _named(pair: PolicyPair, predicates: Iterable[Predicate]) -> Iterator[str]:
    """Callers of this mesh that policies mean by a namespace or a service account."""
    domain = pair.new.mesh.trust_domain
    for predicate in predicates:
        key = predicate.attribute.key
        for matcher in (predicate.any_of, predicate.none_of):
            if not isinstance(matcher, Strings):
                continue
            if key == "source.namespace":
                yield from (f"spiffe://{domain}/ns/{value.replace('*', 'x')}/sa/other" for value in matcher.written)
            elif key == "source.serviceAccount" and matcher.terms is not None:
                for full in sorted(matcher.terms.exact):
                    namespace, _, account = full.partition("/")
                    yield f"spiffe://{domain}/ns/{namespace}/sa/{account}"


def _predicates(policies: WorkloadPolicies) -> Iterator[Predicate]:
    for _, rule in (*staged(policies.http), *staged(policies.tcp)):
        for entry in (*rule.sources, *rule.operations, rule.conditions):
            yield from entry


def _dependent(pair: PolicyPair, variables: Variables) -> Iterator[str]:
    """Facts that depend on each other in a way that boxes do not hold."""
    old, new = pair.old.mesh, pair.new.mesh
    modes = {old.path_normalization, new.path_normalization}
    if len(modes) > 1 and (PATH in variables.asked or modes != _REFUSING_ALIKE):
        yield "the normalisation of paths changes (PN-1)"
    if REMOTE_IP in variables.asked:
        if old.num_trusted_proxies != new.num_trusted_proxies and pair.is_gateway:
            yield "the number of trusted proxies changes (CS-9)"
        if f"{HEADER}x-forwarded-for" in variables.asked:
            yield "policies ask for `x-forwarded-for` and for the address that is found in it (CS-9)"
    yield from _asked_otherwise(pair)
    yield from split_alike(pair.old.jwt_rules, pair.new.jwt_rules, variables)
    yield from asked_elsewhere(pair.old.jwt_rules, pair.new.jwt_rules)
    for policies in (pair.old, pair.new):
        yield from undecided_about(policies.jwt_rules, variables)
        yield from _by_providers(policies, variables)


def _asked_otherwise(pair: PolicyPair) -> Iterator[str]:
    """Providers of one name that are not asked the same: then their answers may differ."""
    sides = [
        {custom.provider.name: _question(custom.provider) for custom in sets.custom if custom.provider is not None}
        for sets in (pair.old.http, pair.new.http)
    ]
    for name, question in sides[0].items():
        if sides[1].get(name, question) != question:
            yield f"the provider `{name}` is asked in another way, so it may answer otherwise"


def _question(provider: ExtensionProvider) -> ExtensionProvider:
    """A provider without what follows from its answer, which is compared."""
    return replace(provider, fail_open=False, status_on_error=403, location=NOWHERE)


def _by_providers(policies: WorkloadPolicies, variables: Variables) -> Iterable[str]:
    """Headers that a CUSTOM provider may set, as far as the mesh settings name them."""
    for custom in policies.http.custom:
        if custom.provider is not None:
            for name in custom.provider.headers_to_upstream_on_allow:
                if HEADER + name.lower() in variables.asked:
                    yield f"policies ask for the header `{name}`, which the provider `{custom.provider.name}` may set"
