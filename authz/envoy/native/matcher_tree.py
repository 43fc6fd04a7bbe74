"""
A stage of many rules as Composite filters: Envoy looks a request up and runs an ordinary RBAC filter of the few rules
that could match it, verbatim as in the linear form and in the same order.

What the matching tree looks at is put into filter state directly before it, since jwt_authn, Lua or a provider may have
changed the path since the stage before. Certificate inputs of the matching API are never used: on a connection without
a certificate such a tree does not end where ``on_no_match`` says.
"""

from collections.abc import Callable, Iterable, Mapping

from authz.core.attributes import Json
from authz.envoy.native.linear import Filter
from authz.envoy.native.lookup import FRAGMENT, HOST, IDENTITY, PATH, PORT, Bucket, Lookup
from authz.envoy.native.value_matchers import TYPE, Message

COMPOSITE = "envoy.filters.http.composite"
COMPOSITE_TYPE = f"{TYPE}envoy.extensions.filters.http.composite.v3.Composite"
SET_FILTER_STATE = "envoy.filters.http.set_filter_state"
_FILTER_STATE_TYPE = f"{TYPE}envoy.extensions.filters.http.set_filter_state.v3.Config"
_INPUT_TYPE = f"{TYPE}envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
_ACTION_TYPE = f"{TYPE}envoy.extensions.filters.http.composite.v3.ExecuteFilterAction"
_NO_DNS_NAME = "|-"
"""Ends the looked-up text of an identity: the certificate has no DNS name."""
VALUES: Mapping[str, tuple[str, str]] = {
    PATH: ("authz.path", "%PATH(NQ:PATH)%"),
    HOST: ("authz.host", "%REQ(:AUTHORITY)%"),
    IDENTITY: ("authz.identity", "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_DNS_SAN%"),
    PORT: ("authz.port", "%DOWNSTREAM_LOCAL_PORT%"),
}
"""For each attribute, the name of the object in filter state and its text."""
SAFE: Mapping[str, str] = {
    # Policies compare hosts ignoring case; a map does not.
    HOST: "[^A-Z]*",
    # At most one name: policies look at every name of a certificate.
    IDENTITY: r"(spiffe://[^,|]*|-)\|-",
}
"""For each attribute, the expression of safe values; others are led to a walk over every rule."""
MakeFilter = Callable[[Bucket], Filter]


def composite_filters(lookup: Lookup, make: MakeFilter) -> list[Filter]:
    """
    The filters of one look-up: the values, then the tree. ``make`` makes the RBAC filter of a bucket.

    Each different bucket is written once, as a named chain. Raises AssertionError if a name leads nowhere: Envoy would
    let such a request pass.
    """
    chains = _Chains()
    tree = _matcher(lookup, chains)
    named: Message = {name: {"typed_config": [make(bucket).as_extension()]} for bucket, name in chains.names.items()}
    if chains.referred != named.keys():
        raise AssertionError("a matching tree refers to filter chains that are not written")
    config: Message = {"@type": COMPOSITE_TYPE, "named_filter_chains": named, "matcher": tree}
    return [values(VALUES[key] for key in sorted(_keys(lookup))), Filter(COMPOSITE, config)]


class _Chains:
    """Names of buckets, given when they are first referred to."""

    def __init__(self) -> None:
        self.names: dict[Bucket, str] = {}
        self.referred: set[str] = set()

    def action(self, bucket: Bucket) -> Message:
        name = self.names.setdefault(bucket, f"rules-{len(self.names)}")
        self.referred.add(name)
        return run_chain(name)


def _keys(lookup: Lookup) -> set[str]:
    below = (*lookup.exact.values(), *lookup.prefixes.values(), lookup.otherwise)
    return {lookup.key}.union(*(_keys(one) for one in below if isinstance(one, Lookup)))


def values(wanted: Iterable[tuple[str, str | Message]]) -> Filter:
    """The filter that puts texts into filter state: name of the object, and the format of its text or JSON."""
    state: list[Json] = []
    for name, text in wanted:
        source: Message
        source = {"text_format_source": {"inline_string": text}} if isinstance(text, str) else {"json_format": text}
        state.append({"object_key": name, "factory_key": "envoy.string", "format_string": source})
    return Filter(SET_FILTER_STATE, {"@type": _FILTER_STATE_TYPE, "on_request_headers": state})


def state_input(name: str) -> Message:
    """The input of a matching tree: a text in filter state."""
    return {"name": "value", "typed_config": {"@type": _INPUT_TYPE, "key": name}}


def run_chain(name: str) -> Message:
    """The action of a matching tree: run the filters of a named chain."""
    return {"action": {"name": "run", "typed_config": {"@type": _ACTION_TYPE, "filter_chain_name": name}}}


def _input(key: str) -> Message:
    return state_input(VALUES[key][0])


def _on_match(below: Lookup | Bucket, chains: _Chains) -> Message:
    return {"matcher": _matcher(below, chains)} if isinstance(below, Lookup) else chains.action(below)


def _matcher(lookup: Lookup, chains: _Chains) -> Message:
    """Exact, then prefix, then everything else; each step says what follows, so that no tree ends in nothing."""
    key = lookup.key
    end = _NO_DNS_NAME if key == IDENTITY else ""
    found = _on_match(lookup.otherwise, chains)
    prefixes = dict(lookup.prefixes)
    if key == PATH:
        # Envoy's text of a path keeps a fragment (which only another filter can put there); policies ignore it.
        prefixes |= {text + FRAGMENT: below for text, below in lookup.exact.items()}
    for kind, table, ending in (("prefix_match_map", prefixes, ""), ("exact_match_map", lookup.exact, end)):
        if table:
            entries: Message = {text + ending: _on_match(below, chains) for text, below in table.items()}
            tree: Message = {"input": _input(key), kind: {"map": entries}}
            found = {"matcher": {"matcher_tree": tree, "on_no_match": found}}
    if key in SAFE:
        pattern: Message = {"safe_regex": {"google_re2": {}, "regex": SAFE[key]}}
        predicate: Message = {"single_predicate": {"input": _input(key), "value_match": pattern}}
        matchers: Message = {"matchers": [{"predicate": predicate, "on_match": found}]}
        return {"matcher_list": matchers, "on_no_match": chains.action(lookup.everything)}
    matcher = found.get("matcher", {"on_no_match": found})
    assert isinstance(matcher, dict)
    return matcher
