"""The linear form against the answers of Istio's own builder, and against Envoy's typed messages."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 as http_ext_authz
import envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 as jwt_authn
import envoy_data_plane.envoy.extensions.filters.http.rbac.v3 as http_rbac
import envoy_data_plane.envoy.extensions.filters.network.ext_authz.v3 as network_ext_authz
import envoy_data_plane.envoy.extensions.filters.network.rbac.v3 as network_rbac
import envoy_data_plane.envoy.extensions.path.match.uri_template.v3 as uri_template
import pytest
from envoy_data_plane.envoy.type.v3 import StatusCode

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.envoy.native.filters import linear_http, linear_tcp
from authz.envoy.native.jwt import NOBODY
from authz.envoy.native.linear import Filter
from authz.policy.mesh_config import read_mesh

ANSWERS = json.loads(gzip.decompress((Path(__file__).parent / "istio.json.gz").read_bytes()))
"""``source`` is the version that answered; ``cases`` hold the question and its answer."""
CASES = {case["name"]: case for case in ANSWERS["cases"]}
NAMES = ("policies", "providers")
"""Maps whose keys are names, not fields."""
MESSAGES = {
    "envoy.extensions.filters.http.rbac.v3.RBAC": http_rbac.Rbac,
    "envoy.extensions.filters.network.rbac.v3.RBAC": network_rbac.Rbac,
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication": jwt_authn.JwtAuthentication,
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz": http_ext_authz.ExtAuthz,
    "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz": network_ext_authz.ExtAuthz,
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig": uri_template.UriTemplateMatchConfig,
}
_CAPITAL = re.compile(r"[A-Z]")


def comparable(node: Any, *, names: bool = False) -> Any:
    """
    A message as data: fields in snake case, defaults and what differs on purpose (docs/native.md) left out.

    Istio's key sets are reduced to the names of their keys: ours says ``alg`` always, and has its own key for a set
    without a usable one.
    """
    if isinstance(node, list):
        return [comparable(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        field = key if names or key.startswith("@") else _CAPITAL.sub(lambda letter: f"_{letter[0].lower()}", key)
        if (field, value) in (("action", "ALLOW"), ("failure_mode_allow", False), ("issuer", ""), ("policies", {})):
            continue
        if field == "jwt_cache_config":
            continue
        if field == "inline_string":
            value = sorted({key.get("kid", "") for key in json.loads(value)["keys"] if not nobody(key)})
        if field == "code" and isinstance(value, str):
            value = StatusCode.from_string(value).value
        found[field] = comparable(value, names=field in NAMES)
    return found


def nobody(key: dict[str, str]) -> bool:
    return key == NOBODY or (key["kty"] == "RSA" and key["n"].startswith("0xObjM0UvS_oaazjpEYlAbwctEJ4L8pH3OuTb7qt"))


def typed(message: dict[str, Any]) -> Any:
    """Read the JSON form into Envoy's own message: an unknown field or a wrong type is an error."""
    fields = {name: value for name, value in message.items() if name != "@type"}
    return MESSAGES[message["@type"].removeprefix("type.googleapis.com/")].from_dict(fields)


def ours(case: dict[str, Any], *, tcp: bool) -> list[Filter]:
    mesh, problems = read_mesh("mesh.yaml", case["mesh"].encode() or b"{}")
    assert not [problem for problem in problems if problem.is_error]
    engine = compile_texts([PolicyText("policies.yaml", case["policies"])], mesh)
    assert isinstance(engine, Engine), engine
    workload = Workload(case["workload"]["namespace"], frozenset(case["workload"]["labels"].items()))
    if tcp:
        return linear_tcp(engine, workload)
    return linear_http(engine, workload, {f"uri:{uri}": text for uri, text in case["jwks"].items()}, case["gateway"])


@pytest.mark.parametrize("name", CASES)
def test_linear_filters_are_those_of_istio(name: str) -> None:
    case = CASES[name]
    for protocol in ("http", "tcp"):
        found = [(one.name, comparable(one.config)) for one in ours(case, tcp=protocol == "tcp")]
        assert found == [(one["name"], comparable(one["typedConfig"])) for one in case["answer"][protocol]]
