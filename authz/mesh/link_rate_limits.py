"""Rate limits tied to the workloads that they are for; targets that lead nowhere are noted."""

from collections.abc import Iterator
from dataclasses import replace

from authz.documents.accessors import Part
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.mesh.rate_limits import AppliedLimit, RateLimitPolicy, RateLimitTarget


def with_limits(workload: MeshWorkload, written: Written) -> MeshWorkload:
    """
    The workload with its rate limits, policies in the order of their names.

    All policies of a workload hold together. A workload that several targets of one policy choose belongs to the first.
    """
    found: list[AppliedLimit] = []
    for policy, _ in _sorted(written):
        chosen = [number for number, target in enumerate(policy.targets) if _selects(target, policy, workload, written)]
        for rule in policy.rules if chosen else ():
            alone = rule.is_shared or len(policy.targets) == 1
            found.append(AppliedLimit(rule, "" if alone else str(chosen[0])))
    return replace(workload, limits=tuple(found)) if found else workload


def check_limits(mesh: Mesh, written: Written) -> None:
    """Note targets that choose nobody, or nobody whose requests can be counted, and policies given twice."""
    first: dict[tuple[str, str], Part] = {}
    for policy, part in written.rate_limits:
        other = first.setdefault((policy.namespace, policy.name), part)
        if other is not part and policy.name:
            message = f"the BackendTrafficPolicy `{policy.name}` is given twice, first at {other.location}"
            part.note("ME-5", message)
        for target in policy.targets:
            chosen = [one for one in mesh.workloads if _selects(target, policy, one, written)]
            if not chosen and target.kind:
                what = f"called `{target.name}`" if target.name else "with these labels"
                message = f"no {target.kind} {what} is described in the namespace `{policy.namespace}`"
                part.note("ME-4", message, "targetRefs" if target.name else "targetSelectors")
            for workload in chosen:
                if not workload.speaks_http:
                    part.note("ME-6", f"`{workload.name}` receives no requests, and bytes are not counted")


def _sorted(written: Written) -> Iterator[tuple[RateLimitPolicy, Part]]:
    yield from sorted(written.rate_limits, key=lambda one: (one[0].namespace, one[0].name))


def _selects(target: RateLimitTarget, policy: RateLimitPolicy, workload: MeshWorkload, written: Written) -> bool:
    if workload.namespace != policy.namespace:
        return False
    match target.kind:
        case "WorkloadEntry" if target.name:
            return workload.name == target.name
        case "WorkloadEntry":
            return bool(target.labels) and target.labels <= frozenset(workload.labels.items())
        case "ServiceEntry":
            return any(
                service.selector.items() <= workload.labels.items()
                for service, _ in written.services
                if not service.external and (service.namespace, service.name) == (policy.namespace, target.name)
            )
        case "Gateway":
            return any(
                gateway.labels.items() <= workload.labels.items()
                for gateway in written.gateways
                if gateway.namespace == policy.namespace and _meant(target, gateway.name, gateway.part)
            )
    return False


def _meant(target: RateLimitTarget, name: str, part: Part) -> bool:
    if target.name:
        return target.name == name
    metadata = part.part("metadata")
    labels = metadata.strings("labels") if metadata else {}
    return bool(target.labels) and target.labels <= frozenset(labels.items())
