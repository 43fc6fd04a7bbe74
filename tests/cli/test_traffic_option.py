"""``--traffic``: commands read a mesh description that is spread over a folder as they read one file."""

from pathlib import Path

import pytest

from authz.cli import application
from tests.cli.conftest import Run
from tests.cli.test_check import ROUTED
from tests.cli.test_replay import write_trail

SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: shop.example"}
"""
INVARIANTS = """\
format: 1
policyFiles: [policies]
invariants:
- id: nobody-deletes
  never: {to: {name: cart-v1}, when: {method: DELETE, tls: mtls}}
"""
AT = ("--mesh", "services.yaml", "--traffic", "more")
COMMANDS = {
    "diff": ("diff", "policies", "none", *AT),
    "diff of two": ("diff", "policies", "policies", *AT, "--new-mesh", "services.yaml", "--new-traffic", "more"),
    "who-can": ("who-can", "-p", "policies", *AT, "--to", "cart-v1"),
    "who-can --from": ("who-can", "-p", "policies", *AT, "--from", "web-v1", "--to", "cart-v1"),
    "who-can --matrix": ("who-can", "-p", "policies", *AT, "--matrix"),
    "verify": ("verify", "-p", "policies", *AT, "--to", "nobody"),
    "compile": ("compile", "--policies", "policies", *AT, "--to", "cart-v1"),
    "prove": ("prove", "invariants.yaml", *AT),
    "replay": ("replay", "audit.jsonl", "-p", "policies", *AT, "-o", "json"),
    "generate": ("generate", "audit.jsonl", *AT),
    "check": ("check", "-p", "policies", *AT, "--to", "cart-v1", "--from", "web-v1", "--path", "/cart/7"),
    "analyze": ("analyze", "policies", *AT),
}  # fmt: skip
"""Each with the description in a folder; ``whole`` puts one file in its place."""


@pytest.fixture
def spread(policies: Path, tmp_path: Path) -> Path:
    """One mesh twice: in ``mesh.yaml``, and in ``services.yaml`` with the rest, settings too, below ``more``."""
    documents = [SETTINGS, *(one for one in ROUTED.split("---\n") if "kind: ConfigMap" not in one)]
    documents = [one.replace("cart, labels: {", "cart, labels: {tier: back, ") for one in documents]
    (tmp_path / "mesh.yaml").write_text("---\n".join(documents))
    services = [one for one in documents if "kind: ServiceEntry" in one]
    (tmp_path / "services.yaml").write_text("---\n".join(services))
    (tmp_path / "more" / "routes").mkdir(parents=True)
    for number, one in enumerate(one for one in documents if one not in services):
        (tmp_path / "more" / "routes" / f"{number}.yaml").write_text(one)
    (tmp_path / "none").mkdir()
    (tmp_path / "invariants.yaml").write_text(INVARIANTS)
    write_trail(tmp_path / "audit.jsonl", policies)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_description_in_a_folder_means_what_one_file_means(run: Run, spread: Path, name: str) -> None:
    asked = COMMANDS[name]
    whole = [part for part in asked if part not in ("--traffic", "--new-traffic", "more")]
    whole = ["mesh.yaml" if part == "services.yaml" else part for part in whole]
    apart, together = run(*asked), run(*whole)
    assert apart.exit_code == together.exit_code, apart.output
    if name == "analyze":  # which names the files of what it finds
        assert apart.stdout.splitlines()[-1] == together.stdout.splitlines()[-1]
        return
    settings = next(file for file in spread.glob("more/**/*.yaml") if "ConfigMap" in file.read_text())
    said = apart.output.replace(str(settings.relative_to(spread)), "mesh.yaml")
    assert said == together.output
    alone = run(*(part for part in asked if part not in ("--traffic", "--new-traffic", "more")))
    assert alone.output != together.output, "the folder changes nothing here"


def test_a_file_that_only_speaks_of_settings_does_not_hold_them(run: Run, spread: Path) -> None:
    """Else Istio's defaults would count, another trust domain among them."""
    said = run(*COMMANDS["who-can"]).output
    services = spread / "services.yaml"
    services.write_text("# The ConfigMap with the settings is in another file.\n" + services.read_text())
    assert run(*COMMANDS["who-can"]).output == said


def test_the_doctor_looks_at_the_folder_too(run: Run, spread: Path) -> None:
    (spread / "more" / "routes" / "0.yaml").chmod(0o666)
    result = run("doctor", "-p", "policies", *AT)
    assert "0.yaml (--traffic)" in result.stdout, result.output
    assert "cart-v1" in result.stdout, "whose ports PeerAuthentication is about"


TAKING = ("analyze", "check", "diff", "doctor", "explain", "generate", "prove", "replay", "who-can")


@pytest.mark.parametrize("name", TAKING)
def test_a_folder_without_a_description_is_refused(run: Run, spread: Path, name: str) -> None:
    """Nobody would notice that it was not looked at."""
    asked = {
        "analyze": ("policies",), "diff": ("policies", "policies"), "generate": ("audit.jsonl",),
        "prove": ("invariants.yaml",), "replay": ("audit.jsonl", "-p", "policies"),
    }.get(name, ("-p", "policies"))  # fmt: skip
    result = run(name, *asked, "--traffic", "more")
    assert result.exit_code == 2, result.output
    assert "--traffic is read together with --mesh" in result.output


def test_every_command_has_the_same_option() -> None:
    texts = set()
    for name in (*TAKING, "compile", "verify"):
        command = application.get_command(None, name)  # type: ignore[arg-type]  # no context is needed to look it up
        assert command is not None
        (option,) = [one for one in command.params if one.name == "traffic"]
        texts.add(option.to_info_dict()["help"].removesuffix(" Also at a git revision."))
    assert len(texts) == 1


def test_what_misleads_in_routes_of_the_folder_is_a_finding(run: Run, spread: Path) -> None:
    behind = "  - name: late\n    route: [{destination: {host: cart}}]\n"
    (routes,) = [file for file in spread.glob("more/**/*.yaml") if "kind: VirtualService" in file.read_text()]
    routes.write_text(routes.read_text() + behind + behind)
    result = run("analyze", "policies", *AT)
    assert result.exit_code == 3, result.output
    assert "warning: spec.http[4]: no request takes this route: what stands at more/routes/" in result.output
