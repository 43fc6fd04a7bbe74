"""
A real Keycloak as the demo's issuer: the whole demo with it, and what is said where it or Java is missing.

`make keycloak` downloads it and runs these tests; elsewhere those that need it are skipped.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.demo.checks.runner import all_scenarios
from authz.demo.commands import all_commands
from authz.demo.inputs import CHECKOUT
from authz.demo.keycloak import (
    DOWNLOADED,
    REALM,
    find_java,
    find_keycloak,
    for_keycloak,
    lay_keycloak,
)
from authz.demo.layout import DemoError, Layout, issuer_urls, ports_of
from authz.demo.prepare import plan
from authz.demo.screen import invitation
from authz.local.busy import busy_ports

ROOT = Path(__file__).parent.parent.parent
MESH = ROOT / "envoy-configs" / "mesh.yaml"
LONGEST_SECONDS = 900


def why_not() -> str:
    """Why no Keycloak can be started here; empty when one can."""
    try:
        find_keycloak(None, ROOT, ROOT)
        find_java()
    except DemoError as error:
        return str(error)
    return ""


needs_keycloak = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """As much of an unpacked Keycloak as finding it takes."""
    folder = tmp_path / "unpacked"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "quarkus-run.jar").touch()
    return folder


@pytest.fixture
def java(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A ``java`` that tells this version, as an environment."""

    def make(version: str) -> dict[str, str]:
        program = tmp_path / "jdk" / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        program.chmod(0o755)
        return {"JAVA_HOME": str(tmp_path / "jdk"), "PATH": "/usr/bin:/bin"}

    return make


def planned(tmp_path: Path, keycloak: Path, offset: int = 0) -> Layout:
    return plan(tmp_path / "state", ROOT / "policies", MESH, offset=offset, keycloak=keycloak)


# --- found, or not -----------------------------------------------------------------------------------------------


def test_what_make_keycloak_left_is_found_here_and_in_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "here" / DOWNLOADED.parent).mkdir(parents=True)
    (tmp_path / "here" / DOWNLOADED).symlink_to(unpacked)
    assert find_keycloak(None, tmp_path / "here", tmp_path) == tmp_path / "here" / DOWNLOADED
    assert find_keycloak(None, tmp_path, tmp_path / "here") == tmp_path / "here" / DOWNLOADED


def test_one_that_is_named_is_taken(unpacked: Path, tmp_path: Path) -> None:
    assert find_keycloak(unpacked, tmp_path, tmp_path) == unpacked


def test_without_one_both_ways_to_have_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="run `make keycloak` in a checkout, or name an unpacked one with --keycloak"):
        find_keycloak(None, tmp_path, tmp_path)


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"is no unpacked Keycloak.*holds bin/kc\.sh"):
        find_keycloak(tmp_path, tmp_path, tmp_path)


@pytest.mark.parametrize("version", ["17.0.15", "25", "21.0.1+12-LTS"])
def test_a_java_that_is_new_enough_is_found(version: str, java: Callable[[str], dict[str, str]]) -> None:
    environment = java(version)
    assert find_java(environment) == f"{environment['JAVA_HOME']}/bin/java"


@pytest.mark.parametrize(("version", "told"), [("11.0.2", "is 11"), ("1.8.0_402", "is 8")])
def test_an_older_java_is_told(version: str, told: str, java: Callable[[str], dict[str, str]]) -> None:
    with pytest.raises(DemoError, match=f"Java 17 or newer, .* {told}; set JAVA_HOME"):
        find_java(java(version))


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"PATH": "/nowhere"}, "there is no `java` on the PATH"), ({"JAVA_HOME": "/nowhere"}, "which has no bin/java")],
)
def test_no_java_is_told(environment: dict[str, str], told: str) -> None:
    with pytest.raises(DemoError, match=told):
        find_java(environment)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--keycloak", "."), "--keycloak needs --issuer keycloak"),
        (("--issuer", "keycloak", "--compose", "--check"), "docker-compose.override.example.yaml has Keycloak"),
    ],
)
def test_options_that_do_not_go_together_are_told(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run([sys.executable, "-m", "authz", "demo", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert told in done.stderr


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    arguments = ("--issuer", "keycloak", "--keycloak", str(tmp_path), "--state", str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-m", "authz", "demo", *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no unpacked Keycloak" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# --- laid out ----------------------------------------------------------------------------------------------------


def test_policies_are_for_its_issuer_and_its_roles() -> None:
    own, realm = issuer_urls()
    text = (
        f'# of {own}\n- issuer: {own}   # keys\n  requestPrincipals: ["{own}/*"]\n  - key: request.auth.claims[roles]\n'
    )
    assert for_keycloak(text, own, realm) == (
        f"# of {own}\n- issuer: {realm}   # keys\n"
        f'  requestPrincipals: ["{realm}/*"]\n  - key: request.auth.claims[realm_access][roles]\n'
    )


def test_an_issuer_whose_address_begins_like_ours_is_another() -> None:
    own, realm = issuer_urls()
    assert for_keycloak(f"- issuer: {own}0\n", own, realm) == f"- issuer: {own}0\n"


def test_the_users_policies_stay_as_they_are(unpacked: Path, tmp_path: Path) -> None:
    before = (ROOT / "policies/10-ingress.yaml").read_bytes()
    layout = planned(tmp_path, unpacked)
    assert layout.policies == layout.state / "policies"
    assert f"issuer: {layout.issuer_url} " in (layout.policies / "10-ingress.yaml").read_text()
    assert (ROOT / "policies/10-ingress.yaml").read_bytes() == before


def test_its_realm_follows_the_ports(unpacked: Path, tmp_path: Path) -> None:
    layout = planned(tmp_path, unpacked, 5000)
    realm = json.loads((layout.keycloak_home / "data/import/realm.json").read_text())
    assert realm["realm"] == REALM
    assert realm["clients"][0]["redirectUris"] == [f"https://localhost:{layout.ingress_port}/login"]
    assert layout.ingress_port == 20443


def test_a_start_begins_with_fresh_data_and_an_installation_untouched(unpacked: Path, tmp_path: Path) -> None:
    layout = planned(tmp_path, unpacked)
    password = layout.keycloak_password.read_text()
    (layout.keycloak_home / "data/h2").mkdir()
    lay_keycloak(layout)
    assert sorted(path.name for path in (layout.keycloak_home / "data").iterdir()) == ["import"]
    assert layout.keycloak_password.read_text() != password
    assert layout.keycloak_password.stat().st_mode & 0o777 == 0o600
    assert sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*")) == ["lib", "lib/quarkus-run.jar"]


@pytest.mark.skipif("java" in why_not().lower(), reason="needs Java")
def test_the_administrators_password_is_on_no_command_line(unpacked: Path, tmp_path: Path) -> None:
    layout = planned(tmp_path, unpacked)
    (command,) = (one for wave in all_commands(layout) for one in wave if one.name == "issuer")
    password = layout.keycloak_password.read_text()
    assert command.environment["KC_BOOTSTRAP_ADMIN_PASSWORD"] == password
    assert password not in " ".join(command.arguments)
    assert f"--http-host=127.0.0.1 --http-port={layout.issuer_port}" in " ".join(command.arguments)


def test_the_invitation_tells_how_to_have_a_token(unpacked: Path, tmp_path: Path) -> None:
    said = invitation(planned(tmp_path, unpacked))
    assert f"{issuer_urls()[1]}/protocol/openid-connect/token -d grant_type=password" in said
    assert "password in" in said


def test_only_scenarios_about_tokens_differ() -> None:
    own = {(one.group, one.name) for one in all_scenarios()}
    keycloak = {(one.group, one.name) for one in all_scenarios(has_keycloak=True)}
    assert {group for group, _ in own - keycloak} == {"Tokens at the ingress gateway", "Signing in with a browser"}
    assert {group for group, _ in keycloak - own} == {
        "Keycloak's tokens at the ingress gateway",
        "Keycloak while it runs",
    }


# --- run ---------------------------------------------------------------------------------------------------------


@needs_keycloak
@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("enforce", ["check", "native"])
def test_every_scenario_holds_with_a_real_keycloak(tmp_path: Path, enforce: str) -> None:
    layout = next(
        found
        for offset in range(2000, 10000, 100)
        if not busy_ports(ports_of((found := planned(tmp_path, CHECKOUT / DOWNLOADED, offset)).mesh, offset))
    )
    command = ("demo", "--issuer", "keycloak", "--check", "-o", "json", "--enforce", enforce)
    where = ("--state", str(layout.state), "--port-offset", str(layout.offset))
    pattern = ("--run", "keycloak") if enforce == "native" else ()
    done = subprocess.run(
        [sys.executable, "-m", "authz", *command, *where, *pattern, "--policies", "policies", "--mesh", str(MESH)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.stdout, done.stderr
    scenarios = json.loads(done.stdout)["scenarios"]
    assert [one for one in scenarios if not one["ok"]] == []
    assert len(scenarios) >= (15 if pattern else 130)
    assert done.returncode == 0
