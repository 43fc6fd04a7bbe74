"""
The security graph: who talks to whom, how safely, and what policy says about it.

Pure: observed traffic, known workloads and permits become nodes and edges; ``kiali`` writes them for tools and page.
A caller is known by its certificate only, so a service account that several workloads share is drawn as their group.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from authz.analysis.graph.permitted import ANYBODY, Permit
from authz.core.attributes import Workload
from authz.core.decision import Effect, RuleReference
from authz.core.spiffe import SpiffeId


class Grouping(StrEnum):
    """The meaning of one node; the words are those of Kiali's ``graphType``, except ``namespace``, which is ours."""

    WORKLOAD = "workload"
    VERSION = "versionedApp"
    APP = "app"
    SERVICE = "service"
    NAMESPACE = "namespace"


class EdgeState(StrEnum):
    """How an edge is drawn."""

    ALLOWED = "allowed"
    MIXED = "mixed"
    DENIED = "denied"
    """Tried, and never let through."""
    IDLE = "idle"
    """Permitted and used before, without traffic in the window."""
    UNUSED = "unused"
    """Policy permits it, and nobody ever used it."""


class Outcome(NamedTuple):
    """Decisions that were alike."""

    effect: Effect
    stage: str
    rule: str
    """Istio's name of the rule that decided; empty when none did."""
    status: int
    """HTTP status of a denial, else 0."""
    is_mtls: bool
    protocol: str
    """``http``, ``grpc`` or ``tcp``."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of one caller to one workload within a window."""

    principal: str
    """In Istio's form; empty without an identity."""
    workload: Workload
    outcomes: Mapping[Outcome, int]
    """Within the window; may be empty."""
    last_at: float
    """When the last decision was made, in seconds since the epoch."""
    ever_allowed: bool = True


class NodeKey(NamedTuple):
    """The identity of a node: ``workload``, ``app``, ``namespace``, ``box``, ``account`` or ``unknown``."""

    kind: str
    namespace: str = ""
    name: str = ""


UNKNOWN_CALLER = NodeKey("unknown")
"""Everybody without an identity: clients outside the mesh, or plaintext within."""


@dataclass(slots=True)
class GraphNode:
    """One node. A box holds the nodes whose ``parent`` it is."""

    key: NodeKey
    parent: NodeKey | None = None
    workloads: list[Workload] = field(default_factory=list)
    """Known workloads that it stands for; empty for callers that are known by their certificate only."""


@dataclass(slots=True)
class GraphEdge:
    """One edge with everything that was seen on it in the window, and what permits it."""

    source: NodeKey
    target: NodeKey
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    principals: Counter[str] = field(default_factory=Counter)
    permits: dict[str, RuleReference] = field(default_factory=dict)
    permitted: set[str] = field(default_factory=set)
    """Principals that policy lets in."""
    answers: set[str] = field(default_factory=set)
    """What is proved of those: ``yes``, ``with conditions``; empty of one that was judged by its identity alone."""
    last_at: float = 0.0
    ever_allowed: bool = False

    def total(self, effect: Effect | None = None) -> int:
        """Requests on this edge, or those with one effect."""
        return sum(n for outcome, n in self.outcomes.items() if effect is None or outcome.effect is effect)

    @property
    def mtls_percent(self) -> float:
        """Share of requests with a client identity, 0 to 100; 0 without requests."""
        total = self.total()
        return 100.0 * sum(n for outcome, n in self.outcomes.items() if outcome.is_mtls) / total if total else 0.0

    @property
    def permission(self) -> str:
        """What policy says: ``yes`` or ``with conditions``, proved; ``by identity``; empty where no rule names it."""
        if "" in self.answers or not self.answers:
            return "by identity" if self.answers else ""
        return "yes" if self.answers == {"yes"} else "with conditions"

    @property
    def state(self) -> EdgeState:
        """Whether the requests were allowed, denied, or both."""
        allowed, denied = self.total(Effect.ALLOW), self.total(Effect.DENY)
        if allowed:
            return EdgeState.MIXED if denied else EdgeState.ALLOWED
        if denied:
            return EdgeState.DENIED
        return EdgeState.IDLE if self.ever_allowed else EdgeState.UNUSED


@dataclass(frozen=True, slots=True)
class SecurityGraph:
    """Nodes by key, edges in order."""

    nodes: Mapping[NodeKey, GraphNode]
    edges: tuple[GraphEdge, ...]


def build_graph(
    traffic: Iterable[Traffic],
    workloads: Iterable[Workload],
    permitted: Iterable[Permit] = (),
    *,
    grouping: Grouping = Grouping.VERSION,
    namespaces: frozenset[str] = frozenset(),
) -> SecurityGraph:
    """
    Build the graph.

    Args:
        traffic: one entry for each caller and workload; entries without traffic in the window tell idle from unused.
        workloads: everything known; those in ``traffic`` are added.
        permitted: what policy would let through.
        namespaces: keep workloads of these and whoever talks to them; empty keeps all.
    """
    traffic = tuple(traffic)
    known = merge_workloads((*workloads, *(seen.workload for seen in traffic)))
    places = _Places(known, grouping)
    edges: dict[tuple[NodeKey, NodeKey], GraphEdge] = {}

    def edge(principal: str, workload: Workload) -> GraphEdge:
        key = (places.of_caller(principal), places.of_workload(workload))
        return edges.setdefault(key, GraphEdge(*key))

    for seen in traffic:
        found = edge(seen.principal, seen.workload)
        found.outcomes.update(seen.outcomes)
        found.principals[seen.principal] += sum(seen.outcomes.values())
        found.last_at = max(found.last_at, seen.last_at)
        found.ever_allowed = found.ever_allowed or seen.ever_allowed
    for permit in permitted:
        found = edge(permit.principal, permit.workload)
        found.permits.update((rule.name, rule) for rule in permit.rules)
        found.permitted.add(permit.principal)
        found.answers.add(permit.answer)
    shown = [
        found
        for _, found in sorted(edges.items())
        if (found.outcomes or found.permits)
        and (not namespaces or found.source.namespace in namespaces or found.target.namespace in namespaces)
    ]
    return SecurityGraph(_nodes(places, shown, namespaces), tuple(shown))


def merge_workloads(workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    """One for each namespace and label set, the one that says most: name and service account decide nothing."""
    known: dict[tuple[str, frozenset[tuple[str, str]]], Workload] = {}
    for workload in workloads:
        key = (workload.namespace, workload.labels)
        before = known.get(key)
        if before is None or _says_more(workload, before):
            known[key] = workload
    return tuple(sorted(known.values(), key=lambda w: (w.namespace, name_of(w), sorted(w.labels))))


def _says_more(workload: Workload, before: Workload) -> bool:
    return (bool(workload.name), bool(workload.service_account)) > (bool(before.name), bool(before.service_account))


def name_of(workload: Workload) -> str:
    """Give the name that people use: its own, else the account, else the app."""
    return workload.name or workload.service_account or dict(workload.labels).get("app", "") or "unknown"


def app_of(workload: Workload) -> str:
    """Its canonical app, by Istio's labels; without any the workload is its own app."""
    labels = dict(workload.labels)
    return labels.get("service.istio.io/canonical-name") or labels.get("app") or name_of(workload)


def version_of(workload: Workload) -> str:
    """Version of a workload by Istio's labels, the canonical revision first; empty without one."""
    labels = dict(workload.labels)
    return labels.get("service.istio.io/canonical-revision") or labels.get("version", "")


class _Places:
    """Which node stands for a workload or a caller."""

    def __init__(self, known: Iterable[Workload], grouping: Grouping) -> None:
        self.known = tuple(known)
        self._grouping = grouping
        self._by_account: dict[tuple[str, str], list[Workload]] = {}
        self._apps: Counter[tuple[str, str]] = Counter()
        for workload in self.known:
            self._by_account.setdefault((workload.namespace, workload.service_account), []).append(workload)
            self._apps[(workload.namespace, app_of(workload))] += 1
        self.parents: dict[NodeKey, NodeKey] = {}
        if grouping in (Grouping.VERSION, Grouping.WORKLOAD):
            self._box()

    def _box(self) -> None:
        """Box versions of one app; in the graph of workloads only those that share an identity."""
        if self._grouping is Grouping.VERSION:
            for workload in self.known:
                if self._apps[(workload.namespace, app_of(workload))] > 1:
                    box = NodeKey("box", workload.namespace, app_of(workload))
                    self.parents[self.of_workload(workload)] = box
            return
        for (namespace, account), sharing in self._by_account.items():
            if account and len(sharing) > 1:
                for workload in sharing:
                    self.parents[self.of_workload(workload)] = NodeKey("box", namespace, account)

    def of_workload(self, workload: Workload) -> NodeKey:
        match self._grouping:
            case Grouping.NAMESPACE:
                return NodeKey("namespace", workload.namespace, workload.namespace)
            case Grouping.APP:
                return NodeKey("app", workload.namespace, app_of(workload))
            case Grouping.SERVICE:
                return NodeKey("service", workload.namespace, app_of(workload))
            case Grouping.WORKLOAD | Grouping.VERSION:
                return NodeKey("workload", workload.namespace, self._label_of(workload))

    def _label_of(self, workload: Workload) -> str:
        """A name that is unique: without one, version and app tell workloads of one account apart."""
        if workload.name or not version_of(workload):
            return name_of(workload)
        return f"{app_of(workload)}-{version_of(workload)}"

    def of_caller(self, principal: str) -> NodeKey:
        """One workload when the account is its own; else what its holders have in common; else the account."""
        if principal == ANYBODY:
            return UNKNOWN_CALLER
        namespace, account = account_of(principal)
        holders = {self.of_workload(workload) for workload in self._by_account.get((namespace, account), ())}
        if len(holders) == 1:
            return holders.pop()
        boxes = {self.parents.get(key) for key in holders}
        if len(boxes) == 1 and (box := boxes.pop()) is not None:
            return box
        if self._grouping is Grouping.NAMESPACE and namespace:
            return NodeKey("namespace", namespace, namespace)
        return NodeKey("account", namespace, account)


def account_of(principal: str) -> tuple[str, str]:
    """Namespace and service account of a principal; a foreign identity is its own name in no namespace."""
    try:
        spiffe = SpiffeId.parse(f"spiffe://{principal}")
    except ValueError:
        return "", principal
    if spiffe.namespace is None or spiffe.service_account is None:
        return "", principal
    return spiffe.namespace, spiffe.service_account


def _nodes(places: _Places, edges: Iterable[GraphEdge], namespaces: frozenset[str]) -> dict[NodeKey, GraphNode]:
    nodes: dict[NodeKey, GraphNode] = {}

    def add(key: NodeKey) -> GraphNode:
        node = nodes.get(key)
        if node is None:
            parent = places.parents.get(key)
            if parent is not None:
                add(parent)
            node = nodes[key] = GraphNode(key, parent)
        return node

    connected = {key for found in edges for key in (found.source, found.target)}
    for workload in places.known:
        key = places.of_workload(workload)
        is_wanted = not namespaces or workload.namespace in namespaces
        if is_wanted or key in connected or places.parents.get(key) in connected:
            add(key).workloads.append(workload)
    for key in sorted(connected):
        add(key)
    return nodes
