"""
What policies must keep, whatever else they say: requests that are never allowed, always allowed, or allowed only if.

``invariant_reader`` reads the file, ``proof`` proves.
"""

from dataclasses import dataclass

from authz.core.attributes import AttributeContext, Workload
from authz.core.catalog import Attribute, CompileContext
from authz.core.errors import Location, Problem
from authz.core.rules import Predicate

PROTOCOLS = ("http", "tcp")
TLS = ("mtls", "plaintext", "simple")
KINDS = ("sidecar", "gateway")


@dataclass(frozen=True, slots=True)
class AskedValues:
    """One attribute, and the values it must have or must not have, in Istio's forms."""

    attribute: Attribute
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()

    def compiled(self, context: CompileContext) -> Predicate:
        """The predicate, as a policy of this namespace would have it. Raises ValueError for an unusable value."""

        def matcher(values: tuple[str, ...]) -> object:
            return self.attribute.compile(values, context) if values else None

        return Predicate(self.attribute, matcher(self.values), matcher(self.not_values))  # type: ignore[arg-type]  # a matcher or None


@dataclass(frozen=True, slots=True)
class RequestSet:
    """Requests for which everything listed holds; nothing listed: all of them."""

    asked: tuple[AskedValues, ...] = ()
    protocols: tuple[str, ...] = PROTOCOLS
    tls: tuple[str, ...] = TLS

    def holds(self, attributes: AttributeContext, protocol: str, tls: str, context: CompileContext) -> bool:
        """Whether a request is one of them, asked of the engine's own predicates."""
        if protocol not in self.protocols or tls not in self.tls:
            return False
        return all(one.compiled(context).holds(attributes) for one in self.asked)


@dataclass(frozen=True, slots=True)
class WorkloadSet:
    """The workloads that an invariant is about; what is not said does not restrict."""

    names: tuple[str, ...] = ()
    """``ratings-v1`` or ``bookinfo/ratings-v1``, stars allowed."""
    not_names: tuple[str, ...] = ()
    namespace: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    kind: str = ""

    @property
    def is_described(self) -> bool:
        """Whether it can be understood without a mesh description: a namespace, with labels or without."""
        return bool(self.namespace) and not (self.names or self.not_names or self.kind)

    @property
    def workload(self) -> Workload:
        """The workload of exactly this namespace and these labels."""
        return Workload(self.namespace, self.labels)


@dataclass(frozen=True, slots=True)
class Invariant:
    """One sentence about all requests."""

    id: str
    location: Location
    word: str
    """``never``, ``always`` or ``onlyIf``."""
    to: WorkloadSet
    when: tuple[RequestSet, ...] = (RequestSet(),)
    """The requests that it is about: those of one of the sets."""
    unless: tuple[RequestSet, ...] = ()
    """Without these. Of ``onlyIf`` those that may be allowed."""
    about: str = ""


@dataclass(frozen=True, slots=True)
class InvariantFile:
    """One file, read; with errors among its problems nothing of it is proved."""

    file: str
    invariants: tuple[Invariant, ...]
    policy_files: tuple[str, ...]
    mesh_file: str
    problems: tuple[Problem, ...]
