"""Checks 8 and 9 of a running Envoy: its own dump of its configuration, searched for what fails open or hides."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from authz.analysis.hardening.checklist import Finding
from authz.analysis.hardening.open_settings import is_local
from authz.core.errors import Severity

_HTTP_EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_TCP_EXT_AUTHZ = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
_PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_RBAC = ("envoy.extensions.filters.http.rbac.v3.RBAC", "envoy.extensions.filters.network.rbac.v3.RBAC")


@dataclass(slots=True)
class _Seen:
    """What one listener, or one discovered filter, has."""

    types: set[str] = field(default_factory=set)
    messages: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


def judge_configuration(proxy: str, dump: str) -> Iterator[Finding]:
    """
    Yield what a proxy's ``/config_dump`` lets through.

    Raises ValueError for something else than a dump.
    """
    try:
        configs = [config for config in json.loads(dump)["configs"] if isinstance(config, dict)]
        found: dict[str, _Seen] = {}
        _collect(configs, "", found)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not an answer of Envoy's /config_dump") from error
    everything = set().union(*(seen.types for seen in found.values()))
    for place, seen in found.items():
        where = f"proxy {proxy}" + (f", {place}" if place else "")
        for kind, message in seen.messages:
            yield from _judge(kind, message, where, seen.types if place.startswith("listener") else everything)
    yield from _admin(proxy, configs)


def _collect(node: Any, place: str, found: dict[str, _Seen]) -> None:
    """Sort all typed messages by the listener that they are part of."""
    if isinstance(node, list):
        for one in node:
            _collect(one, place, found)
    elif isinstance(node, dict):
        if "filter_chains" in node or "default_filter_chain" in node:
            place = f"listener {node.get('name', '')}"
        kind = str(node.get("@type", "")).rpartition("/")[2]
        if kind:
            seen = found.setdefault(place, _Seen())
            seen.types.add(kind)
            seen.messages.append((kind, node))
        for one in node.values():
            if isinstance(one, dict | list):
                _collect(one, place, found)


def _judge(kind: str, message: Mapping[str, Any], where: str, beside: set[str]) -> Iterator[Finding]:
    if kind in (_HTTP_EXT_AUTHZ, _TCP_EXT_AUTHZ):
        yield from _ext_authz(kind, message, where)
    elif kind == _PER_ROUTE and message.get("disabled"):
        yield Finding(8, where, "a route is not checked (ext_authz `disabled`)", "remove it, and write an ALLOW policy")
    elif kind == _JWT:
        text = json.dumps(message)
        if '"allow_missing_or_failed"' in text:
            yield Finding(
                8, where, "requests with a bad token pass (jwt_authn `allow_missing_or_failed`)",
                "use `allow_missing`, and refuse what has no request principal by policy", Severity.ERROR,
            )  # fmt: skip
        elif '"allow_missing"' in text and not beside & {*_RBAC, _HTTP_EXT_AUTHZ}:
            yield Finding(
                8, where, "requests without a token pass, and nothing behind it asks (jwt_authn `allow_missing`)",
                "add the filters of `authz compile`, or the check", Severity.ERROR,
            )  # fmt: skip


def _ext_authz(kind: str, message: Mapping[str, Any], where: str) -> Iterator[Finding]:
    if message.get("failure_mode_allow"):
        what = "requests pass while the server does not answer (ext_authz `failure_mode_allow`)"
        yield Finding(8, where, what, "remove it: `false` is the default", Severity.ERROR)
    if kind != _HTTP_EXT_AUTHZ:
        return
    share = message.get("filter_enabled", {}).get("default_value", {})
    whole = {"TEN_THOUSAND": 10_000, "MILLION": 1_000_000}.get(share.get("denominator"), 100)
    if "filter_enabled" in message and share.get("numerator", 0) < whole and not message.get("deny_at_disable"):
        yield Finding(
            8, where, "a share of requests is not checked (ext_authz `filter_enabled`)", "remove it", Severity.ERROR
        )
    for name in ("allowed_headers", "disallowed_headers"):
        if name in message:
            what = f"policies do not see all headers (ext_authz `{name}`)"
            yield Finding(
                8, where, what, "remove it: a DENY that reads a hidden header may never apply", Severity.ERROR
            )
    if not message.get("encode_raw_headers") and "grpc_service" in message:
        what = "headers that come twice are judged joined (ext_authz without `encode_raw_headers`)"
        yield Finding(8, where, what, "set `encode_raw_headers: true`")


def _admin(proxy: str, configs: Any) -> Iterator[Finding]:
    for config in configs:
        address = config.get("bootstrap", {}).get("admin", {}).get("address", {}).get("socket_address")
        if address is None:
            continue
        shown = f"{address.get('address', '')}:{address.get('port_value', 0)}"
        if not is_local(shown):
            yield Finding(
                9, f"proxy {proxy}, admin {shown}", "other machines can read its configuration and stop it",
                "give it a Unix socket, `pipe: {path: run/NAME.admin.sock, mode: 432}`, or 127.0.0.1", Severity.ERROR,
            )  # fmt: skip
        else:
            yield Finding(
                9, f"proxy {proxy}, admin {shown}", "every user of this machine can read its configuration and stop it",
                "give it a Unix socket, `pipe: {path: run/NAME.admin.sock, mode: 432}`",
            )  # fmt: skip
