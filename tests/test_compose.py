"""
The compose file against the mesh it claims to be: hardening, addresses, and who is given which key.

What only a Docker daemon can show is at the end, and skipped where there is none.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from authz.core.spiffe import TrustDomain
from authz.demo.checks.traffic_rules_in_force import ASKS_RATINGS, PRODUCTPAGE
from authz.demo.containers import IN_FORCE, rendering
from authz.demo.issuer import AUDIENCE, PEOPLE
from authz.demo.keycloak import for_keycloak
from authz.demo.layout import LIMITS_PORT, LOOPBACK, Layout, issuer_urls
from authz.demo.prepare import DIRECTORIES, options, read_engine
from authz.envoy.options import OTLP_CLUSTER, RenderOptions, Secrets
from authz.envoy.render import Native, modes_of, render_all
from authz.identity.registration import UnixPeer, granted, read_entries
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce, Mesh, MeshWorkload
from tests.mesh.meshes import logins
from tests.yaml_text import read_yaml

ROOT = Path(__file__).parent.parent
COMPOSE = read_yaml((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TEXT = (ROOT / "envoy-configs" / "mesh.yaml").read_bytes()
MESH: Mesh = read_mesh_description([("mesh.yaml", TEXT)])[0]
MORE = ("docker-compose.override.example.yaml", "docs/compose/check.yaml", "docker-compose.native.yaml")
OURS = "10001"
"""User and group that others share; a proxy has a user of its own."""
KEYS = {
    "ca": {"certificates", "ca"},
    "web": {"web-certificates"},
    "outside": {"outside"},
    "certs-bookinfo-web": {"web-certificates", "ingressgateway"},
    "certs-bookinfo-login": {"web-certificates", "ingressgateway", "issuer"},
    "issuer": {"issuer"},
}
"""Volumes with private keys: who mounts them."""
SOCKETS = {
    "authz": {"authz-0", "authz-1", "collector"},
    "ca-socket": {"ca"},
}
"""Volumes with sockets that every proxy may connect to: who makes them."""
ENTRIES = ROOT / "docs/compose/identities/entries.yaml"


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Target to source with its mode, ``certs-x:ro``."""
    found = {}
    for text in service.get("volumes", ()):
        source, target, *mode = re.sub(r"\$\{[^}]*\}", "POLICIES", text).split(":")
        found[target] = ":".join([source, *mode])
    return found


def proxies() -> dict[str, MeshWorkload]:
    return {w.name if w.is_gateway else f"{w.name}-proxy": w for w in MESH.workloads}


def files() -> list[str]:
    return ["docker-compose.yaml", *(name for name in MORE if (ROOT / name).exists())]


def all_services() -> list[Any]:
    found = []
    for file in files():
        for name, service in read_yaml((ROOT / file).read_text())["services"].items():
            found.append(pytest.param(name, SERVICES.get(name, {}) | service, id=f"{file}:{name}"))
    return found


@pytest.mark.parametrize(("name", "service"), all_services())
def test_every_container_is_hardened(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "docker.sock" not in str(service.get("volumes"))
    if name.endswith("-fence"):  # sets the rules of a network and ends; nothing runs beside it with its rights
        assert (service["cap_add"], service["restart"]) == (["NET_ADMIN"], "no")
        return
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "root"
    assert "cap_add" not in service
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["pids_limit"] <= 1000


@pytest.mark.parametrize(("name", "service"), all_services())
def test_every_image_has_a_version(name: str, service: dict[str, Any]) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", service["image"])


def test_base_images_have_versions_and_nobody_is_root() -> None:
    text = DOCKERFILE
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["${BASE}"] * 2
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.M)
    assert base == "python:3.11-slim-bookworm"
    assert SERVICES["certificates"]["build"]["args"] == {"BASE": f"${{PYTHON_IMAGE:-{base}}}"}
    assert re.findall(r"^USER (\S+)", text, re.M) == ["10001:10001"]
    assert 'ENTRYPOINT ["authz"]' in text


@pytest.mark.parametrize("workload", MESH.sidecars, ids=lambda w: w.name)
def test_every_workload_has_application_and_sidecar_on_one_address(workload: MeshWorkload) -> None:
    pod = SERVICES[workload.name]
    assert pod["networks"] == {"mesh": {"ipv4_address": workload.compose_address}}
    for part in ("app", "proxy"):
        assert SERVICES[f"{workload.name}-{part}"]["network_mode"] == f"service:{workload.name}"
    port = str(workload.inbound[0].app.compose.port)
    assert port in SERVICES[f"{workload.name}-app"]["command"], "eds-compose leads to another port"


def test_every_service_of_the_mesh_is_there() -> None:
    assert set(proxies()) == {name for name, service in SERVICES.items() if service["image"].startswith("envoy")}


@pytest.mark.parametrize(("name", "workload"), proxies().items(), ids=proxies())
def test_a_proxy_runs_the_configuration_of_its_workload(name: str, workload: MeshWorkload) -> None:
    command = SERVICES[name]["command"]
    assert command[command.index("-c") + 1] == f"envoy/{workload.name}.yaml"
    assert command[command.index("--service-node") + 1] == workload.name
    if workload.is_gateway:
        assert SERVICES[name]["networks"]["mesh"]["ipv4_address"] == workload.compose_address
    for target, source in mounts(SERVICES[name]).items():
        own = (target, source) in (("/mesh/logs", "logs"), ("/mesh/run", f"run-{workload.name}"))
        assert source.endswith(":ro") or own, f"{name} could change {target}"


def user(name: str) -> str:
    uid: str = SERVICES[name]["user"].partition(":")[0]
    return uid


def test_every_proxy_is_a_user_of_its_own() -> None:
    """Else the socket would prove no more than that somebody asks."""
    users = {name: user(name) for name in proxies()}
    shared = {"web-certificates"}  # writes what the ingress gateway reads
    others = {user(name) for name in SERVICES if name not in {*users, *shared}}
    assert len(set(users.values())) == len(users)
    assert not set(users.values()) & others
    assert user("web-certificates") == users["ingressgateway"]
    assert {SERVICES[name]["user"].partition(":")[2] for name in users} == {OURS}


def test_a_user_is_given_the_identity_of_its_workload_and_no_other() -> None:
    entries, problems = read_entries(str(ENTRIES), ENTRIES.read_bytes(), TrustDomain(MESH.config.trust_domain))
    assert not problems
    for name, workload in proxies().items():
        peer = UnixPeer(int(user(name)), int(OURS))
        assert set(granted(entries, peer)) == {str(workload.spiffe_id)}, name
    assert len(entries) == len(proxies()), "an entry is for nobody"
    for name in set(SERVICES) - set(proxies()) - {"web-certificates"}:
        assert not granted(entries, UnixPeer(int(user(name)), int(OURS))), name


def test_the_authority_reads_those_entries_and_serves_the_socket_that_proxies_ask() -> None:
    ca = SERVICES["ca"]
    told = dict(pairwise(ca["command"]))
    assert ca["volumes"][0].endswith("-./docs/compose/identities}:/mesh/identities:ro")
    assert told["--entries"] == f"identities/{ENTRIES.name}"
    assert mounts(ca)["/mesh/run"] == "ca-socket"
    asked = re.findall(r"path: (\S+)", rendered_here()["eds-compose/sds.yaml"].decode())
    assert asked == [told["--socket"].replace("run/", "run/ca/")]
    for name in proxies():
        assert mounts(SERVICES[name])["/mesh/run/ca"] == "ca-socket:ro"


@pytest.mark.parametrize(("volume", "holders"), KEYS.items(), ids=KEYS)
def test_private_keys_are_given_only_to_those_who_need_them(volume: str, holders: set[str]) -> None:
    found = {n for n in SERVICES if volume in {s.partition(":")[0] for s in mounts(SERVICES[n]).values()}}
    assert found == holders


def test_the_key_of_a_proxy_is_in_no_file() -> None:
    """Envoy gets it by SDS: there is no volume for it."""
    names = {w.name for w in MESH.workloads}
    assert not {volume for volume in COMPOSE["volumes"] if volume.removeprefix("certs-") in names}
    assert {name for name in rendered_here() if name.startswith("sds/")} == {
        "sds/bookinfo-web.yaml",
        "sds/bookinfo-login.client-secret.yaml",
        "sds/bookinfo-login.hmac.yaml",
    }


@pytest.mark.parametrize(("volume", "makers"), SOCKETS.items(), ids=SOCKETS)
def test_sockets_are_where_only_their_makers_can_write(volume: str, makers: set[str]) -> None:
    """Else a proxy could put a false authority in the place of a stopped one."""
    sources = {name: set(mounts(service).values()) for name, service in SERVICES.items()}
    assert {name for name, found in sources.items() if volume in found} == makers
    owner = re.search(r"uid=(\d+),.*mode=0750", COMPOSE["volumes"][volume]["driver_opts"]["o"])
    assert owner is not None
    assert {user(name) for name in makers} == {owner[1]}


def test_a_proxy_is_administered_by_itself_and_the_authority() -> None:
    for name, workload in proxies().items():
        volume = f"run-{workload.name}"
        assert f"uid={user(name)},gid={OURS},mode=0750" in COMPOSE["volumes"][volume]["driver_opts"]["o"]
        found = {n for n in SERVICES if volume in {s.partition(":")[0] for s in mounts(SERVICES[n]).values()}}
        assert found == {name, "ca"}
        assert mounts(SERVICES["ca"])[f"/mesh/proxies/{workload.name}"] == f"{volume}:ro"


def test_keys_and_sockets_are_in_memory() -> None:
    for name, volume in COMPOSE["volumes"].items():
        if name.startswith(("certs-", "run-")) or name in SOCKETS:
            assert volume["driver_opts"]["type"] == "tmpfs"
            assert re.search(r"mode=07[05]0", volume["driver_opts"]["o"])


def test_directories_in_the_image_belong_to_those_who_write_there() -> None:
    """A new volume takes owner and mode from there."""
    told = re.findall(r"chown (\d+):10001 ([a-z. ]+)", DOCKERFILE)
    owners = {directory: owner for owner, names in told for directory in names.split()}
    kept = {name for name, volume in COMPOSE["volumes"].items() if not volume}
    assert kept == set(owners) - {"."}
    for name in kept:
        writers = {n for n in SERVICES if name in mounts(SERVICES[n]).values()}
        assert {user(n) for n in writers} == {owners[name]}, name


def test_endpoints_of_envoy_are_the_addresses_of_the_containers() -> None:
    known = {
        network["ipv4_address"]
        for service in SERVICES.values()
        if isinstance(service.get("networks"), dict)
        for network in service["networks"].values()
        if network and "ipv4_address" in network
    }
    for path in sorted((ROOT / "envoy-configs" / "eds-compose").iterdir()):
        for address in re.findall(r"address: (\d[\d.]*)", path.read_text()):
            assert address in known | {"127.0.0.1"}, f"{path.name} leads to nobody"


def test_both_replicas_are_asked_on_the_sockets_they_listen_on() -> None:
    asked = re.findall(r"path: (\S+)", (ROOT / "envoy-configs" / "eds-compose" / "authz.yaml").read_text())
    served = []
    for name in ("authz-0", "authz-1"):
        listen = SERVICES[name]["command"][SERVICES[name]["command"].index("--listen") + 1]
        assert mounts(SERVICES[name])["/mesh/run"] == "authz"
        # One worker each: several would add an index of their own to the name of the socket.
        assert SERVICES[name]["command"][SERVICES[name]["command"].index("--workers") + 1] == "1"
        served.append(listen.removeprefix("unix:").replace("run/", "run/authz/"))
    assert asked == served
    for name in proxies():
        assert mounts(SERVICES[name])["/mesh/run/authz"] == "authz:ro"


@cache
def rendered_here() -> dict[str, bytes]:
    """What the service ``configuration`` writes."""
    layout = Layout(ROOT, ROOT / "policies", MESH, secrets=Secrets.SDS, logins=logins(MESH))
    return render_all(MESH, modes_of(read_engine(layout)), rendering(layout))


def test_only_endpoint_files_differ_from_those_of_the_process_demo() -> None:
    """Byte by byte (XA-190)."""
    layout = Layout(ROOT, ROOT / "policies", MESH, secrets=Secrets.SDS, logins=logins(MESH))
    processes = render_all(MESH, modes_of(read_engine(layout)), options(layout))
    assert {name for name, content in rendered_here().items() if content != processes[name]} == {
        "eds-compose/authz.yaml", "eds-compose/otlp.yaml", "eds/authz.yaml"
    }  # fmt: skip
    found = {name.partition("/")[0] for name in rendered_here()}
    assert found == {"envoy", "cds", "lds", "rds", "eds", "eds-compose", "sds", "login"}


def test_endpoints_are_those_of_the_repository() -> None:
    layout = Layout(ROOT, ROOT / "policies", MESH, logins=logins(MESH))
    for name, content in render_all(MESH, modes_of(read_engine(layout)), rendering(layout)).items():
        if name.startswith("eds-compose/") and name != f"eds-compose/{OTLP_CLUSTER}.yaml":  # only here is a collector
            assert content == (ROOT / "envoy-configs" / name).read_bytes(), name


def test_description_and_traffic_rules_are_joined_for_the_servers() -> None:
    renderer = mounts(SERVICES["configuration"])
    assert renderer["/mesh/traffic"].endswith(":ro")
    assert any("-./traffic}" in volume for volume in SERVICES["configuration"]["volumes"])
    directory = IN_FORCE.partition("/")[0]
    assert renderer[f"/mesh/{directory}"] == directory
    for name in ("authz-0", "authz-1"):
        assert dict(pairwise(SERVICES[name]["command"]))["--mesh"] == IN_FORCE
        assert mounts(SERVICES[name])[f"/mesh/{directory}"] == f"{directory}:ro"
        assert SERVICES[name]["depends_on"]["configuration"] == {"condition": "service_healthy"}


def test_one_replica_counts_for_all_proxies_where_they_ask_and_in_a_store_of_its_own() -> None:
    counting = {name for name, service in SERVICES.items() if "--rate-limits" in service.get("command", ())}
    assert counting == {"authz-0"}
    quota = (ROOT / "traffic/examples/orders-quota.yaml.off").read_bytes()
    mesh, problems = read_mesh_description([("mesh.yaml", TEXT), ("quota.yaml", quota)])
    assert not problems
    files = render_all(mesh, options=RenderOptions(logins=logins(mesh)))
    asked = re.findall(r"path: (\S+)", files["eds-compose/limits.yaml"].decode())
    told = dict(pairwise(SERVICES["authz-0"]["command"]))
    assert asked == [told["--rate-limits"].replace("unix:run/", "run/authz/")]
    assert told["--rate-limit-store"] == f"redis://{LOOPBACK}:{LIMITS_PORT}/0"
    store = SERVICES["limits"]
    assert store["network_mode"] == SERVICES["authz-0"]["network_mode"]
    listening = dict(pairwise(store["command"]))
    assert (listening["--port"], listening["--bind"], listening["--save"]) == (str(LIMITS_PORT), LOOPBACK, "")


def test_the_settings_of_evidence_are_those_of_the_process_demo() -> None:
    for name in ("authz-0", "authz-1"):
        command = SERVICES[name]["command"]
        first = command.index("--peer-certificate")
        assert tuple(command[first : first + 6]) == Layout(ROOT, ROOT, MESH).evidence


def test_the_mesh_has_no_way_out_but_the_egress_gateway() -> None:
    assert COMPOSE["networks"]["mesh"]["internal"] is True
    on = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert {name for name, networks in on.items() if "outside" in networks} == {"egressgateway", "outside"}
    assert {name for name, networks in on.items() if "front" in networks} == {"ingressgateway"}
    assert {name for name, networks in on.items() if "login" in networks} == {"ingressgateway", "control"}
    assert COMPOSE["networks"]["login"]["internal"] is True
    assert {name for name, networks in on.items() if {"mesh", "control"} <= networks} == set()


def test_only_the_front_door_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.pop("ingressgateway") == ["15443:15443"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


# --- the override file and the check's -------------------------------------------------------------------------------

OVERRIDE: dict[str, dict[str, Any]] = read_yaml((ROOT / MORE[0]).read_text())["services"]
CHECK: dict[str, dict[str, Any]] = read_yaml((ROOT / MORE[1]).read_text())["services"]


@pytest.mark.parametrize("name", [name for name in OVERRIDE if "istio" in str(OVERRIDE[name].get("image"))])
def test_an_application_that_listens_on_every_address_is_fenced_in_first(name: str) -> None:
    workload = name.removesuffix("-app")
    fence = OVERRIDE[f"{workload}-fence"]
    assert fence["network_mode"] == f"service:{workload}"
    assert OVERRIDE[name]["depends_on"] == {f"{workload}-fence": {"condition": "service_completed_successfully"}}
    assert OVERRIDE[name]["user"].partition(":")[0] != SERVICES[f"{workload}-proxy"]["user"].partition(":")[0]
    rules = (ROOT / "docs/compose/fence/fence.nft").read_text()
    assert "meta skuid $proxy accept" in rules
    assert f"proxy={user(f'{workload}-proxy')}" in fence["command"]
    outbound = {port.host.partition(".")[0]: port.number for port in MESH.workload(workload).outbound if port.host}
    for service, address in (("details", "127.0.1.1"), ("reviews", "127.0.1.2"), ("ratings", "127.0.1.3")):
        port = outbound.get(service, 1)
        assert f"{service}={port}" in fence["command"], "the name leads to another port than the sidecar's"
        assert f"ip daddr {address} tcp dport 9080 dnat to 127.0.0.1:${service}" in rules
        if service in outbound:
            assert f"{service}:{address}" in OVERRIDE[workload]["extra_hosts"]


def test_the_policy_for_keycloak_is_ours_as_the_demo_rewrites_it() -> None:
    ours = (ROOT / "policies/10-ingress.yaml").read_text()
    _, _, theirs = (ROOT / "docs/compose/keycloak/10-ingress.yaml").read_text().partition("\n")
    assert theirs == for_keycloak(ours, *issuer_urls())


def test_the_realm_has_the_people_of_our_issuer() -> None:
    realm = json.loads((ROOT / "docs/compose/keycloak/realm.json").read_text())
    people = {user["username"]: user for user in realm["users"]}
    assert set(people) == set(PEOPLE) - {"jason"}  # rules of traffic are not tried there
    for name in people:
        claims = PEOPLE[name]
        assert people[name]["realmRoles"] == claims["roles"]
        assert people[name]["attributes"]["role"] == [claims["role"]]
        assert f"{people[name]['firstName']} {people[name]['lastName']}" == claims["name"]
    told = {mapper["config"].get("claim.name", "aud") for mapper in realm["clients"][0]["protocolMappers"]}
    assert told == {"aud", "realm_access.roles", "role"}
    assert realm["clients"][0]["protocolMappers"][0]["config"]["included.custom.audience"] == AUDIENCE


def test_the_check_has_a_way_into_every_application_it_plays() -> None:
    sources = [ROOT / "authz/demo/checks" / name for name in ("mesh.py", "incidents.py")]
    asks = re.compile(r'from_app\(\s*"([^"]+)"|"(\S+-v\d)", (?:""|books)')
    used = {pair for path in sources for pair in asks.findall(path.read_text())}
    names = {part for pair in used for part in pair if part} | {PRODUCTPAGE, ASKS_RATINGS}
    assert {"details-v1", "reviews-v1", "productpage-v1"} <= names
    assert {f"{name}-relay" for name in names} <= set(CHECK)


# --- native enforcement ----------------------------------------------------------------------------------------------

NATIVE_FILE: dict[str, Any] = read_yaml((ROOT / MORE[2]).read_text())
NATIVE: dict[str, dict[str, Any]] = NATIVE_FILE["services"]
FOLLOWER = "authz-0"
SPEAKS_TCP = "ratingsdb-v1"
"""Its rules are network filters, in its listeners; nothing of it would be in a slot."""


def native(name: str) -> dict[str, Any]:
    """A service as Compose joins it: volumes by target, tables by key, anything else replaced."""
    base, over = SERVICES[name], NATIVE.get(name, {})
    volumes = {**mounts(base), **mounts(over)}
    joined = (
        base | over | {"volumes": [f"{s.split(':')[0]}:{t}{':ro' * s.endswith(':ro')}" for t, s in volumes.items()]}
    )
    return joined | {"depends_on": base.get("depends_on", {}) | over.get("depends_on", {})}


def native_holders(volume: str) -> dict[str, str]:
    """Service to how it has a volume: ``x`` or ``x:ro``."""
    return {
        name: source
        for name in SERVICES
        for source in mounts(native(name)).values()
        if source.partition(":")[0] == volume
    }


def test_native_enforcement_changes_services_and_adds_none() -> None:
    """Neither who they are nor what they may: only what they run, wait for and mount."""
    assert set(NATIVE) <= set(SERVICES)
    told = {key for service in NATIVE.values() for key in service}
    assert told == {"entrypoint", "command", "network_mode", "networks", "depends_on", "volumes"}
    assert {name for name, service in NATIVE.items() if "network_mode" in service} == {"configuration"}
    assert {name for name, service in NATIVE.items() if "networks" in service} == {"custom"}


def test_every_proxy_can_ask_the_external_authorizer_by_its_name() -> None:
    networks = NATIVE["custom"]["networks"]
    assert set(networks) == {"mesh"}, "proxies, and not the authorization server, are given a way to it"
    hosts = {provider.service.rpartition("/")[2] for provider in MESH.config.extension_providers}
    assert hosts == set(networks["mesh"]["aliases"])
    taken = {workload.compose_address for workload in MESH.workloads}
    assert networks["mesh"]["ipv4_address"] not in taken


def test_no_proxy_starts_before_its_filters_are_there() -> None:
    """Rendered once, with the issuer's keys: then the renderer is healthy, and then proxies start."""
    renderer = native("configuration")
    assert renderer["entrypoint"][-3:] == ["configuration", "--enforce", "native"]
    assert renderer["healthcheck"]["test"] == ["CMD", "test", "-e", "/tmp/ready"]
    assert renderer["depends_on"]["issuer"] == {"condition": "service_healthy"}
    assert renderer["network_mode"] == SERVICES["issuer"]["network_mode"], "the issuer is named by its loopback"
    for name in proxies():
        assert native(name)["depends_on"]["configuration"] == {"condition": "service_healthy"}, name


def test_filters_are_written_by_the_renderer_and_read_by_every_proxy() -> None:
    readers = dict.fromkeys([*proxies(), FOLLOWER], "ecds:ro")
    assert native_holders("ecds") == {"configuration": "ecds"} | readers
    for name in proxies():
        assert mounts(native(name))["/mesh/ecds"] == "ecds:ro"
    owner = re.search(r"uid=(\d+),gid=(\d+),mode=0750", NATIVE_FILE["volumes"]["ecds"]["driver_opts"]["o"])
    assert owner is not None
    assert owner.groups() == (user("configuration"), OURS)


def test_the_renderer_can_write_whatever_it_renders_and_proxies_get_the_addresses_of_containers() -> None:
    found = mounts(native("configuration"))
    assert {f"/mesh/{name.partition('/')[0]}" for name in native_files()} <= set(found)
    assert not any(source.endswith(":ro") for target, source in found.items() if target[6:] in DIRECTORIES)
    for name in proxies():
        assert mounts(native(name))["/mesh/eds"].partition(":")[0] == found["/mesh/eds-compose"]
    assert set(native_holders(found["/mesh/eds"])) == {"configuration"}, "somebody reads the other world's addresses"


@cache
def native_files() -> dict[str, bytes]:
    """What ``configuration`` writes, less the issuer's keys."""
    layout = Layout(ROOT, ROOT / "policies", MESH, secrets=Secrets.SDS, enforce=Enforce.NATIVE, logins=logins(MESH))
    engine = read_engine(layout)
    return render_all(MESH, modes_of(engine), rendering(layout), Native(engine))


def test_native_configuration_is_that_of_the_process_demo_byte_by_byte() -> None:
    layout = Layout(ROOT, ROOT / "policies", MESH, secrets=Secrets.SDS, enforce=Enforce.NATIVE, logins=logins(MESH))
    engine = read_engine(layout)
    processes = render_all(MESH, modes_of(engine), options(layout), Native(engine))
    assert {name for name, content in native_files().items() if content != processes[name]} == {
        f"{directory}/{cluster}.yaml" for directory in ("eds-compose", "eds") for cluster in ("authz", "otlp")
    } - {"eds/otlp.yaml"}
    assert {name.partition(".")[0] for name in native_files() if name.startswith("ecds/")} == {
        f"ecds/{workload.name}" for workload in MESH.workloads if workload.name != SPEAKS_TCP
    }


def test_one_replica_follows_the_access_logs_so_that_no_record_is_double() -> None:
    followers = {name for name in SERVICES if "--access-logs" in native(name).get("command", ())}
    assert followers == {FOLLOWER}
    told = dict(pairwise(native(FOLLOWER)["command"]))
    assert (told["--workers"], told["--access-logs"]) == ("1", "file:logs")
    assert mounts(native(FOLLOWER))["/mesh/logs"] == "logs:ro"
    kept = Path(told["--access-log-positions"])
    assert mounts(native(FOLLOWER))[f"/mesh/{kept.parent}"] in COMPOSE["volumes"]
    assert not COMPOSE["volumes"][str(kept.parent)], "gone with its container, and read again"


def test_a_refused_token_makes_the_renderer_fetch_its_keys() -> None:
    state = dict(pairwise(native(FOLLOWER)["command"]))["--access-log-state"]
    assert state == ".", "where the filters and the hints are"
    assert native_holders("hints") == {FOLLOWER: "hints", "configuration": "hints:ro"}
    assert all(mounts(native(name))["/mesh/hints"].startswith("hints") for name in (FOLLOWER, "configuration"))


def test_there_is_nothing_but_access_logs_where_they_are_followed() -> None:
    """A line of anything else would be counted as unreadable."""
    assert {name for name, source in native_holders("logs").items() if source == "logs"} == set(proxies())


def test_who_makes_the_records_asks_each_proxy_for_its_counters_and_nobody_else_does() -> None:
    where = dict(pairwise(native(FOLLOWER)["command"]))["--access-log-admin"]
    for name, workload in proxies().items():
        socket = f"/mesh/{where.removeprefix('unix:').format(proxy=workload.name)}"
        directory, _, file = socket.rpartition("/")
        assert f"run/{file}" in native_files()[f"envoy/{workload.name}.yaml"].decode()
        volume = f"run-{workload.name}"
        assert mounts(native(FOLLOWER))[directory] == f"{volume}:ro"
        assert native_holders(volume) == {name: volume, "ca": f"{volume}:ro", FOLLOWER: f"{volume}:ro"}


def test_replicas_differ_from_those_of_the_check_by_the_logs_and_the_evidence_alone() -> None:
    """An access log tells no certificate."""
    logs = ("--access-logs", "--access-log-positions", "--access-log-admin", "--access-log-state")
    for name in ("authz-0", "authz-1"):
        before, after = SERVICES[name]["command"], native(name)["command"]
        first = before.index("--peer-certificate")
        assert before[:first] + before[first + 6 :] == [
            part for index, part in enumerate(after) if part not in logs and after[index - 1] not in logs
        ]


# --- with Docker -----------------------------------------------------------------------------------------------------


def missing_for_a_real_run() -> str:
    """Why the containers cannot be started here; empty when they can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    try:
        subprocess.run(["docker", "info"], capture_output=True, check=True, timeout=30)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return "no Docker daemon answers"
    images = sorted({service["image"] for service in SERVICES.values()})
    found = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, check=False)
    return "" if not found.returncode else f"images are missing; get {', '.join(images)} first"


@pytest.mark.slow
@pytest.mark.envoy
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("enforce", list(Enforce))
def test_every_scenario_holds_among_containers(tmp_path: Path, enforce: Enforce) -> None:
    """With the image as it was built last."""
    if reason := missing_for_a_real_run():
        pytest.skip(reason)
    command = [sys.executable, "-m", "authz", "demo", "--check", "--compose", "--no-build", "--state", str(tmp_path)]
    command += ["--enforce", enforce]
    ran = subprocess.run([*command, "-o", "json"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert ran.stdout, ran.stderr
    told = json.loads(ran.stdout)
    assert [row for row in told["scenarios"] if not row["ok"]] == []
    assert told["passed"] >= 160
    assert {"Traffic", "Traffic, in figures"} <= {row["group"] for row in told["scenarios"]}


def test_the_image_is_built_of_everything_that_the_wheel_is_made_of() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], *wheel["shared-data"]}
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.M) for name in line.split()}
    seen = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    def has(names: set[str], wanted: str) -> bool:
        return any(wanted == name or wanted.startswith(f"{name}/") for name in names)

    assert [name for name in needed if not has(copied, name) or not has(seen, name)] == []
