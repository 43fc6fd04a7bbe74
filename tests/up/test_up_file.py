"""``up.yaml`` and the folder around it: read whole, every mistake with its place, before anything is started."""

import re
from pathlib import Path

import pytest

from authz.core.errors import LoadError
from authz.local.children import LocalError
from authz.mesh.nouns import MeshWorkload
from authz.starter.mesh_plan import StarterService, WantedMesh, make_plan
from authz.starter.written import written_files
from authz.up.invitation import invitation
from authz.up.own_commands import application, authorities, server
from authz.up.own_mesh import OwnMesh, make_state, read_own_mesh
from authz.up.up_file import UpFile, read_up_file

WANTED = WantedMesh(
    (StarterService("web", 8080), StarterService("user-data", 9000), StarterService("db", 5432, "tcp")),
    (("web", "user-data"), ("user-data", "db")),
    "web",
    runs=(("web", "python3 web.py"),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in written_files(make_plan(WANTED)).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def workload(own: OwnMesh, name: str) -> MeshWorkload:
    return own.mesh.workload(name)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_up_file(tmp_path / "up.yaml") == UpFile()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pages: 1", r"up\.yaml:1:1.*did you mean `page`"),
        ("page: none", r"up\.yaml:1:7.*expected a number"),
        ("page: 70000", r"up\.yaml:1:7.*too large"),
        ("run: [a]", r"up\.yaml:1:6.*expected run, a mapping"),
        ("run:\n  api: [a]", r"up\.yaml:2:8.*expected a text"),
        ("- a", r"up\.yaml:1:1.*expected up\.yaml, a mapping"),
        ("page: 1\n---\npage: 2", r"more than one document"),
        ("page: [", r"not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "up.yaml").write_text(text)
    with pytest.raises(LoadError) as raised:
        read_up_file(tmp_path / "up.yaml")
    assert any(re.search(told, str(problem).replace("\n", " ")) for problem in raised.value.problems)


def test_what_init_writes_can_be_started(folder: Path) -> None:
    own = read_own_mesh(folder, {"user-data": "python3 data.py"})
    assert own.run == {"web": "python3 web.py", "user-data": "python3 data.py"}
    assert (own.up.page, own.up.issuer, own.up.audience) == (15000, 15001, "default")
    ports = list(own.ports())
    assert {8080, 9000, 15000, 15001, 15443} <= set(ports), "those with a command are started, too"
    assert 5432 not in ports


def test_an_application_finds_its_port_and_those_that_it_calls(folder: Path) -> None:
    own = read_own_mesh(folder, {"user-data": "python3 data.py"})
    web, data = (application(own, workload(own, name)) for name in ("web", "user-data"))
    assert web.environment == {"PORT": "8080", "USER_DATA_URL": "http://127.0.0.1:15011"}
    assert data.environment == {"PORT": "9000", "DB_URL": "tcp://127.0.0.1:15013"}
    assert (web.directory, web.ready, web.arguments[-1]) == (folder, "tcp:8080", "python3 web.py")


def test_no_issuer_is_started_that_nobody_asked_for(folder: Path) -> None:
    assert [command.name for command in authorities(read_own_mesh(folder, {}))] == ["authority", "issuer"]
    (folder / "up.yaml").write_text("page: 15000\n")
    assert [command.name for command in authorities(read_own_mesh(folder, {}))] == ["authority"]


def test_everything_listens_on_loopback_or_a_socket(folder: Path) -> None:
    arguments = server(read_own_mesh(folder, {})).arguments
    assert "127.0.0.1:15000" in arguments
    assert "unix:run/authz-0.sock" in arguments


@pytest.mark.parametrize(
    ("missing", "runs", "told"),
    [
        ("mesh.yaml", {}, r"there is no `.*mesh\.yaml`: `authz init` makes a mesh"),
        ("", {"wep": "true"}, r"no workload `wep` to run a command for; did you mean `web`"),
        ("", {"ingressgateway": "true"}, r"no workload `ingressgateway` to run"),
    ],
)
def test_a_folder_that_is_no_mesh_is_refused(folder: Path, missing: str, runs: dict[str, str], told: str) -> None:
    if missing:
        (folder / missing).unlink()
    with pytest.raises(LocalError, match=told):
        read_own_mesh(folder, runs)


def test_a_mistake_in_the_description_is_told_with_its_place(folder: Path) -> None:
    (folder / "mesh.yaml").write_text((folder / "mesh.yaml").read_text().replace("defaultEndpoint", "defaultEndpont"))
    with pytest.raises(LoadError) as raised:
        read_own_mesh(folder, {})
    assert any("did you mean `defaultEndpoint`" in str(problem) for problem in raised.value.problems)


def test_the_state_is_for_its_owner_and_authorities_are_kept(folder: Path) -> None:
    own = read_own_mesh(folder, {})
    make_state(own, 1_800_000_000.0)
    bundles = own.web_bundle.read_bytes(), (own.state / "ca" / "bundle.pem").read_bytes()
    make_state(own, 1_800_000_100.0)
    assert (own.web_bundle.read_bytes(), (own.state / "ca" / "bundle.pem").read_bytes()) == bundles
    assert own.state.stat().st_mode & 0o777 == 0o700
    assert (own.state / "certs/ingress/tls.key").stat().st_mode & 0o777 == 0o600
    assert "spiffe://cluster.local/ns/default/sa/user-data" in (own.state / "entries.yaml").read_text()


def test_the_invitation_names_every_address(folder: Path) -> None:
    told = invitation(read_own_mesh(folder, {}))
    for part in (
        "https://localhost:15443/",
        "web listens on 8080, its proxy on 15010, reaches user-data at 15011",
        "http://127.0.0.1:15001/token/alice",
        "curl -i http://127.0.0.1:15011/",
        "http://127.0.0.1:15000/",
    ):
        assert part in told
    assert "curl -i http://127.0.0.1:15013/" not in told, "nobody asks a database by HTTP"
