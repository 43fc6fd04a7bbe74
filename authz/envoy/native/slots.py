"""
Slots: the places in a listener that hold a workload's filters, which come by extension config discovery.

A slot is filled with one Composite filter whose only chain is always taken, so that everything in it is replaced at
once: no request is judged by half of a policy set, and open connections are judged by the new one at their next
request. A filter that waits for an answer (the provider of CUSTOM policies) must be the last one of its chain, because
Envoy 1.40 does not go on with the chain afterwards; what follows goes into the next slot.
"""

from collections.abc import Iterable, Sequence

from authz.core.asked import Asked
from authz.core.attributes import Json
from authz.core.resources import MeshConfig
from authz.envoy.native.linear import HTTP_RBAC_TYPE, Filter
from authz.envoy.native.matcher_tree import values
from authz.envoy.native.record_log import ASKED_STATE, VERSION_STATE, facts_asked
from authz.envoy.native.value_matchers import JWT_FILTER, TYPE, Message

COMPOSITE_TYPE = f"{TYPE}envoy.extensions.filters.http.composite.v3.Composite"
_ACTION_TYPE = f"{TYPE}envoy.extensions.filters.http.composite.v3.ExecuteFilterAction"
_EXTENSION_TYPE = f"{TYPE}envoy.config.core.v3.TypedExtensionConfig"
_WAITS = "envoy.filters.http.ext_authz"
TYPES = (COMPOSITE_TYPE, HTTP_RBAC_TYPE)
"""The types that may fill a slot: a Composite filter, or the RBAC filter without rules, which lets everything pass."""
_CHAIN = "all"


def slot_names(mesh: MeshConfig) -> tuple[str, ...]:
    """
    The slots of every HTTP listener in a mesh, in their order: one for each provider that can be asked, and the rules.

    They depend only on the mesh, so that a changed policy changes no listener.
    """
    providers = sum(provider.is_usable for provider in mesh.extension_providers)
    return (*(f"authz-custom-{number + 1}" for number in range(providers)), "authz-rules")


def fill_slots(
    filters: Iterable[Filter], mesh: MeshConfig, version: str = "", asked: Asked | None = None
) -> list[Message]:
    """
    Distribute the filters of a workload, in Istio's order, over its slots.

    Args:
        version: from ``filters_version``; each slot that may refuse puts it into filter state, for the access log.
            Empty: nobody is told.
        asked: what the policies ask for, put into filter state as the policies of the slot see it. None: nobody is
            told.

    Returns:
        One resource of extension config discovery for each of ``slot_names``.
    """
    groups: list[list[Filter]] = [[]]
    for one in filters:
        groups[-1].append(one)
        if one.name == _WAITS:
            groups.append([])
    names = slot_names(mesh)
    rules = groups.pop()
    waiting: list[list[Filter]] = [*groups, *([] for _ in range(len(names) - 1 - len(groups)))]
    assert len(waiting) == len(names) - 1, "every filter that waits is of a provider of the mesh"
    slots = [*(_telling(group, version, asked) if group else [] for group in waiting), _telling(rules, version, asked)]
    return [_resource(name, group) for name, group in zip(names, slots, strict=True)]


def _telling(group: Sequence[Filter], version: str, asked: Asked | None) -> list[Filter]:
    """The filters of a slot, with those that tell the access log what decided, and on what."""
    names = [one.name for one in group]
    after = names.index(JWT_FILTER) + 1 if JWT_FILTER in names else 0
    at_once: list[tuple[str, str | Message]] = [(VERSION_STATE, version)] if version else []
    later: list[tuple[str, str | Message]] = []
    if asked is not None and (facts := facts_asked(asked, tokens=bool(after))):
        (later if after else at_once).append((ASKED_STATE, facts))  # jwt_authn writes claims, and headers of claims
    return [
        *([values(at_once)] if at_once else []),
        *group[:after],
        *([values(later)] if later else []),
        *group[after:],
    ]


def _resource(name: str, group: Sequence[Filter]) -> Message:
    config: Message = {"@type": HTTP_RBAC_TYPE} if not group else _together(group)
    return {"@type": _EXTENSION_TYPE, "name": name, "typed_config": config}


def _together(group: Sequence[Filter]) -> Message:
    assert not any(one.name == _WAITS for one in group[:-1]), "Envoy would skip what follows"
    filters: list[Json] = [one.as_extension() for one in group]
    action: Message = {"name": _CHAIN, "typed_config": {"@type": _ACTION_TYPE, "filter_chain_name": _CHAIN}}
    return {
        "@type": COMPOSITE_TYPE,
        "named_filter_chains": {_CHAIN: {"typed_config": filters}},
        "matcher": {"on_no_match": {"action": action}},
    }
