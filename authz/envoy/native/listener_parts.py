"""
The parts of a listener that a proxy that decides by itself has besides its slots: network filters, records, decision
ids.

Listeners are typed messages; what belongs to policies is plain data and takes the places that were left for it.
"""

from collections.abc import Mapping
from typing import Any

from authz.core.asked import asked_of
from authz.core.attributes import Workload
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.envoy.native import record_log, record_stream
from authz.envoy.native.ext_authz import ClusterOf
from authz.envoy.native.filters import linear_tcp
from authz.tokens.locations import DEFAULT_PARAMETER

NATIVE_TCP = "authz-native-tcp"
"""Name of the filter in whose place the network filters go."""
_MANAGER = "envoy.filters.network.http_connection_manager"
_TCP_PROXY = "envoy.filters.network.tcp_proxy"


def complete(
    listener: dict[str, Any],
    proxy: str,
    workload: Workload,
    engine: PoliciesByWorkload,
    *,
    gateway: bool,
    log_path: str,
    query_values: tuple[str, ...],
    cluster_of: ClusterOf,
    is_limited: bool = False,
    receiver: str = "",
) -> None:
    """
    Put the policies' part into a listener, in the JSON form of Envoy's message, in place.

    ``query_values``: parameters whose values are logged, except those in which a token may come. ``receiver``: the
    cluster that takes the record; empty: it is the file at ``log_path``.
    Only what decides is touched: outbound listeners of a sidecar do not write this log, and stay as they are. The logs
    that a Telemetry asks for stand behind the record.
    Connections are judged once: a changed policy replaces the filter chains of a TCP port, as in a cluster.
    """
    tcp = [one.as_extension() for one in linear_tcp(engine, workload, cluster_of)]
    policies = engine.for_workload(workload)
    asked = asked_of(policies)
    # A token may come in any of these, whichever rule reads it: the log is a file, and holds none.
    credentials = {DEFAULT_PARAMETER, *(name for rule in policies.jwt_rules for name in rule.from_params)}
    logged = tuple(name for name in query_values if name not in credentials)
    for chain in _chains(listener):
        chain["filters"] = [put for one in chain["filters"] for put in (tcp if one["name"] == NATIVE_TCP else [one])]
        for one in chain["filters"]:
            config: dict[str, Any] = one.get("typed_config", {})
            if "access_log" not in config:
                continue
            logs = config["access_log"]
            others = [log for log in logs if log["typed_config"].get("path") != log_path]
            if logs and len(others) == len(logs):
                continue  # it leads out, and has only what a Telemetry asks for
            told = None if one["name"] == _MANAGER else asked  # for HTTP the filters in the slots tell it
            subject = record_log.Subject(
                workload,
                proxy,
                config["stat_prefix"],
                is_gateway=gateway,
                asked=told,
                is_limited=is_limited,
                query_values=logged,
            )
            if one["name"] == _MANAGER:
                config["access_log"] = [_http_record(log_path, receiver, subject), *others]
                config["local_reply_config"] = record_log.denial_replies()
            elif one["name"] == _TCP_PROXY:
                config["access_log"] = [_tcp_record(log_path, receiver, subject), *others]


def _http_record(path: str, receiver: str, subject: record_log.Subject) -> record_log.Config:
    if receiver:
        return record_stream.http_stream_log(receiver, subject)
    return record_log.http_file_log(path, subject)


def _tcp_record(path: str, receiver: str, subject: record_log.Subject) -> record_log.Config:
    return record_stream.tcp_stream_log(receiver, subject) if receiver else record_log.tcp_file_log(path, subject)


def _chains(listener: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*listener.get("filter_chains", ()), *filter(None, [listener.get("default_filter_chain")])]
