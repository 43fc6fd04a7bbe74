"""The rule of layers: which room may import which, and which library enters by which door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent

MAY_IMPORT: dict[str, frozenset[str]] = {
    "__main__": frozenset({"cli"}),
    "admin": frozenset({"analysis.graph", "analysis.offline", "audit", "core", "telemetry"}),
    "analysis.graph": frozenset({"analysis.offline", "core"}),
    "analysis.offline": frozenset({"core", "documents"}),
    "analysis.suites": frozenset({"analysis.offline", "core", "documents", "policy", "tokens"}),
    "analysis.traps": frozenset({"core"}),
    "audit": frozenset({"core", "telemetry"}),
    "cli": frozenset(
        {
            "_proto",
            "analysis.graph",
            "analysis.offline",
            "analysis.suites",
            "analysis.traps",
            "audit",
            "control.authority",
            "core",
            "demo",
            "demo.checks",
            "documents",
            "envoy",
            "identity",
            "mesh",
            "policy",
            "service.loading",
            "service.ports",
            "service.workers",
            "settings",
            "sources.policies",
            "tokens",
        }
    ),
    "control.authority": frozenset({"_proto", "admin", "control.discovery", "core", "identity", "service.ports"}),
    "control.discovery": frozenset({"_proto"}),
    "demo": frozenset(
        {"audit", "core", "demo.apps", "demo.checks", "envoy", "identity", "mesh", "policy", "settings", "tokens"}
    ),
    "demo.checks": frozenset({"core", "demo", "envoy", "identity", "mesh", "tokens"}),
    "documents": frozenset({"core"}),
    "envoy": frozenset({"core", "mesh"}),
    "envoy.native": frozenset({"core"}),
    "identity": frozenset({"core"}),
    "mesh": frozenset({"core", "documents", "policy"}),
    "policy": frozenset({"core", "documents"}),
    "service": frozenset(
        {
            "_proto",
            "admin",
            "audit",
            "core",
            "identity",
            "service.loading",
            "service.native",
            "service.ports",
            "service.workers",
            "settings",
            "sources.keys",
            "sources.policies",
            "telemetry",
            "tokens",
            "wire",
        }
    ),
    "service.loading": frozenset({"core", "mesh", "policy", "service.ports", "sources.policies", "telemetry"}),
    "service.native": frozenset(
        {"audit", "core", "service", "service.loading", "settings", "sources.access_logs", "telemetry", "wire"}
    ),
    "service.ports": frozenset({"admin", "core", "identity", "service", "settings", "telemetry"}),
    "service.workers": frozenset({"admin", "audit", "core", "envoy", "service", "service.ports", "settings", "wire"}),
    "settings": frozenset({"core"}),
    "sources.keys": frozenset({"core"}),
    "telemetry": frozenset({"core"}),
    "tokens": frozenset({"core"}),
    "wire": frozenset({"_proto", "core"}),
    "core": frozenset(),
    "_proto": frozenset(),
    "authz": frozenset(),
    "analysis": frozenset(),
    "control": frozenset(),
    "sources": frozenset(),
    "sources.access_logs": frozenset(),
    "sources.policies": frozenset(),
    "demo.apps": frozenset(),
}
"""By room; a room within a room is one of its own (``service.ports``)."""

CORE_STDLIB = frozenset(
    "bisect collections dataclasses enum functools ipaddress re types typing __future__".split()  # noqa: SIM905  # read as a list of words
)
"""bisect besides the house's nine: the index finds prefixes by it."""

DOORS: dict[str, frozenset[str]] = {
    "yaml": frozenset({"documents", "policy", "analysis", "mesh", "envoy", "settings", "cli", "demo", "identity"}),
    "jwt": frozenset({"tokens"}),
    "cryptography": frozenset({"tokens", "identity", "audit"}),
    "google": frozenset({"wire", "_proto", "service", "control"}),
    "opentelemetry": frozenset({"telemetry", "audit", "demo"}),  # demo: its collector reads OTLP
    "prometheus_client": frozenset({"telemetry", "audit", "admin"}),
    "httpx": frozenset({"sources", "service", "demo", "cli"}),
    "watchfiles": frozenset({"sources"}),
    "envoy_data_plane": frozenset({"envoy"}),
    "betterproto2": frozenset({"envoy"}),
    "pydantic": frozenset({"settings"}),
    "pydantic_settings": frozenset({"settings"}),
    "starlette": frozenset({"admin", "demo"}),
    "uvicorn": frozenset({"service", "demo", "admin"}),
    "grpc": frozenset(
        {"service", "control", "cli", "demo", "telemetry"}
    ),  # audit: the OTLP exporter takes TLS only as grpc credentials
    "grpc_health": frozenset({"service"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli", "demo"}),
    "cachetools": frozenset({"tokens", "identity"}),
    "envoy": frozenset({"demo", "cli", "service"}),
}


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """The innermost folder of a module or of a name in it: ``authz.service.ports.tls.read`` is of ``service.ports``."""
    parts = name.split(".")[1:]
    while parts and not (ROOT.joinpath(*parts)).is_dir():
        last = parts.pop()
        if not parts:
            return last.removesuffix(".py")
    return ".".join(parts) or "authz"


def breaches(room: str, source: str) -> Iterator[str]:
    floor = room.partition(".")[0]
    for name in imported(source):
        top = name.partition(".")[0]
        if top == "authz":
            if room_of(name) not in MAY_IMPORT[room] | {room}:
                yield name
        elif (room == "core" and top not in CORE_STDLIB) or floor not in DOORS.get(top, {floor}):
            yield name


def rooms() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield (room_of(".".join(("authz", *path.relative_to(ROOT).with_suffix("").parts))), path)


@pytest.mark.parametrize(("room", "path"), [pytest.param(r, p, id=str(p.relative_to(ROOT))) for r, p in rooms()])
def test_every_import_goes_downwards(room: str, path: Path) -> None:
    assert list(breaches(room, path.read_text())) == []


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("core", "import json", ["json"]),
        ("core", "import re", []),
        ("core", "from authz.policy.reader import read_policies", ["authz.policy.reader.read_policies"]),
        ("policy", "from authz.core import errors\nimport jwt", ["jwt"]),
        ("tokens", "import authz.service.check", ["authz.service.check"]),
        ("audit", "if 1:\n    import httpx", ["httpx"]),
    ],
)
def test_a_breach_is_found(room: str, source: str, found: list[str]) -> None:
    assert list(breaches(room, source)) == found
