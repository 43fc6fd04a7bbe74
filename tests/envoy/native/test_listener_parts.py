"""What a listener of a proxy that decides by itself gets beside its slots."""

from typing import Any

import pytest

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy.native.ext_authz import istio_cluster
from authz.envoy.native.listener_parts import complete

MANAGER = "envoy.filters.network.http_connection_manager"
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: a, jwksUri: "https://a.test/keys", fromParams: [tok]}]}
"""


def logged(query_values: tuple[str, ...], policies: str = TOKENS) -> dict[str, str]:
    """What the access log of an HTTP port says of the query."""
    engine = compile_texts([PolicyText("p.yaml", policies)], MeshConfig())
    assert isinstance(engine, Engine)
    manager: dict[str, Any] = {"name": MANAGER, "typed_config": {"stat_prefix": "in", "access_log": []}}
    listener = {"filter_chains": [{"filters": [manager]}]}
    complete(
        listener, "web-1", Workload("shop"), engine,
        gateway=False, log_path="/dev/null", query_values=query_values, cluster_of=istio_cluster,
    )  # fmt: skip
    found: dict[str, str] = manager["typed_config"]["access_log"][0]["typed_config"]["log_format"]["json_format"][
        "query"
    ]
    return found


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((), {}),
        (("page",), {"page": "%QUERY_PARAM(page)%"}),
        (("page", "tok", "access_token"), {"page": "%QUERY_PARAM(page)%"}),  # no token reaches a file
        (("a:b", "a)b", "50%"), {}),  # no format command can name it
    ],
)
def test_values_of_a_query_are_logged_where_they_are_asked_for(asked: tuple[str, ...], told: dict[str, str]) -> None:
    assert logged(asked) == told


TCP_PROXY = "envoy.filters.network.tcp_proxy"
LOG = "logs/web-1.json"


@pytest.mark.parametrize(
    ("receiver", "records"),
    [
        ("", {MANAGER: "envoy.access_loggers.file", TCP_PROXY: "envoy.access_loggers.file"}),
        ("taker", {MANAGER: "envoy.access_loggers.http_grpc", TCP_PROXY: "envoy.access_loggers.tcp_grpc"}),
    ],
)
def test_the_record_goes_into_a_file_or_to_its_receiver_and_other_logs_stay(
    receiver: str, records: dict[str, str]
) -> None:
    engine = compile_texts([PolicyText("p.yaml", TOKENS)], MeshConfig())
    assert isinstance(engine, Engine)
    placeholder, other = ({"name": "log", "typed_config": {"path": path}} for path in (LOG, "logs/other.json"))
    inbound: list[dict[str, Any]] = [
        {"name": name, "typed_config": {"stat_prefix": "in", "access_log": [placeholder, other]}} for name in records
    ]
    outbound: dict[str, Any] = {"name": MANAGER, "typed_config": {"stat_prefix": "out", "access_log": [other]}}
    listener: dict[str, Any] = {"filter_chains": [{"filters": [one]} for one in (*inbound, outbound)]}
    complete(
        listener, "web-1", Workload("shop"), engine,
        gateway=False, log_path=LOG, query_values=(), cluster_of=istio_cluster, receiver=receiver,
    )  # fmt: skip
    for one in inbound:
        record, rest = one["typed_config"]["access_log"]
        assert (record["name"], rest) == (records[one["name"]], other)
        if receiver:
            service = record["typed_config"]["common_config"]["grpc_service"]
            assert service == {"envoy_grpc": {"cluster_name": "taker"}}
    assert outbound["typed_config"]["access_log"] == [other]
