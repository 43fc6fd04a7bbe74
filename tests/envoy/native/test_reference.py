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
from authz.envoy.native.filters import http_filters, tcp_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.jwt import NOBODY, NOBODY_ED25519
from authz.envoy.native.linear import Filter
from authz.policy.mesh_config import read_mesh

ANSWERS = json.loads(gzip.decompress((Path(__file__).parent / "istio.json.gz").read_bytes()))
"""``source`` is the version that answered; ``cases`` hold the question and its answer."""
CASES = {case["name"]: case for case in ANSWERS["cases"]}
NAMES = ("policies", "providers")
"""Maps whose keys are names, not fields."""
MESSAGES: dict[str, Any] = {
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
        found_list = [comparable(one) for one in node]
        # Beside several `from` entries Istio repeats the aliased values of a `when` on source.principal.
        return [one for index, one in enumerate(found_list) if one not in found_list[:index]]
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
    if {name: value for name, value in key.items() if name != "kid"} in (NOBODY, NOBODY_ED25519):
        return True
    return key["kty"] == "RSA" and key["n"].startswith("0xObjM0UvS_oaazjpEYlAbwctEJ4L8pH3OuTb7qt")


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
        return list(tcp_filters(engine, workload).filters)
    keys = {f"uri:{uri}": text for uri, text in case["jwks"].items()}
    return list(http_filters(engine, workload, keys, form=Form.LINEAR, gateway=case["gateway"]).filters)


@pytest.mark.parametrize("name", CASES)
def test_linear_filters_are_those_of_istio(name: str) -> None:
    case = CASES[name]
    for protocol in ("http", "tcp"):
        found = [(one.name, comparable(one.config)) for one in ours(case, tcp=protocol == "tcp")]
        assert found == [(one["name"], comparable(one["typedConfig"])) for one in case["answer"][protocol]]


def test_the_answers_say_which_istio_gave_them() -> None:
    assert ANSWERS["source"].startswith("istio.io/istio v0.0.0-20260827124520-")
    assert len(CASES) >= 250


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Istio uses fields that Envoy calls deprecated
@pytest.mark.parametrize("name", [name for index, name in enumerate(CASES) if index % 9 == 0])
def test_filters_are_messages_that_envoy_knows(name: str) -> None:
    """A part of the cases: the typed messages take seconds for what plain data does in milliseconds."""
    for tcp in (False, True):
        for one in ours(CASES[name], tcp=tcp):
            assert typed(one.config).to_dict()
