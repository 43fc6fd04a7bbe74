"""
Route tables before and after: no route takes the filters out of force, lets the caller choose, or leads to control.

Where a request goes after it was allowed, a patch may say; whether it is asked about, it may not.
"""

import json
from collections import Counter
from collections.abc import Iterator

from authz.core.attributes import Json
from authz.envoy.patches.proxy_resources import ProxyResources
from authz.envoy.patches.typed_values import TYPE, Tree
from authz.envoy.patches.weakening import Weakening, refused, said

_CHOSEN = {
    "cluster_header": "the caller chooses the cluster",
    "cluster_specifier_plugin": "code chooses the cluster",
    "inline_cluster_specifier_plugin": "code chooses the cluster",
    "cluster_specifier_plugins": "code chooses the cluster",
    "vhds": "routes come from elsewhere",
    "upgrade_configs": "what follows an upgrade is checked by nobody",
    "filename": "a file of this host is given out",
    "environment_variable": "the proxy's environment is given out",
}
"""Tree in which there is something that a patch may not add, wherever they stand in a table."""
_REWRITES = frozenset(
    [
        "prefix_rewrite",
        "regex_rewrite",
        "path_rewrite",
        "path_rewrite_policy",
        "host_rewrite_literal",
        "host_rewrite_header",
        "host_rewrite_path_regex",
        "auto_host_rewrite",
        "append_x_forwarded_host",
        "request_headers_to_add",
        "request_headers_to_remove",
        "request_mutations",
    ]
)


def compare_tables(
    place: str,
    before: Tree,
    after: Tree,
    protected: frozenset[str],
    private: frozenset[str],
    *,
    inbound: bool,
) -> Iterator[Weakening]:
    """
    Compare two states of a table.

    Args:
        protected: names of the filters that no route may reconfigure.
        private: names of the clusters to which no route may lead.
        inbound: whether what policies saw is what the application should get.
    """
    own = Counter(_sensitive(before, protected, private))
    for found in (Counter(_sensitive(after, protected, private)) - own).elements():
        yield refused(place, f"{found[0]}: {found[1]}", found[2], found[3])
    if inbound:
        rewriting = Counter(_rewriting(after)) - Counter(_rewriting(before))
        for name, value in rewriting.elements():
            yield said(place, f"`{name}` changes requests after they were allowed", value)


def reaching_private(holder: Json, private: frozenset[str]) -> Counter[str]:
    """How often private clusters are named anywhere in a message as where something goes."""
    found: Counter[str] = Counter()
    for name, value in _walk(holder):
        named = [value]
        if name == "clusters" and isinstance(value, list):
            named = [one.get("name") if isinstance(one, dict) else one for one in value]
        elif name not in ("cluster", "cluster_name"):
            continue
        found.update(f"{name}: {one}" for one in named if isinstance(one, str) and one in private)
    return found


def compare_written_files(before: ProxyResources, after: ProxyResources) -> Iterator[Weakening]:
    """Access logs go to ``logs/`` and devices: elsewhere in the state directory are files that Envoy follows."""
    own = {path for listener in before.listeners for path in _log_files(listener)}
    for listener in after.listeners:
        for path in _log_files(listener) if listener not in before.listeners else ():
            inside = path.startswith(("logs/", "/dev/")) and ".." not in path
            if path not in own and not inside:
                what = f"an access log is written to `{path}`, where there may be configuration"
                yield refused(f"listener `{listener.get('name')}`", what, "write it to `logs/` or `/dev/stdout`", path)


def _log_files(holder: Json) -> Iterator[str]:
    waiting: list[Json] = [holder]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if str(one.get(TYPE, "")).endswith(".FileAccessLog"):
                yield str(one.get("path", ""))
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _sensitive(table: Tree, protected: frozenset[str], private: frozenset[str]) -> Iterator[tuple[str, str, str, str]]:
    for name, value in _walk(table):
        text = json.dumps(value, sort_keys=True)
        if name in _CHOSEN and value:
            yield f"`{name}`", _CHOSEN[name], "leave it out", text
        elif name == "typed_per_filter_config" and isinstance(value, dict):
            for key in value:
                if key in protected:
                    what = "the filter decides, and a route may not change what it does"
                    yield f"`{name}[{key}]`", what, "leave it out", json.dumps(value[key], sort_keys=True)
    for name, times in reaching_private(table, private).items():
        for _ in range(times):
            yield f"`{name}`", "leads to where decisions are made and keys are given out", "lead elsewhere", ""


def _rewriting(table: Tree) -> Iterator[tuple[str, str]]:
    for name, value in _walk(table):
        if name in _REWRITES and value:
            yield name, json.dumps(value, sort_keys=True)


def _walk(holder: Json) -> Iterator[tuple[str, Json]]:
    """Every field of every message in a value, with its name."""
    waiting: list[Json] = [holder]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name, value in one.items():
                yield name, value
                waiting.append(value)
        elif isinstance(one, list):
            waiting += one
