"""The rule of layers: which room may import which, and which library enters by which door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent

MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "policy": frozenset({"core"}),
    "tokens": frozenset({"core"}),
    "identity": frozenset({"core"}),
    "wire": frozenset({"core", "_proto"}),
    "audit": frozenset({"core"}),
    "sources": frozenset({"core", "tokens"}),  # keys.py hands out parsed key sets: a bad one keeps the last good
    "analysis": frozenset({"core", "policy", "tokens"}),  # cases with tokens are judged by the one verifier
    "mesh": frozenset({"core", "identity", "policy", "_proto"}),
    "settings": frozenset({"core"}),
    "admin": frozenset({"core", "analysis", "audit"}),
    "service": frozenset(
        {"core", "policy", "tokens", "identity", "wire", "audit", "sources", "analysis", "mesh", "settings", "admin",
         "_proto"}
    ),
    "demo": frozenset({"core", "policy", "identity", "mesh", "settings", "audit", "tokens"}),  # its issuer signs tokens
    "cli": frozenset(
        {"core", "policy", "tokens", "identity", "wire", "audit", "sources", "analysis", "mesh", "settings", "admin",
         "service", "demo", "_proto"}
    ),
    "_proto": frozenset(),
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
}  # fmt: skip

CORE_STDLIB = frozenset(
    "bisect collections dataclasses enum functools ipaddress re types typing __future__".split()  # noqa: SIM905  # read as a list of words
)
"""bisect besides the house's nine: the index finds prefixes by it."""

DOORS: dict[str, frozenset[str]] = {
    "yaml": frozenset({"policy", "analysis", "mesh", "settings", "cli", "demo", "identity"}),
    "jwt": frozenset({"tokens"}),
    "cryptography": frozenset({"tokens", "identity", "audit"}),
    "google": frozenset({"wire", "_proto", "service", "mesh"}),
    "opentelemetry": frozenset({"audit", "service", "demo"}),  # demo: its collector reads OTLP
    "prometheus_client": frozenset({"audit", "admin"}),
    "httpx": frozenset({"sources", "service", "demo", "cli"}),
    "watchfiles": frozenset({"sources"}),
    "envoy_data_plane": frozenset({"mesh"}),
    "betterproto2": frozenset({"mesh"}),
    "pydantic": frozenset({"settings"}),
    "pydantic_settings": frozenset({"settings"}),
    "starlette": frozenset({"admin", "demo"}),
    "uvicorn": frozenset({"service", "demo", "admin"}),
    "grpc": frozenset(
        {"service", "cli", "demo", "audit"}
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


def breaches(room: str, source: str) -> Iterator[str]:
    for name in imported(source):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top == "authz":
            if other not in MAY_IMPORT[room] | {room}:
                yield name
        elif (room == "core" and top not in CORE_STDLIB) or room not in DOORS.get(top, {room}):
            yield name


def rooms() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        yield (relative.parts[0].removesuffix(".py"), path)


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
