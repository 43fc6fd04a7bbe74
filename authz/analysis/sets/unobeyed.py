"""
Policies that no workload obeys, because their ``targetRefs`` name something else than a gateway that is asked about.

A change of such a policy changes no answer here (RE-16, RE-19), and would at a waypoint (RE-20). So that nobody takes
silence about it for a proof, it is told.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass

from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.core.engine import Engine
from authz.core.resources import GATEWAY_NAME_LABEL, AuthorizationPolicy, RequestAuthentication

_Targeted = AuthorizationPolicy | RequestAuthentication


def changed_and_unobeyed(old: Engine, new: Engine, workloads: Iterable[AskedWorkload]) -> list[str]:
    """One sentence for each policy that differs between two sides and that none of the workloads obeys, by name."""
    gateways = {
        (asked.workload.namespace, dict(asked.workload.labels).get(GATEWAY_NAME_LABEL, "")) for asked in workloads
    }
    before, after = (dict(_items(engine)) for engine in (old, new))
    found = []
    for name in sorted(before.keys() | after.keys()):
        sides = [side[name] for side in (before, after) if name in side]
        if any(_is_obeyed(item, gateways) for item in sides):
            continue
        if len(sides) < 2 or _said(sides[0]) != _said(sides[1]):
            refs = ", ".join(f"{ref.kind} `{ref.name}`" for ref in sides[-1].target.target_refs)
            found.append(f"{name} differs, and no workload obeys it: its targetRefs name {refs}")
    return found


def _items(engine: Engine) -> Iterator[tuple[str, _Targeted]]:
    resources = engine.resources
    items: tuple[_Targeted, ...] = (*resources.authorization_policies, *resources.request_authentications)
    for item in items:
        yield f"{type(item).__name__} {item.metadata.namespace}/{item.metadata.name}", item


def _is_obeyed(item: _Targeted, gateways: set[tuple[str, str]]) -> bool:
    """Whether a workload obeys it; one that was given a selector instead counts as obeyed, and is compared anyway."""
    refs = item.target.target_refs
    return not refs or any(ref.kind == "Gateway" and (item.metadata.namespace, ref.name) in gateways for ref in refs)


def _said(value: object) -> object:
    """What a resource says, without where it is written."""
    if is_dataclass(value):
        return tuple(_said(getattr(value, one.name)) for one in fields(value) if one.name != "location")
    if isinstance(value, tuple):
        return tuple(map(_said, value))
    return sorted(value.items()) if isinstance(value, Mapping) else value
