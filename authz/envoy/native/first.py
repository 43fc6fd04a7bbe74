"""
Several look-ups share a stage: each says which of its rules matched first, and here Envoy runs the first of them all.

The look-ups are shadow rules named by their rank in Istio's order, in blocks of a few. The ranks that were found are
put into filter state, a matching tree finds the lowest block, and an ordinary RBAC filter runs that block's rules,
verbatim and under Istio's names: what is decided and what is named is what one filter of all rules would give.
"""

from collections.abc import Mapping, Sequence

from authz.core.attributes import Json
from authz.envoy.native.linear import ACTIONS, HTTP_RBAC, HTTP_RBAC_TYPE, Filter, rbac_rules
from authz.envoy.native.matcher_tree import COMPOSITE, COMPOSITE_TYPE, run_chain, state_input, values
from authz.envoy.native.rbac import Policies
from authz.envoy.native.stages import FilterStage
from authz.envoy.native.value_matchers import Message

BLOCK = 16
"""How many rules are run once more when one of them has matched."""
STATE = "authz.first"
UNPROVED = "authz-a-look-up-matched"
"""Name of the rule that refuses if a rule that a look-up found does not match again, which cannot happen."""
_NOTHING, _REFUSE = "nothing", "refuse"


def rank_names(number: int) -> list[str]:
    """Names for the rules of the look-ups: their order as bytes is that of the ordinals, block first."""
    width, blocks = len(str(number)), _width(number)
    return [f"{ordinal // BLOCK:0{blocks}}.{ordinal:0{width}}" for ordinal in range(number)]


def shadow_prefix(stage: FilterStage, part: int) -> str:
    """The prefix of a look-up's results."""
    return f"authz_{stage}_{part}_"


def first_of_all(stage: FilterStage, parts: int, names: Sequence[str], policies: Policies) -> list[Filter]:
    """
    The filters behind the shadow look-ups of a stage (DENY or ALLOW), which decide.

    Args:
        parts: how many look-ups there are.
        names: Istio's names of the rules by ordinal.
        policies: the rules by name.
    """
    found = "".join(
        f" %DYNAMIC_METADATA({HTTP_RBAC}:{shadow_prefix(stage, part)}shadow_effective_policy_id)%"
        for part in range(parts)
    )
    blocks = range((len(names) - 1) // BLOCK + 1)
    chains = {_NOTHING: [_none(stage)], _REFUSE: [_refuse()]}
    for block in blocks:
        chosen = names[block * BLOCK : (block + 1) * BLOCK]
        run = _rbac(rbac_rules(stage, {name: policies[name] for name in chosen}))
        chains[f"block-{block}"] = [run, _refuse()] if stage is FilterStage.DENY else [run]
    lowest: Message = {"matcher": _lowest([f"{block:0{_width(len(names))}}" for block in blocks], "")}
    unfound: Message = {"map": {" -" * parts: run_chain(_NOTHING)}}
    tree: Message = {"input": state_input(STATE), "exact_match_map": unfound}
    named: Message = {name: {"typed_config": [one.as_extension() for one in chain]} for name, chain in chains.items()}
    config: Message = {
        "@type": COMPOSITE_TYPE,
        "named_filter_chains": named,
        "matcher": {"matcher_tree": tree, "on_no_match": lowest},
    }
    return [values(((STATE, found),)), Filter(COMPOSITE, config)]


def _width(number: int) -> int:
    return len(str(max(0, number - 1) // BLOCK))


def _lowest(blocks: Sequence[str], begin: str) -> Message:
    """Digit by digit: the first digit that one of the found ranks has is that of the lowest."""
    matchers: list[Json] = []
    for digit in sorted({block[len(begin)] for block in blocks}):
        prefix = begin + digit
        below = [block for block in blocks if block.startswith(prefix)]
        is_whole = len(below[0]) == len(prefix)
        on_match: Json = run_chain(f"block-{int(prefix)}") if is_whole else {"matcher": _lowest(below, prefix)}
        predicate: Message = {"input": state_input(STATE), "value_match": {"contains": f" {prefix}"}}
        matchers.append({"predicate": {"single_predicate": predicate}, "on_match": on_match})
    return {"matcher_list": {"matchers": matchers}, "on_no_match": run_chain(_REFUSE)}


def _none(stage: FilterStage) -> Filter:
    """No rule matched: an ALLOW stage refuses as one without rules does, a DENY stage lets the request pass."""
    return _rbac({"action": ACTIONS[stage], "policies": {}} if stage is FilterStage.ALLOW else None)


def _refuse() -> Filter:
    anything: Mapping[str, Json] = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    return _rbac({"action": ACTIONS[FilterStage.DENY], "policies": {UNPROVED: dict(anything)}})


def _rbac(rules: Message | None) -> Filter:
    return Filter(HTTP_RBAC, {"@type": HTTP_RBAC_TYPE} | ({"rules": rules} if rules is not None else {}))
