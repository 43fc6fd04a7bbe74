"""
The compose file against the mesh it claims to be: hardening, addresses, and who is given which key.

What only a Docker daemon can show is at the end, and skipped where there is none.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.demo.containers import rendered
from authz.demo.issuer import AUDIENCE, PEOPLE
from authz.demo.layout import Layout
from authz.demo.prepare import options, read_engine
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.mesh.render import modes_of, render_all

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXT = (ROOT / "envoy-configs" / "mesh.yaml").read_bytes()
MESH: Mesh = read_mesh_description([("mesh.yaml", TEXT)])[0]
MORE = ("docker-compose.override.example.yaml", "docs/compose/check.yaml")
CERTIFICATES = "certificates"
"""The one service that writes keys."""
KEYS = {"ingressgateway": {"ingressgateway", "bookinfo-web"}, "outside": {"outside-server"}}
"""Who reads keys besides the sidecars, which read their own."""


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
        for name, service in yaml.safe_load((ROOT / file).read_text())["services"].items():
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
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert bases == ["python:3.11-slim-bookworm"] * 2
    assert re.findall(r"^USER (\S+)", text, re.M) == ["10001:10001"]
    assert 'ENTRYPOINT ["authz"]' in text


@pytest.mark.parametrize("workload", MESH.sidecars, ids=lambda w: w.name)
def test_every_workload_has_application_and_sidecar_on_one_address(workload: MeshWorkload) -> None:
    pod = SERVICES[workload.name]
    assert pod["networks"] == {"mesh": {"ipv4_address": workload.compose_address}}
    for part in ("app", "proxy"):
        assert SERVICES[f"{workload.name}-{part}"]["network_mode"] == f"service:{workload.name}"
    assert SERVICES[f"{workload.name}-app"]["user"] != SERVICES[f"{workload.name}-proxy"]["user"]
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
        assert source.endswith(":ro") or target == "/mesh/logs", f"{name} could change {target}"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_private_keys_are_given_only_to_those_who_need_them(name: str) -> None:
    if name == CERTIFICATES:
        return
    workload = proxies().get(name)
    own = KEYS.get(name, {workload.name} if workload else set())
    found = {target.rpartition("/")[2] for target in mounts(SERVICES[name]) if target.startswith("/mesh/certs/")}
    public = {"roots", "outside", "web"}
    assert found - public == own
    assert not {"ca", "ca-web", "ca-outside"} & {source.partition(":")[0] for source in mounts(SERVICES[name]).values()}


def test_keys_and_sockets_are_in_memory() -> None:
    for name, volume in COMPOSE["volumes"].items():
        if name.startswith("certs-") or name == "authz":
            assert volume["driver_opts"]["type"] == "tmpfs"
            assert "mode=0700" in volume["driver_opts"]["o"]


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


def test_only_endpoint_files_differ_from_those_of_the_process_demo() -> None:
    """Byte by byte (XA-190)."""
    layout = Layout(ROOT, ROOT / "policies", MESH)
    engine = read_engine(layout)
    processes, containers = render_all(MESH, modes_of(engine), options(layout)), rendered(layout, engine)
    for name, content in containers.items():
        if not name.startswith("eds/"):
            assert content == processes[name], name
    assert {name.partition("/")[0] for name in containers} == {"envoy", "lds", "eds", "sds"}


def test_endpoints_are_those_of_the_repository() -> None:
    layout = Layout(ROOT, ROOT / "policies", MESH, tracing=False)
    for name, content in rendered(layout, read_engine(layout)).items():
        if name.startswith("eds/"):
            assert content == (ROOT / "envoy-configs" / name.replace("eds/", "eds-compose/")).read_bytes(), name


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
    assert {name for name, networks in on.items() if {"mesh", "control"} <= networks} == set()


def test_only_the_front_door_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.pop("ingressgateway") == ["15443:15443"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


# --- the override file and the check's -------------------------------------------------------------------------------

OVERRIDE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / MORE[0]).read_text())["services"]
CHECK: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / MORE[1]).read_text())["services"]


@pytest.mark.parametrize("name", [name for name in OVERRIDE if "istio" in str(OVERRIDE[name].get("image"))])
def test_an_application_that_listens_on_every_address_is_fenced_in_first(name: str) -> None:
    workload = name.removesuffix("-app")
    fence = OVERRIDE[f"{workload}-fence"]
    assert fence["network_mode"] == f"service:{workload}"
    assert OVERRIDE[name]["depends_on"] == {f"{workload}-fence": {"condition": "service_completed_successfully"}}
    assert OVERRIDE[name]["user"].partition(":")[0] != SERVICES[f"{workload}-proxy"]["user"].partition(":")[0]
    rules = (ROOT / "docs/compose/fence/fence.nft").read_text()
    assert f"meta skuid {SERVICES[f'{workload}-proxy']['user'].partition(':')[0]} accept" in rules
    outbound = {port.host.partition(".")[0]: port.number for port in MESH.workload(workload).outbound if port.host}
    for service, address in (("details", "127.0.1.1"), ("reviews", "127.0.1.2"), ("ratings", "127.0.1.3")):
        port = outbound.get(service, 1)
        assert f"{service}={port}" in fence["command"], "the name leads to another port than the sidecar's"
        assert f"ip daddr {address} tcp dport 9080 dnat to 127.0.0.1:${service}" in rules
        if service in outbound:
            assert f"{service}:{address}" in OVERRIDE[workload]["extra_hosts"]


def test_the_policy_for_keycloak_differs_in_its_issuer_only() -> None:
    ours = (ROOT / "policies/10-ingress.yaml").read_text().splitlines()
    _, *theirs = (ROOT / "docs/compose/keycloak/10-ingress.yaml").read_text().splitlines()
    changed = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if mine != other]
    assert [(mine.split()[2], other.split()[2]) for mine, other in changed] == [
        ("http://127.0.0.1:19191", "http://127.0.0.1:19191/realms/bookinfo")
    ]


def test_the_realm_has_the_people_of_our_issuer() -> None:
    realm = json.loads((ROOT / "docs/compose/keycloak/realm.json").read_text())
    people = {user["username"]: user for user in realm["users"]}
    assert set(people) == set(PEOPLE)
    for name, claims in PEOPLE.items():
        assert people[name]["realmRoles"] == claims["roles"]
        assert people[name]["attributes"]["role"] == [claims["role"]]
        assert f"{people[name]['firstName']} {people[name]['lastName']}" == claims["name"]
    told = {mapper["config"].get("claim.name", "aud") for mapper in realm["clients"][0]["protocolMappers"]}
    assert told == {"aud", "roles", "role"}
    assert realm["clients"][0]["protocolMappers"][0]["config"]["included.custom.audience"] == AUDIENCE


def test_the_check_has_a_way_into_every_application_it_plays() -> None:
    sources = [ROOT / "authz/demo/checks" / name for name in ("mesh.py", "incidents.py")]
    asks = re.compile(r'from_app\(\s*"([^"]+)"|"(\S+-v\d)", (?:""|books)')
    used = {pair for path in sources for pair in asks.findall(path.read_text())}
    names = {part for pair in used for part in pair if part}
    assert {"details-v1", "reviews-v1", "productpage-v1"} <= names
    assert {f"{name}-relay" for name in names} <= set(CHECK)


# --- with Docker -----------------------------------------------------------------------------------------------------


def missing_for_a_real_run() -> str:
    """Why the containers cannot be started here; empty when they can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker daemon answers"
    images = sorted({service["image"] for service in SERVICES.values()})
    found = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, check=False)
    return "" if not found.returncode else f"images are missing; get {', '.join(images)} first"


@pytest.mark.slow
@pytest.mark.envoy
def test_every_scenario_holds_among_containers(tmp_path: Path) -> None:
    """With the image as it was built last."""
    if reason := missing_for_a_real_run():
        pytest.skip(reason)
    command = [sys.executable, "-m", "authz", "demo", "--check", "--compose", "--no-build", "--state", str(tmp_path)]
    ran = subprocess.run([*command, "-o", "json"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert ran.stdout, ran.stderr
    told = json.loads(ran.stdout)
    assert [row for row in told["scenarios"] if not row["ok"]] == []
    assert told["passed"] >= 100
