"""
The workload that asks: what a sidecar says about itself, compared with its certificates and the mesh description.

A sidecar may only ask for itself, and what it says about itself is only text in its bootstrap. Its certificate counts
for more, and so does the description where there is one. What cannot be settled is refused, and the refusal says how to
settle it.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from authz.core.attributes import AttributeContext, Destination, Workload
from authz.core.engine import PoliciesOf, WorkloadPolicies

_log = logging.getLogger("authz.check")
_OWN_IDENTITY = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)")
MAX_REMEMBERED = 4096
"""Sidecars remembered at once; what they say is not bounded."""

HIDDEN_HEADERS = "hidden_headers"
OTHER_LABELS = "other_labels"
HIDDEN_CAUSE = (
    "the sidecar does not deliver all headers, because its ext_authz filter has `allowed_headers` or "
    "`disallowed_headers`: remove them"
)


@lru_cache(maxsize=MAX_REMEMBERED)
def identity_problem(own_principal: str, namespace: str, service_account: str, caller: str = "") -> str:
    """
    Why the asking workload is not believed; empty when it is.

    Where the certificate that the sidecar serves has Istio's form, namespace and service account must be those
    claimed. ``caller`` is the identity by which it asks us over mutual TLS, empty where there is none: it must be the
    same workload's.
    """
    if not namespace:
        return (
            "the sidecar does not say which workload it is: set the node metadata label authz/namespace, the context "
            "extension `namespace`, or serve a SPIFFE certificate"
        )
    own = _OWN_IDENTITY.fullmatch(own_principal)
    if own is not None:
        if own[1] != namespace:
            return f"the sidecar claims namespace `{namespace}`, its certificate says `{own[1]}`"
        if service_account and own[2] != service_account:
            return f"the sidecar claims service account `{service_account}`, its certificate says `{own[2]}`"
    return _caller_problem(caller, own_principal, namespace, service_account) if caller else ""


def _caller_problem(caller: str, own_principal: str, namespace: str, service_account: str) -> str:
    if own_principal.startswith("spiffe://"):
        return "" if caller == own_principal else f"`{caller}` asks for `{own_principal}`: a sidecar asks for itself"
    asks = _OWN_IDENTITY.fullmatch(caller)
    if asks is None:
        return f"`{caller}` asks for a workload in namespace `{namespace}`, and names no workload itself"
    if asks[1] != namespace:
        return f"`{caller}` asks for a workload in namespace `{namespace}`: a sidecar asks for itself"
    if service_account and asks[2] != service_account:
        return f"`{caller}` asks for service account `{service_account}`: a sidecar asks for itself"
    return ""


class Described:
    """
    The workloads of a mesh description, found by what a sidecar says about itself.

    Several may share a service account and differ in labels. Then those count that contradict nothing the sidecar
    sent, and of those the one it names; if more than one is left, only where their policies are the same.
    """

    def __init__(self, workloads: Iterable[Workload], policies_of: PoliciesOf) -> None:
        self._policies_of = policies_of
        self._by_account: dict[tuple[str, str], list[Workload]] = {}
        self._by_namespace: dict[str, list[Workload]] = {}
        for workload in workloads:
            self._by_account.setdefault((workload.namespace, workload.service_account), []).append(workload)
            self._by_namespace.setdefault(workload.namespace, []).append(workload)
        self._known: dict[tuple[Destination, str], Destination | str] = {}
        self.is_empty = not self._by_account

    def settle(self, destination: Destination, caller: str = "") -> Destination | str:
        """
        The destination with the workload as described, or why it cannot be determined; unchanged where it is unknown.

        Args:
            destination: as the sidecar sent it.
            caller: identity by which it asks; it gives the service account, which the sidecar does not say.
        """
        key = (destination, caller)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._settle(destination, caller)
        return found

    def _settle(self, destination: Destination, caller: str) -> Destination | str:
        said = destination.workload
        asks = _OWN_IDENTITY.fullmatch(caller)
        account = said.service_account or (asks[2] if asks is not None else "")
        if account:
            same = self._by_account.get((said.namespace, account), [])
        else:  # nothing says who it is: it may be anyone of its namespace
            same = self._by_namespace.get(said.namespace, [])
        fitting = [workload for workload in same if _fits(said.labels, workload.labels)]
        named = [workload for workload in same if said.name and workload.name == said.name]
        both = [workload for workload in named if workload in fitting]
        left = both or [*fitting, *named]
        if not left and account:
            left = same
        if not left:
            return destination
        first = left[0]
        if len(left) > 1 and not _is_one(self._policies_of(workload) for workload in left):
            names = ", ".join(sorted(workload.name for workload in left))
            return (
                f"the sidecar may be any of the described workloads {names}, and their policies differ: set the node "
                "metadata label authz/workload, and quote labels that look like numbers, `y` or `true`"
            )
        name = first.name if len(left) == 1 else said.name
        return replace(destination, workload=replace(first, name=name))


def _fits(sent: frozenset[tuple[str, str]], described: frozenset[tuple[str, str]]) -> bool:
    """Whether no label says otherwise. Envoy sends labels that are not text as empty ones: those say nothing."""
    known = dict(described)
    return all(not value or known.get(name, value) == value for name, value in sent)


def _is_one(policies: Iterable[WorkloadPolicies]) -> bool:
    first, *others = ((p.policies, p.jwt_rules, p.base_mode, p.port_modes) for p in policies)
    return all(other == first for other in others)


class Remarks:
    """Remarks on odd sidecars: counted each time, logged once for each of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter({HIDDEN_HEADERS: 0, OTHER_LABELS: 0})
        self._told: set[tuple[str, object]] = set()

    def hidden_headers(self, attributes: AttributeContext) -> None:
        """Count a request whose headers are not all delivered, and log once what that means."""
        self.counts[HIDDEN_HEADERS] += 1
        workload = attributes.destination.workload
        if self._is_new(HIDDEN_HEADERS, workload):
            effect = "a DENY that reads a header applies, an ALLOW that needs one does not, tokens are refused"
            _log.warning("sidecar of %s: %s; until then %s", _shown(workload), HIDDEN_CAUSE, effect)

    def labels(self, said: Workload, described: Workload) -> None:
        """Compare what a sidecar said with what counts."""
        if said.labels == described.labels:
            return
        self.counts[OTHER_LABELS] += 1
        if self._is_new(OTHER_LABELS, said):
            _log.warning(
                "sidecar of %s sends the labels %s, the mesh description has %s, which count: quote labels in its "
                "bootstrap that look like numbers, `y` or `true`: Envoy sends those empty",
                _shown(described), _written(said), _written(described),
            )  # fmt: skip

    def _is_new(self, kind: str, workload: Workload) -> bool:
        if (kind, workload) in self._told or len(self._told) >= MAX_REMEMBERED:
            return False
        self._told.add((kind, workload))
        return True


def _shown(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name or workload.service_account or '(no name)'}"


def _written(workload: Workload) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in sorted(workload.labels)) + "}"
