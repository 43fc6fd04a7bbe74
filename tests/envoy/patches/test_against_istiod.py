"""
The same patches on the same resources as istiod's own code: what comes out is the same message.

``istiod_answers.json.gz`` holds what ``ApplyListenerPatches``, ``ApplyClusterMerge``, ``InsertedClusters`` and
``ApplyRouteConfigurationPatches`` made of ``istiod_inputs.yaml``, and the version that was asked.
"""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from authz.envoy.patches.message_types import MessageType
from authz.envoy.patches.patching import patched
from authz.envoy.patches.proxy_resources import ProxyResources, ProxySelf, Standing
from authz.envoy.patches.typed_patches import typed_patches
from authz.envoy.patches.typed_values import typed
from authz.mesh.description import read_mesh_description
from authz.mesh.extensions import PatchContext, WrittenAt, WrittenValue
from tests.yaml_text import read_yaml

HERE = Path(__file__).parent
INPUTS = read_yaml((HERE / "istiod_inputs.yaml").read_text())
ANSWERS = json.loads(gzip.decompress((HERE / "istiod_answers.json.gz").read_bytes()))["answers"]
CASES = {case["name"]: case["patches"] for case in INPUTS["cases"]}
STANDINGS = {
    name: Standing(PatchContext.SIDECAR_INBOUND, (port,)) for name, port in (("inbound_8443", 8443), ("tcp_9000", 9000))
}


def one_form(message: Any, kind: MessageType) -> Any:
    """A message in the one form in which two can be compared."""
    made, problems = typed(WrittenValue(copy.deepcopy(message), WrittenAt()), kind)
    assert problems == ()
    return made


def made_of(patches: list[Any]) -> ProxyResources:
    document = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "patches", "namespace": "app"},
        "spec": {"configPatches": patches},
    }
    mesh, problems = read_mesh_description([("filter.yaml", json.dumps(document).encode())])
    assert {problem.code for problem in problems} <= {"ME-4"}, "it only selects no workload"
    typed_ones, wrong = typed_patches(mesh.envoy_filters)
    assert wrong == ()
    given = INPUTS["resources"]
    resources = ProxyResources(
        [one_form(one, Listener) for one in given["listeners"]],
        [one_form(one, Cluster) for one in given["clusters"]],
        [one_form(one, RouteConfiguration) for one in given["routes"]],
        STANDINGS,
        {"9080": Standing(PatchContext.SIDECAR_INBOUND, (9080,))},
    )
    return patched(typed_ones, resources, ProxySelf("app", {}), "proxy").resources


def test_every_case_was_answered() -> None:
    assert list(CASES) == sorted(CASES, key=list(CASES).index)
    assert set(CASES) == set(ANSWERS)
    assert not [name for name, answer in ANSWERS.items() if "error" in answer]


@pytest.mark.parametrize("name", CASES)
def test_patches_do_what_they_do_in_istiod(name: str) -> None:
    made, answer = made_of(CASES[name]), ANSWERS[name]
    assert [one_form(one, Listener) for one in made.listeners] == [one_form(o, Listener) for o in answer["listeners"]]
    assert [one_form(one, Cluster) for one in made.clusters] == [one_form(o, Cluster) for o in answer["clusters"]]
    tables = [one_form(one, RouteConfiguration) for one in made.route_tables]
    assert tables == [one_form(one, RouteConfiguration) for one in answer["routes"]]


def test_most_of_the_cases_change_something() -> None:
    unchanged = [
        name
        for name, answer in ANSWERS.items()
        if [one_form(one, Listener) for one in answer["listeners"]]
        == [one_form(one, Listener) for one in INPUTS["resources"]["listeners"]]
        and [one_form(one, Cluster) for one in answer["clusters"]]
        == [one_form(one, Cluster) for one in INPUTS["resources"]["clusters"]]
        and [one_form(one, RouteConfiguration) for one in answer["routes"]]
        == [one_form(one, RouteConfiguration) for one in INPUTS["resources"]["routes"]]
    ]
    assert sorted(unchanged) == [
        "chains are not found by some application protocols",
        "insert before a name that is not there is nothing",
    ]
