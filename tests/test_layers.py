"""
The rule of layers: which room may import which, and which library enters by which door.

    python tests/test_layers.py     prints both tables as the code has them

Both tables are exact: what is not allowed fails, and so does what is allowed and not used. Neither files nor rooms
import each other in a circle, not even late, inside a function.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent

ALLOWED: dict[str, str] = {
    "core": "",
    "bundles": "canary core",
    "truth": "bundles canary core",  # who reports what became of a candidate
    "canary": "core",
    "documents": "core",
    "policy": "core documents",
    "tokens": "core",
    "identity": "core documents tokens",
    "wire": "_proto core",
    "telemetry": "core",
    "audit": "core telemetry truth",
    "sources": "",
    "sources.keys": "core",
    "sources.introspection": "core sources.keys",  # the same guards as for key sets
    "sources.policies": "",
    "sources.access_logs": "",
    "sources.published": "bundles canary core telemetry truth",
    "analysis": "",
    "analysis.offline": "core documents",
    "analysis.suites": "analysis.offline core documents policy tokens",
    "analysis.replay": "core",
    "analysis.traps": "analysis.needless core",
    "analysis.sets": "analysis.offline core",
    "analysis.needless": "analysis.offline analysis.sets core",
    "analysis.invariants": "analysis.sets core documents",
    "analysis.mutants": "analysis.offline analysis.sets analysis.suites core tokens",
    "analysis.access": "analysis.invariants analysis.sets core",
    "analysis.verify": "analysis.offline core envoy.native tokens",
    "analysis.graph": "analysis.offline core",
    "analysis.hardening": "core identity settings",  # judges what others read: settings, certificates, entries
    "mesh": "core documents policy",
    "envoy.native": "core tokens",
    "envoy.patches": "core mesh",
    "envoy": "core envoy.native envoy.patches mesh",
    "settings": "core",
    "service.ports": "_proto admin core identity settings telemetry",
    "admin": "analysis.graph analysis.offline audit core telemetry",
    "service.loading": "core mesh policy service.ports sources.policies telemetry",
    "service": (
        "_proto audit core identity mesh service.loading service.ports settings sources.introspection sources.keys "
        "sources.policies telemetry tokens truth wire"
    ),
    "service.native": (
        "audit core envoy.native service service.loading service.ports settings sources.access_logs telemetry wire"
    ),
    "service.rate_limits": "core mesh service service.loading service.native service.ports settings telemetry wire",
    "service.doors": "_proto admin core service service.ports settings wire",
    "service.app": (
        "admin audit core service service.doors service.loading service.native service.ports service.rate_limits "
        "settings sources.introspection sources.keys sources.published telemetry tokens"
    ),
    "service.workers": (
        "admin audit core envoy service service.app service.loading service.ports settings sources.published truth wire"
    ),
    "service.embedded": "core service service.app service.ports service.workers settings",
    "control.discovery": "_proto",
    "control.federation": "core identity sources.keys",
    "control.authority": (
        "_proto admin bundles control.discovery control.federation core identity service.ports telemetry truth"
    ),
    "control": (
        "canary core envoy envoy.native envoy.patches mesh service.loading service.ports sources.keys sources.policies "
        "tokens"
    ),
    "control.records": (
        "admin audit canary control.authority core envoy.native identity mesh service service.native service.ports "
        "settings telemetry wire"
    ),
    "control.fleet": (
        "_proto admin canary control control.authority control.discovery control.records core envoy envoy.native "
        "identity mesh sources.keys sources.policies telemetry truth"
    ),
    "local": "audit core mesh",
    "demo": "control core demo.apps envoy envoy.native identity local mesh policy settings tokens",
    "demo.apps": "",
    "demo.checks": "core demo envoy identity local mesh tokens",
    "starter": "core documents",
    "up": "control control.authority core documents envoy envoy.native identity local mesh truth",
    "cli": (
        "_proto analysis.access analysis.graph analysis.hardening analysis.invariants analysis.mutants "
        "analysis.needless analysis.offline analysis.replay analysis.sets analysis.suites analysis.traps "
        "analysis.verify audit bundles canary control control.authority control.federation control.fleet "
        "control.records core demo demo.checks documents envoy envoy.native identity local mesh policy "
        "service.loading service.ports service.workers settings sources.keys sources.policies sources.published "
        "starter telemetry tokens truth up"
    ),
    "__main__": "cli",
    "_proto": "",
    "authz": "",
}
"""
Arrows by room, from the ground up. A folder within a folder is a room of its own (``service.ports``).

So are some files: ``service.app``, the assembly place, which stands above what it assembles;
``service.embedded``, whose name stands in the configuration of every Envoy that hosts a server.

``identity`` knows ``tokens``: keys and signatures of JWT-SVIDs are those of other tokens. ``control.federation``
fetches bundles with the guards that ``sources.keys`` has for key sets.
"""

DOORS: dict[str, str] = {
    "betterproto2": "envoy envoy.patches",
    "cachetools": "identity",
    "click": "cli",
    "cryptography": "analysis.hardening analysis.verify audit bundles identity sources.published tokens truth",
    "envoy": "demo envoy.native service.workers",
    "envoy_data_plane": "envoy envoy.patches",
    "google": "_proto control.authority control.discovery service service.workers wire",
    "grpc": (
        "cli control.authority control.fleet control.records demo demo.checks service service.ports "
        "service.rate_limits telemetry"
    ),
    "httpx": (
        "cli control.federation demo.apps service service.native service.workers sources.introspection sources.keys "
        "sources.published"
    ),
    "jwt": "tokens",
    "limits": "service.rate_limits",
    "nats": "truth",
    "opentelemetry": "audit control.fleet demo telemetry",
    "prometheus_client": "telemetry",
    "pydantic": "settings",
    "pydantic_settings": "settings",
    "redis": "demo.apps service.rate_limits",
    "rich": "cli local",
    "starlette": "admin demo demo.apps",
    "uvicorn": "demo demo.apps service.ports",
    "watchfiles": "sources.policies",
    "yaml": "documents envoy envoy.native settings",
}
"""The rooms that may import a library. The OTLP exporter takes TLS only as grpc credentials, hence ``telemetry``.

The Workload API answers claims as protobuf's ``Struct``, hence ``google`` in ``control.authority``; a bundle endpoint's
SVID is judged between TLS and HTTP, hence ``httpx`` in ``control.federation``.
"""

CORE_STDLIB = frozenset(
    "bisect collections dataclasses enum functools gc ipaddress re types typing __future__".split()  # noqa: SIM905  # read as a list of words
)
"""What a room that decides needs; bisect because the index finds prefixes by it."""

FILES_THAT_ARE_ROOMS = frozenset({"service.app", "service.embedded"})
MAY_IMPORT = {room: frozenset(names.split()) for room, names in ALLOWED.items()}
"""Read by the test of the documentation."""


def module_of(path: Path) -> str:
    parts = ("authz", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> Mapping[str, Path]:
    return {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def _called(node: ast.Call) -> str:
    """The last name of what is called."""
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


@cache
def imported(source: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node).endswith(("import_module", "__import__")):
            written = [one.value for one in node.args[:1] if isinstance(one, ast.Constant)]
            found += (name for name in written if isinstance(name, str))
    return tuple(found)


def room_of(name: str) -> str:
    """The innermost folder of a module or of a name in it: ``authz.service.ports.log.read`` is of ``service.ports``."""
    parts = name.split(".")[1:]
    if ".".join(parts[:2]) in FILES_THAT_ARE_ROOMS:
        return ".".join(parts[:2])
    while parts and not (ROOT.joinpath(*parts)).is_dir():
        last = parts.pop()
        if not parts:
            return last.removesuffix(".py")
    return ".".join(parts) or "authz"


def breaches(room: str, source: str) -> Iterator[str]:
    for name in imported(source):
        top = name.partition(".")[0]
        if top == "authz":
            if room_of(name) not in MAY_IMPORT[room] | {room}:
                yield name
        elif room == "core":
            if top not in CORE_STDLIB:
                yield name
        elif top not in sys.stdlib_module_names and room not in DOORS.get(top, "").split():
            yield name


@cache
def used() -> tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]:
    """As the code is: the rooms that each room imports, and the rooms that import each library."""
    arrows: dict[str, set[str]] = {}
    doors: dict[str, set[str]] = {}
    for module, path in modules().items():
        room = room_of(module)
        arrows.setdefault(room, set())
        for name in imported(path.read_text()):
            top = name.partition(".")[0]
            if top == "authz":
                arrows[room] |= {room_of(name)} - {room}
            elif top not in sys.stdlib_module_names:
                doors.setdefault(top, set()).add(room)
    return {k: frozenset(v) for k, v in arrows.items()}, {k: frozenset(v) for k, v in doors.items()}


def circles(arrows: Mapping[str, frozenset[str]]) -> list[str]:
    """Whoever reaches itself."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = arrows.get(todo.pop(), frozenset()) - seen
            seen |= new
            todo += new
        return seen

    return sorted(name for name in arrows if name in reached(name))


def files() -> dict[str, frozenset[str]]:
    """The modules that each module imports."""

    def target(name: str) -> str:
        return name if name in modules() else target(name.rpartition(".")[0])

    return {
        module: frozenset(target(name) for name in imported(path.read_text()) if name.partition(".")[0] == "authz")
        for module, path in modules().items()
    }


def test_every_import_goes_downwards() -> None:
    found = {module: list(breaches(room_of(module), path.read_text())) for module, path in modules().items()}
    assert {module: names for module, names in found.items() if names} == {}


def test_every_arrow_that_is_allowed_is_used() -> None:
    assert used()[0] == MAY_IMPORT


def test_every_door_that_is_open_is_used() -> None:
    assert used()[1] == {library: frozenset(rooms.split()) for library, rooms in DOORS.items()}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(files()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert circles(used()[0]) == []


def test_a_circle_is_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert circles({name: frozenset(others) for name, others in arrows.items()}) == ["b", "c"]


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("core", "import json", ["json"]),
        ("core", "import re", []),
        ("core", "from authz.policy.reader import read_policies", ["authz.policy.reader.read_policies"]),
        ("policy", "from authz.core import errors\nimport jwt", ["jwt"]),
        ("tokens", "import authz.service.check_function", ["authz.service.check_function"]),
        ("audit", "if 1:\n    import httpx", ["httpx"]),
        ("service", "from authz.service.workers.worker import serve", ["authz.service.workers.worker.serve"]),
        ("service", "import watchfiles", ["watchfiles"]),
        ("analysis.needless", "from authz.analysis.traps import findings", ["authz.analysis.traps.findings"]),
        ("envoy.patches", "from authz.envoy.render import render_all", ["authz.envoy.render.render_all"]),
        ("service", "from authz.service.rate_limits import limiting", ["authz.service.rate_limits.limiting"]),
        ("service.rate_limits", "importlib.import_module('authz.envoy.render')", ["authz.envoy.render"]),
        ("service.rate_limits", "__import__('authz.cli')", ["authz.cli"]),
        ("control", "import cryptography", ["cryptography"]),
        ("demo", "from authz.demo.checks import runner", ["authz.demo.checks.runner"]),
        ("mesh", "import betterproto2", ["betterproto2"]),
    ],
)
def test_a_breach_is_found(room: str, source: str, found: list[str]) -> None:
    assert list(breaches(room, source)) == found


if __name__ == "__main__":
    for table in used():
        for name, rooms in sorted(table.items()):
            print(f'    "{name}": "{" ".join(sorted(rooms))}",')
