"""
Objects that do not apply to a workload, though whoever wrote them may think so: nearest first, each with its reason.

What applies is ``core.engine``'s business; this is its complement.
"""

import difflib
from collections.abc import Iterator

from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import (
    GATEWAY_NAME_LABEL,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    Target,
)

Item = AuthorizationPolicy | RequestAuthentication | PeerAuthentication
MAX_COMPARED = 1000
"""Most objects whose likeness is measured; a larger set is too large for a list to help."""


def passed_over(engine: Engine, workload: Workload, *, only_tokens: bool = False) -> list[str]:
    """
    Say of each object of the workload's namespace, the root namespace, or with its labels elsewhere, why it does not
    apply: ``AuthorizationPolicy shop/deny: its selector wants app=carts, the workload has app=cart``.

    With ``only_tokens``, only of each RequestAuthentication.
    """
    resources = engine.resources
    items: tuple[Item, ...] = resources.request_authentications
    if not only_tokens:
        items = (*resources.authorization_policies, *items, *resources.peer_authentications)
    found = []
    for item in items:
        for distance, reason in _reasons(item, workload, engine.mesh.root_namespace):
            metadata = item.metadata
            found.append((distance, f"{type(item).__name__} {metadata.namespace}/{metadata.name}: {reason}"))
        if len(found) >= MAX_COMPARED:
            break
    told = [text for _, text in sorted(found, key=lambda pair: pair[0])]
    namespaces = sorted({item.metadata.namespace for item in items})
    if items and not only_tokens and not {workload.namespace, engine.mesh.root_namespace} & set(namespaces):
        told.insert(0, f"no object is in namespace `{workload.namespace}`; they are in {', '.join(namespaces[:8])}")
    return told


def _reasons(item: Item, workload: Workload, root: str) -> Iterator[tuple[float, str]]:
    """At most one reason, with how far the object is from applying: 0 is nearest."""
    namespace, labels = item.metadata.namespace, dict(workload.labels)
    target = Target(item.match_labels) if isinstance(item, PeerAuthentication) else item.target
    wanted = target.match_labels
    if namespace not in (root, workload.namespace):
        if wanted and wanted.items() <= labels.items():
            yield 0.1, f"it is in namespace `{namespace}`, the workload in `{workload.namespace}`"
        elif namespace == "default" and not wanted:
            yield 0.3, f"it is in namespace `default`, the workload in `{workload.namespace}`"
    elif target.target_refs and GATEWAY_NAME_LABEL not in labels:
        yield 0.0, "it has targetRefs, which no sidecar obeys (RE-16): give it a `selector`"
    elif isinstance(item, PeerAuthentication) and namespace == root and wanted:
        yield 0.2, "a selector in the root namespace makes Istio ignore it (PA-5)"
    elif different := [name for name in wanted if labels.get(name) != wanted[name]]:
        name = different[0]
        likeness = difflib.SequenceMatcher(None, wanted[name], labels.get(name, "")).ratio()
        has = f"has {name}={labels[name]}" if name in labels else f"has no label `{name}`"
        yield len(different) - likeness, f"its selector wants {name}={wanted[name]}, the workload {has}"
