"""
The fleet in containers against the mesh it serves: who holds which key, who reaches whom, and commands that exist.

What only a Docker daemon can show is at the end, and skipped where there is none.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

from authz.cli import application
from authz.mesh.description import read_mesh_description
from authz.policy.reader import read_policies
from tests.yaml_text import read_yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.fleet.yaml"
COMPOSE = read_yaml(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FOLDER = ROOT / "docs" / "compose" / "fleet"
SCRIPT = FOLDER / "fleet.sh"
MESH, PROBLEMS = read_mesh_description([("mesh.yaml", (FOLDER / "mesh.yaml").read_bytes())])
NUMBERS = (1, 2, 3)
KEYS = {
    "root": {"certificates"},
    "operator": {"certificates", "operator"},
    "authority-1": {"certificates", "operator", "control-1"},
    "authority-2": {"certificates", "control-2"},
    "authority-3": {"certificates", "control-3"},
    **{f"truth-{n}": {"certificates", f"truth-{n}"} for n in NUMBERS},
    **{f"token-{role}": {"operator", f"{role}-certificate"} for role in ("web", "api")},
    **{role: {f"{role}-certificate", f"{role}-proxy"} for role in ("web", "api")},
}
"""Volumes with what nobody else may read: who mounts them."""


def mounts(name: str) -> dict[str, str]:
    """Source to target."""
    texts = [re.sub(r"\$\{[^}]*\}", "GIVEN", text) for text in SERVICES[name].get("volumes", ())]
    return {text.split(":")[0]: text.split(":")[1] for text in texts}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened_and_none_has_a_port_of_the_host(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "root"
    assert not {"privileged", "cap_add", "ports"} & set(service)
    assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", service["image"])
    assert "healthcheck" in service or (name, service["restart"]) == ("certificates", "no")


@pytest.mark.parametrize(("volume", "holders"), KEYS.items(), ids=KEYS)
def test_what_is_secret_is_given_only_to_those_who_need_it(volume: str, holders: set[str]) -> None:
    assert {name for name in SERVICES if volume in mounts(name)} == holders


def test_every_other_volume_has_nothing_secret() -> None:
    assert set(COMPOSE["volumes"]) - set(KEYS) == {"public", "kept-1", "kept-2", "kept-3"}


def test_directories_in_the_image_belong_to_those_who_write_there() -> None:
    """A new volume takes owner and mode from there."""
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    made = re.findall(r"install -d -o (\d+) -g 10001 -m 07[05]0 ([a-z0-9 -]+?)\s*(?:&&|\n)", dockerfile)
    owners = {f"/fleet/{directory}": owner for owner, names in made for directory in names.split()}
    for name, service in SERVICES.items():
        for text in service.get("volumes", ()):
            source, target, *mode = text.rsplit(":", 2) if text.endswith(":ro") else text.rsplit(":", 1)
            if source in COMPOSE["volumes"] and not mode:
                assert service["user"] == f"{owners[target]}:10001", f"{name}: {text}"


def test_proxies_do_not_reach_the_truth_and_nobody_has_a_way_out() -> None:
    on = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    members = {name for name, networks in on.items() if "truth" in networks}
    assert members == {"operator", *(f"{kind}-{n}" for kind in ("truth", "control") for n in NUMBERS)}
    assert {name for name, networks in on.items() if "fleet" in networks} == {
        "web", "api", *(f"control-{n}" for n in NUMBERS)
    }  # fmt: skip
    assert all(network["internal"] for network in COMPOSE["networks"].values())


def test_the_controls_differ_by_their_name_and_authority_alone() -> None:
    def same(n: int) -> str:
        told = shlex.join(SERVICES[f"control-{n}"]["command"]) + str(mounts(f"control-{n}"))
        return re.sub(rf"\b(control|authority|kept)-{n}\b", r"\1-N", told)

    assert same(1) == same(2) == same(3)
    told = dict(pairwise(SERVICES["control-1"]["command"]))
    assert told["--policies"] == told["--truth"] == told["--audit"] == SERVICES["operator"]["environment"]["TRUTH"]


def test_description_and_policies_are_those_of_the_containers() -> None:
    assert not PROBLEMS
    assert {w.name: w.address for w in MESH.workloads} == {
        f"{role}-v1": SERVICES[role]["networks"]["fleet"]["ipv4_address"] for role in ("web", "api")
    }
    for workload in MESH.workloads:
        role = workload.name.removesuffix("-v1")
        assert SERVICES[f"{role}-certificate"]["command"] == [workload.name, role]
        assert {SERVICES[f"{role}-{part}"]["network_mode"] for part in ("certificate", "proxy")} == {f"service:{role}"}
    policy = FOLDER / "policies" / "api.yaml"
    assert not read_policies([(policy.name, policy.read_bytes())], MESH.config).problems


def calls() -> Iterator[list[str]]:
    """Every call of ``authz``, by the containers and by their script, after its name."""
    for service in SERVICES.values():
        if service["image"].startswith("authz:") and "entrypoint" not in service:
            yield service["command"]
    for line in SCRIPT.read_text().replace("\\\n", " ").splitlines():
        found = None if line.startswith("#") else re.search(r"\bauthz ((?:ca|truth|bundle|policies|mesh) [^>|]*)", line)
        if found is not None:
            yield shlex.split(found[1], comments=True)


def test_every_call_names_commands_and_options_that_exist() -> None:
    found = list(calls())
    assert len(found) >= 3 + 11
    for words in found:
        command: click.Command | None = application
        assert isinstance(command, click.Group)
        context = click.Context(command)
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.get_command(context, rest.pop(0))
        assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in rest if word.startswith("-") and word not in known] == [], words


def test_the_script_is_one_for_a_plain_shell_and_nothing_secret_is_written_down() -> None:
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True, timeout=10)
    functions = set(re.findall(r"^(\w+)\(\) \{", SCRIPT.read_text(), re.MULTILINE))
    assert {s["entrypoint"][2] for s in SERVICES.values() if "/fleet/fleet.sh" in s.get("entrypoint", ())} == functions
    for file in (FILE, *FOLDER.rglob("*.*")):
        assert not re.search(r"PRIVATE KEY|password|secret:", file.read_text(), re.IGNORECASE), file


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
    found = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, check=False, timeout=30)
    return "" if not found.returncode else f"images are missing; get {', '.join(images)} first"


def compose(*arguments: str) -> str:
    """Compose v2, else the older program, with the file as it is."""
    has_two = not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    program = ["docker", "compose"] if has_two else ["docker-compose"]
    command = [*program, "-p", "authz-test-fleet", "-f", str(FILE), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.envoy
@pytest.mark.timeout(900)
def test_everybody_is_current_and_a_push_without_a_server_and_a_control_reaches_all() -> None:
    """With the image as it was built last."""
    if reason := missing_for_a_real_run():
        pytest.skip(reason)
    known = "--truth $TRUTH $CERTIFICATE"
    push = f"authz policies push /tmp/new --mesh mesh.yaml {known} --key operator/keys/bundle.key -m more --wait 60"

    def typed(command: str) -> str:
        return compose("exec", "-T", "operator", "sh", "-c", command)

    def answers(method: str) -> str:
        return compose("exec", "-T", "web", "python", "ask.py", method).strip()

    try:
        compose("up", "-d", "--no-build")
        status = json.loads(typed(f"for n in 1 2 3 4 5 6; do authz fleet status {known} && break; sleep 5; done >&2;"
                                  f"authz fleet status {known} -o json"))  # fmt: skip
        assert [len(status["replicas"]), len(status["proxies"]), status["lagging"]] == [3, 2, []]
        assert [answers("GET"), answers("POST")] == ["200", "403"]
        typed("for n in 1 2 3 4 5 6; do authz audit since 1h --effect deny --log $TRUTH $CERTIFICATE"
              " | grep -q POST && break; sleep 5; done; [ $n -lt 6 ]")  # fmt: skip
        compose("stop", "control-1")  # before its server: another may take longer to lead than a farewell may
        compose("stop", "truth-1")
        typed(f"mkdir /tmp/new && sed 's/GET/GET, POST/' policies/api.yaml > /tmp/new/api.yaml && {push}")
        assert [answers("GET"), answers("POST")] == ["200", "501"], "501: the web server cannot write"
        compose("up", "-d", "--no-build")  # again: nothing is made twice
        typed(f"authz fleet status {known} --older-than 60s")
    finally:
        compose("down", "-v", "-t", "2")
