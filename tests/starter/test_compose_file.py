"""Services of compose files: what is taken, what is guessed, and what is said about the rest."""

import re
from pathlib import Path

import pytest

from authz.core.errors import LoadError
from authz.starter.compose_file import ComposeMesh, read_compose, read_variables
from authz.starter.mesh_plan import StarterService, WantedMesh, make_plan
from authz.starter.written import written_files

ROOT = Path(__file__).parent.parent.parent
SHOP = """
x-common: &common
  networks: [back]
services:
  web_front:
    <<: *common
    ports: ["${WEB_PORT:-8080}:80", "9443:443"]
    networks: [front, back]
    depends_on:
      api: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  api:
    <<: *common
    expose: [8000]
    depends_on: [db, cache, metrics, gone]
  db: {<<: *common, image: "postgres:16"}
  cache: {<<: *common, image: docker.io/library/redis, ports: [{target: 6379, published: "6380", host_ip: 127.0.0.1}]}
  metrics: {image: prom, expose: ["9090"], networks: [other]}
  migrate: {image: app}
  dns: {image: dns, ports: ["53:53/udp"]}
"""


def read(text: str, *given: StarterService, **environment: str) -> ComposeMesh:
    return read_compose("compose.yaml", text.encode(), environment, given)


def service(text: str, **environment: str) -> StarterService:
    """The only service, called ``a``, of which some lines are given."""
    return read(f"services:\n  a: {{{text}}}", **environment).services[0]


def test_services_calls_and_the_way_in_are_taken() -> None:
    found = read(SHOP)
    assert found.services == (
        StarterService("web-front", 8080),
        StarterService("api", 8000),
        StarterService("db", 5432, "tcp"),
        StarterService("cache", 6380, "tcp"),
        StarterService("metrics", 9090),
    )
    assert found.calls == (("web-front", "api"), ("api", "db"), ("api", "cache"))
    assert found.ingress == "web-front"


@pytest.mark.parametrize(
    "remark",
    [
        "`web_front` is called web-front",
        "web-front: port 443 is left out, 80 is taken",
        "web_front waits for migrate to end, which does not count as a call",
        "migrate names no port and is left out: give it one with --service migrate:PORT",
        "dns: 53:53/udp is left out",
        "db publishes no port: publish 127.0.0.1:5432:5432",
        "api depends on metrics but shares no network with it",
        "api depends on gone, which is not a service in the file",
    ],
)
def test_what_is_guessed_or_left_out_is_said(remark: str) -> None:
    assert any(remark in line for line in read(SHOP).remarks)


def test_what_is_read_makes_a_mesh() -> None:
    found = read(SHOP)
    assert "policies/ingress.yaml" in written_files(make_plan(WantedMesh(found.services, found.calls, found.ingress)))


def test_a_port_that_is_given_counts_and_calls_stay() -> None:
    text = "services: {worker: {depends_on: [db]}, db: {image: postgres}}"
    found = read(text, StarterService("worker", 7000, "grpc"))
    assert found.services == (StarterService("worker", 7000, "grpc"), StarterService("db", 5432, "tcp"))
    assert found.calls == (("worker", "db"),)
    assert not any("worker" in line for line in found.remarks)


@pytest.mark.parametrize(
    ("text", "port", "protocol"),
    [
        ("ports: ['8080:80']", 8080, "http"),
        ("ports: [3000]", 3000, "http"),
        ("ports: ['127.0.0.1:8001:80']", 8001, "http"),
        ("ports: ['127.0.0.1::80']", 80, "http"),
        ("ports: ['[::1]:8001:80/tcp']", 8001, "http"),
        ("ports: ['9000-9005:80-85']", 9000, "http"),
        ("ports: ['53:53/udp', '81:80']", 81, "http"),
        ("ports: [{target: 80}]", 80, "http"),
        ("ports: ['6000:50051']", 6000, "grpc"),
        ("expose: [50051]", 50051, "grpc"),
        ("image: 'valkey/valkey:8'", 6379, "tcp"),
        ("image: 'ghcr.io/x/postgres-ha', ports: ['15432:5432']", 15432, "tcp"),
        ("expose: ['27017']", 27017, "tcp"),
    ],
)
def test_ports_in_every_form(text: str, port: int, protocol: str) -> None:
    assert service(text) == StarterService("a", port, protocol)


@pytest.mark.parametrize(
    ("written", "port"),
    [("${P:-1}:80", 8080), ("$P:80", 8080), ("${Q:-81}:80", 81), ("${E:-82}:80", 82), ("${P}:80", 8080)],
)
def test_variables_are_replaced_as_compose_does(written: str, port: int) -> None:
    assert service(f"ports: ['{written}']", P="8080", E="").port == port


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services:\n  a: {ports: ['x:80']}", r"compose.yaml:2:15: .*`x:80` is not a port"),
        ("services:\n  a: {ports: ['80:70000']}", r"`80:70000` is not a port"),
        ("services:\n  a: {ports: ['80:0']}", r"`80:0` is not a port"),
        ("services:\n  a: {ports: ['${NONE}:80']}", r"`\$\{NONE\}` has no value"),
        ("services:\n  a: {ports: 80}", r"expected ports, a list"),
        ("services: [a]", r"expected services, a mapping"),
        ("version: '3'", r"there are no `services`"),
        ("services: {a: [}", r"not YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(LoadError) as raised:
        read(text)
    assert any(re.search(told, str(problem).replace("\n", " ")) for problem in raised.value.problems)


def test_two_that_are_published_are_left_to_the_user() -> None:
    found = read("services: {a: {ports: ['1:80']}, b: {ports: ['2:80']}, c: {expose: [80]}, d: {expose: [80]}}")
    assert found.ingress == ""
    assert any("a, b are published: say with --ingress" in line for line in found.remarks)
    assert [service.port for service in found.services] == [1, 2, 80, 9000], "one port, one service"


def test_names_that_policies_need_are_changed() -> None:
    found = read("services: {ingress: {expose: [80]}, 1st: {expose: [81]}, A.b: {expose: [82]}}")
    assert [service.name for service in found.services] == ["ingress-service", "s-1st", "a-b"]


def test_a_database_that_speaks_first_is_named() -> None:
    remarks = read("services: {db: {image: mysql}}").remarks
    assert any("db: no proxy of the mesh can be put before" in line for line in remarks)


def test_variables_of_the_file_beside_are_read() -> None:
    text = "# c\nA=1\nexport B='two words'\nC=3 # three\nnonsense\nD=\n"
    assert read_variables(text) == {"A": "1", "B": "two words", "C": "3", "D": ""}


@pytest.mark.parametrize("name", ["docker-compose.yaml", "docker-compose.native.yaml"])
def test_large_files_of_compose_are_read(name: str) -> None:
    assert read((ROOT / name).read_text()).remarks
