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
