"""``authz init``: what it writes passes every command that looks at it, and it spoils nothing that is there."""

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run

TWO = ("--service", "web:8080", "--service", "api:9000", "--call", "web:api", "--ingress", "web")
MESHES = {
    "two services": TWO,
    "one service, nobody calls": ("--service", "api:9000"),
    "one service behind a gateway": ("--service", "api:9000", "--ingress", "api"),
    "an issuer of one's own": (
        *(*TWO, "--jwt-issuer", "https://idp.example/realms/shop", "--jwt-audience", "shop: 1"),
        *("--namespace", "shop", "--trust-domain", "shop.example"),
    ),
    "keys elsewhere": (*TWO, "--jwt-issuer", "https://idp.example", "--jwks-uri", "https://keys.example/jwks"),
    "every protocol": (
        *("--service", "web:8080", "--service", "api:9000/grpc", "--service", "db:5432/tcp", "--ingress", "web"),
        *("--service", "cache:6379/tcp", "--service", "pages:8081/http2", "--call", "web:api", "--call", "web:pages"),
        *("--call", "api:db", "--call", "web:cache", "--call", "api:cache"),
    ),
    "names that YAML takes for something else": (
        *(
            "--service",
            "on:8080",
            "--service",
            "y:8081",
            "--service",
            "null:8082",
            "--call",
            "on:y",
            "--call",
            "y:null",
        ),
        *("--ingress", "on", "--namespace", "true"),
    ),
    "a circle": ("--service", "a:8080", "--service", "b:8081", "--call", "a:b", "--call", "b:a", "--call", "a:b"),
    "ports among those of the proxies": (
        *("--service", "a:15000", "--service", "b:15010", "--service", "c:15443", "--call", "a:b", "--ingress", "c"),
    ),
}


@pytest.mark.parametrize("arguments", MESHES.values(), ids=MESHES)
def test_what_it_writes_passes_validate_test_and_analyze_without_findings(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert run("init", "mine", *arguments).exit_code == 0
    has_edges = (tmp_path / "mine/policies/edges.yaml").exists()
    for command in (
        ("validate", "mine/policies", "--mesh", "mine/mesh.yaml", "--fail-on", "warning"),
        ("test", "mine/suite.yaml", *(("--coverage", "--threshold", "100") if has_edges else ())),
        ("prove", "mine/invariants.yaml"),
        ("analyze", "mine/policies", "--mesh", "mine/mesh.yaml"),
        ("mesh", "render", "--mesh", "mine/mesh.yaml", "--policies", "mine/policies", "--out", "state"),
    ):
        result = run(*command)
        assert result.exit_code == 0, (command, result.output)


@pytest.mark.parametrize("arguments", MESHES.values(), ids=MESHES)
def test_no_two_things_of_the_mesh_have_one_port(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run("init", ".", *arguments)
    up = yaml.safe_load((tmp_path / "up.yaml").read_text())
    ports = [up["page"], *([up["issuer"]] if "issuer" in up else [])]
    for document in yaml.safe_load_all((tmp_path / "mesh.yaml").read_text()):
        spec = document.get("spec", {})
        if document["kind"] == "Sidecar":
            ports += [port["port"]["number"] for port in (*spec["ingress"], *spec.get("egress", ()))]
            ports += [int(port["defaultEndpoint"].rpartition(":")[2]) for port in spec["ingress"]]
        if document["kind"] == "Gateway":
            ports += [server["port"]["number"] for server in spec["servers"]]
    assert sorted(ports) == sorted(set(ports))


def test_it_says_what_it_wrote_and_what_comes_next(run: Run, tmp_path: Path) -> None:
    result = run("init", "my mesh", *TWO)
    written = re.findall(r"^wrote  my mesh/(.*)$", result.stdout, re.MULTILINE)
    assert sorted(written) == sorted(
        str(path.relative_to(tmp_path / "my mesh")) for path in (tmp_path / "my mesh").rglob("*") if path.is_file()
    )
    assert "next   authz up 'my mesh'" in result.stdout
    assert os.access(tmp_path / "my mesh/run.sh", os.X_OK)


def test_nothing_is_written_over_unless_forced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/edges.yaml").write_text("mine\n")
    result = run("init", *TWO)
    assert result.exit_code == 1
    assert "policies/edges.yaml would be overwritten; name another folder, or overwrite them with --force" in (
        result.stderr
    )
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["edges.yaml"]
    assert run("init", *TWO, "--force").exit_code == 0
    assert "api-from-web" in (tmp_path / "policies/edges.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--service", "web"), "`web` is not NAME:PORT or NAME:PORT/PROTOCOL"),
        (("--service", "web:0"), "`web:0` is not NAME:PORT"),
        (("--service", "web:70000"), "`web:70000` is not NAME:PORT"),
        (("--service", "web:80/udp"), "`udp` is not one of http, http2, grpc, tcp"),
        (("--service", "Web:80"), "`Web` cannot be a service's name: lower-case letters"),
        (("--service", "ingressgateway:80"), "`ingressgateway` cannot be a service's name"),
        (("--service", "a-from-b:80"), "`a-from-b` cannot be a service's name"),
        (("--service", "a:80", "--service", "a:81"), "the service a is given twice"),
        (("--service", "a:80", "--service", "b:80"), "a and b cannot both listen on port 80"),
        (("--service", "a:80", "--call", "a"), "`a` is not CALLER:CALLED"),
        (("--service", "a:80", "--call", "a:a"), "from a service to itself"),
        (("--service", "orders:80", "--call", "orders:order"), "which is not a service; did you mean `orders`?"),
        (("--service", "a:80", "--call", "a:zz"), "`zz`, which is not a service; add it: --service zz:PORT"),
        (("--service", "a:80/tcp", "--ingress", "a"), "this service speaks TCP"),
        (("--service", "a:80", "--run", "a"), "`a` is not NAME=COMMAND"),
        (("--service", "a:80", "--run", "b=true"), "--run names `b`"),
        (("--service", "a:80", "--namespace", "istio-system"), "the namespace `istio-system`"),
        (("--service", "a:80", "--trust-domain", "A b"), "the trust domain `A b`"),
        (("--service", f"{'a' * 64}:80"), "at most 63"),
        (("--service", "a:80", "--ingress", "a", "--jwt-audience", "x\n---\nkind: y"), "one line of printable text"),
        (("--service", "a:80", "--ingress", "a", "--jwt-issuer", "idp"), "--jwt-issuer `idp` must be a URL"),
        (("--service", "a:80", "--ingress", "a", "--jwt-issuer", "https://a/*"), "without spaces, quotes or `*`"),
        (("--service", "a:80", "--ingress", "a", "--jwks-uri", "https://a/"), "the keys of --jwt-issuer"),
        (("--service", "a:80", "--jwt-issuer", "https://idp"), "say with --ingress which service"),
        (("--service", "a:80", "--first-port", "65000"), "--first-port 65000 must be between"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_do(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = run("init", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(run: Run) -> None:
    result = run("init", "--service", "A:80", "--call", "b:c", "--namespace", "X", "--ingress", "d")
    for told in ("`A` cannot", "names `b`", "names `c`", "--ingress names `d`", "the namespace `X`"):
        assert told in result.stderr


COMPOSE = """
services:
  web: {build: ., ports: ["${WEB:?say where}:80"], depends_on: [api]}
  api: {build: ., expose: ["9000"], depends_on: [db, worker]}
  db: {image: "postgres:16"}
  worker: {build: .}
"""


def test_a_compose_file_is_a_mesh(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("WEB=8080\n")
    result = run("init", "mine", "--from-compose", "compose.yaml", "--service", "worker:7000", "--call", "worker:db")
    assert result.exit_code == 0, result.output
    assert "note: api publishes no port: publish 127.0.0.1:9000:9000 for its proxy" in result.stderr
    edges = (tmp_path / "mine/policies/edges.yaml").read_text()
    assert re.findall(r"name: ([\w-]+-from-[\w-]+)", edges) == [
        *("web-from-ingress", "api-from-web", "db-from-api", "db-from-worker", "worker-from-api"),
    ]
    for command in (
        ("validate", "mine/policies", "--mesh", "mine/mesh.yaml", "--fail-on", "warning"),
        ("test", "mine/suite.yaml", "--coverage", "--threshold", "100"),
        ("analyze", "mine/policies", "--mesh", "mine/mesh.yaml"),
    ):
        assert run(*command).exit_code == 0, command


def test_a_mistake_in_a_compose_file_is_told_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    result = run("init", "mine", "--from-compose", "compose.yaml")
    assert result.exit_code == 1
    assert "compose.yaml:3:27:" in result.stderr
    assert "`${WEB:?say where}` has no value" in result.stderr
    assert not (tmp_path / "mine").exists()


def test_without_a_terminal_nothing_is_asked(run: Run) -> None:
    result = run("init", "mine")
    assert result.exit_code == 2
    assert "a mesh needs a service: for example --service web:8080" in result.stderr
