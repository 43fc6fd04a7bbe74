"""Hosting the authorization server in an Envoy: addresses, TLS files, and proxies that ask themselves."""

import json
from pathlib import Path

import pytest

from authz.envoy.hosting import HostTls, hosting_address, hosting_bootstrap, hosting_listener, hosting_tls
from authz.envoy.messages import as_json
from authz.envoy.options import Authz, RenderOptions
from authz.envoy.render import render_all
from authz.mesh.description import read_mesh_description
from tests.mesh.meshes import logins
from tests.yaml_text import read_yaml

MESH = Path(__file__).parents[2] / "envoy-configs" / "mesh.yaml"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:9191", {"socket_address": {"address": "127.0.0.1", "port_value": 9191}}),
        ("[::1]:0", {"socket_address": {"address": "::1", "port_value": 0}}),
        ("unix:/run/authz.sock", {"pipe": {"path": "/run/authz.sock", "mode": 0o660}}),
        ("unix:run/authz.sock", {"pipe": {"path": "run/authz.sock", "mode": 0o660}}),
        ("unix-abstract:authz", {"pipe": {"path": "@authz"}}),
    ],
)
def test_addresses_are_envoys(written: str, address: dict[str, object]) -> None:
    assert as_json(hosting_address(written)) == address


@pytest.mark.parametrize("written", ["", "9191", "unix:", "host:port", ":9191"])
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is none of host:port"):
        hosting_address(written)


def test_all_addresses_share_one_listener_because_each_loads_the_application() -> None:
    addresses = [hosting_address("127.0.0.1:0"), hosting_address("unix:a.sock")]
    told = hosting_bootstrap(hosting_listener("authz", addresses, "/m.so", max_message_bytes=1 << 20), "admin.sock")
    listeners = told["static_resources"]["listeners"]  # type: ignore[index]  # plain data
    assert len(listeners) == 1
    assert [listeners[0]["address"], *(more["address"] for more in listeners[0]["additional_addresses"])] == [
        as_json(address) for address in addresses
    ]
    assert listeners[0]["per_connection_buffer_limit_bytes"] > 1 << 20
    assert not listeners[0]["enable_reuse_port"]


@pytest.mark.parametrize(("bundle", "files"), [(None, {"server.yaml"}), ("ca.crt", {"server.yaml", "clients.yaml"})])
def test_certificates_are_followed_and_clients_asked_for_one_when_there_is_a_bundle(
    bundle: str | None, files: set[str]
) -> None:
    folder = Path("/tls")
    tls = HostTls(folder / "tls.crt", folder / "tls.key", folder / bundle if bundle else None)
    socket, written = hosting_tls("/state", tls)
    assert set(written) == files
    context = as_json(socket)["typed_config"]
    assert context["require_client_certificate"] is (bundle is not None)  # type: ignore[index]  # plain data
    assert json.dumps(written).count('"watched_directory": {"path": "/tls"}') == len(files)


def test_a_proxy_with_the_server_inside_asks_only_itself() -> None:
    mesh, problems = read_mesh_description([(str(MESH), MESH.read_bytes())])
    assert not [problem for problem in problems if problem.is_error]
    files = render_all(mesh, options=RenderOptions(authz=Authz.EMBEDDED, logins=logins(mesh)))
    assert "eds/authz.yaml" not in files
    for workload in mesh.workloads:
        resources = read_yaml(files[f"envoy/{workload.name}.yaml"])["static_resources"]
        place = {"path": f"run/{workload.name}.authz.sock"}
        assert resources["listeners"][0]["address"]["pipe"] == {**place, "mode": 0o600}
        (cluster,) = (cluster for cluster in resources["clusters"] if cluster["name"] == "authz")
        assert cluster["type"] == "STATIC"
        (locality,) = cluster["load_assignment"]["endpoints"]
        assert [one["endpoint"]["address"] for one in locality["lb_endpoints"]] == [{"pipe": place}]
        assert "outlier_detection" not in cluster
