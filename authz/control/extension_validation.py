"""
Extensions shown to a real Envoy before anything is written, and what it says put down to the patch that it is about.

Types and names of fields are known here; which values Envoy takes (a lower bound, a field that it wants) only it knows.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.control.envoy_validation import Validator, refusal
from authz.core.errors import Problem, Severity
from authz.envoy.extended import Extensions, demand
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.native.slots import COMPOSITE_TYPE, TYPES
from authz.envoy.options import RENDERED_DIRECTORIES, RenderOptions
from authz.envoy.patches.typed_patches import TypedPatch
from authz.envoy.proxy_parts import Native, extension_problems, shown_to_envoy
from authz.mesh.extensions import WasmPlugin, WrittenAt
from authz.mesh.nouns import Mesh
from authz.mesh.value_parts import is_address

_NO_WASM = ("envoy.filters.http.wasm", "envoy.wasm.runtime")
_PORT = re.compile(r'(?<="port_value": )\d+')
_ADDRESS = re.compile(r'(?<="address": ")[^"]*')
_NUMBER = re.compile(r"(?<![0-9a-zA-Z.])\d{2,5}(?![0-9a-zA-Z.])")
_MISSING = re.compile(r"Invalid path: (\S+)")
_UNKNOWN_FIELD = re.compile(r"no\s+such\s+field")
_PASSES = next(url for url in TYPES if url != COMPOSITE_TYPE)
Bootstraps = Mapping[str, Mapping[str, Any]]
"""Whole configurations by name of the proxy."""


def _say_nothing(_: str) -> None:
    """For those whom it does not concern how much is shown."""


@dataclass(frozen=True, slots=True)
class ShownExtensions:
    """What an Envoy is asked about."""

    bootstraps_of: Callable[[int | None], Bootstraps]
    """Configurations of the proxies that extensions concern, with the first so many patches; None: with all."""
    patches: tuple[TypedPatch, ...]
    plugins: tuple[WasmPlugin, ...] = ()


def judge_extensions(
    mesh: Mesh,
    mode_of: MtlsModeOf,
    options: RenderOptions,
    native: Native | None,
    out: Path,
    validator: Validator | None,
    say: Callable[[str], None] = _say_nothing,
) -> tuple[Problem, ...]:
    """
    Everything that is to be said of the extensions of a mesh before it is rendered, by an Envoy, too, if there is one.

    Args:
        out: the state directory.
        say: is told how much is shown to Envoy, where there is more than one proxy.

    Raises:
        LoadError: an extension is refused, with everything that is wrong.
        EnvoyError: the Envoy that was named cannot be run.
    """
    if not mesh.envoy_filters and not mesh.wasm_plugins:
        return ()
    found = extension_problems(mesh, mode_of, options, native)
    demand(found)
    if validator is not None:
        shown = ShownExtensions(
            lambda count: shown_to_envoy(mesh, mode_of, options, native, count),
            Extensions.of(mesh).patches,
            mesh.wasm_plugins,
        )
        told = refused_by_envoy(validator.binary, out, shown, say)
        demand(told)
        found += told
    return found


def refused_by_envoy(
    binary: str, out: Path, shown: ShownExtensions, say: Callable[[str], None] = _say_nothing
) -> tuple[Problem, ...]:
    """
    Show Envoy the proxies that extensions concern; say for each that it refuses which patch does it.

    Of proxies that are equal but for their names, addresses and ports one is shown, several at a time.

    Args:
        out: the state directory, in which certificates are found that a configuration names.
        say: is told how much is shown.

    Raises:
        EnvoyError: the binary cannot be run.
    """
    bootstraps = shown.bootstraps_of(None)
    distinct = {_but_for_names(name, one): name for name, one in sorted(bootstraps.items(), reverse=True)}
    names = sorted(distinct.values())
    at_once = os.cpu_count() or 1
    if len(bootstraps) > 1:
        say(f"showing Envoy {len(names)} distinct of the {len(bootstraps)} proxies that extensions concern")
    with ThreadPoolExecutor(at_once) as pool:
        texts = dict(zip(names, pool.map(lambda name: _refusal(binary, out, bootstraps[name]), names), strict=True))
    return tuple(dict.fromkeys(_blamed(binary, out, shown, name, text) for name, text in texts.items() if text))


def _but_for_names(proxy: str, bootstrap: Mapping[str, Any]) -> str:
    """
    A configuration with the proxy's name, its IP addresses and its ports numbered as they come.

    Which of them are the same stays, and what is no address or no port stays as it is: that is what Envoy looks at.
    """
    text = re.sub(
        f"(?<![A-Za-z0-9-]){re.escape(proxy)}(?![A-Za-z0-9-])", "PROXY", json.dumps(bootstrap, sort_keys=True)
    )
    ports = {port: f"PORT{i}" for i, port in enumerate(dict.fromkeys(_PORT.findall(text))) if int(port) < 2**16}
    hosts = {host: f"HOST{i}" for i, host in enumerate(dict.fromkeys(_ADDRESS.findall(text))) if is_address(host)}
    text = _ADDRESS.sub(lambda found: hosts.get(found[0], found[0]), text)
    return _NUMBER.sub(lambda found: ports.get(found[0], found[0]), text)


def _blamed(binary: str, out: Path, shown: ShownExtensions, proxy: str, text: str) -> Problem:
    """The first patch with which Envoy refuses, since without it Envoy does not."""
    what = f"Envoy refuses `{proxy}`: {text}"
    help_text = "see what Envoy's documentation says of the field that it names"
    for count in range(len(shown.patches) + 1):
        if refusal := _refusal(binary, out, shown.bootstraps_of(count)[proxy]):
            if count:
                return shown.patches[count - 1].origin.problem("ME-9", f"Envoy refuses `{proxy}`: {refusal}", help_text)
            what = f"Envoy refuses `{proxy}`: {refusal}"
            break
    if shown.plugins:
        if any(name in what for name in _NO_WASM) and ("registered implementation" in what or "support" in what):
            help_text = "this Envoy runs no WebAssembly: take one that does, such as Envoy's own releases, or use Lua"
        else:
            help_text = "look at the module, and whether it lies where the proxy runs"
        named = (one for one in shown.plugins if f"{one.namespace}.{one.name}" in what or one.file in what)
        return next(named, shown.plugins[0]).origin.problem("ME-9", what, help_text)
    return _without_extensions(what)


def _without_extensions(what: str) -> Problem:
    """What Envoy refuses without any extension, too; a file that is not there yet may come before the proxy starts."""
    if missing := _MISSING.search(what):
        text = f"not shown to Envoy: `{missing[1]}`, which the configuration names, is not in the state directory yet"
        return WrittenAt().problem("ME-9", text, "put it there and render again", Severity.WARNING)
    if _UNKNOWN_FIELD.search(what):
        told = "without extensions it refuses, too: this Envoy is older than what is rendered needs (docs/mesh.md)"
        return WrittenAt().problem("ME-9", what, told)
    return WrittenAt().problem("ME-9", what, "without extensions it refuses, too: this is a bug of the rendering")


def _refusal(binary: str, out: Path, bootstrap: Mapping[str, Any]) -> str:
    """Envoy's text; empty when it takes the configuration."""
    with tempfile.TemporaryDirectory(prefix="authz-validate-") as directory:
        here = Path(directory)
        for name in ("certs", "run"):
            if (out / name).is_dir():
                (here / name).symlink_to((out / name).resolve())
        (here / "logs").mkdir()
        made = json.loads(json.dumps(bootstrap))
        _still(made)
        for path in set(_followed(made)):
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            (here / path).write_text("resources: []\n", encoding="utf-8")
        file = here / "envoy.json"
        file.write_text(json.dumps(made), encoding="utf-8")
        return _shortened(refusal(binary, file))


def _shortened(text: str) -> str:
    """What is wrong, without the message in which it is: Envoy tells the whole of it first."""
    constraint = text.find("Proto constraint validation failed")
    return text[constraint:] if constraint > 0 else text


def _still(node: Any) -> None:  # JSON of any message
    """Fill slots with a filter that lets everything pass: what comes into them is shown to Envoy by itself."""
    if isinstance(node, dict):
        if "config_discovery" in node and any(url in TYPES for url in node["config_discovery"].get("type_urls", ())):
            del node["config_discovery"]
            node["typed_config"] = {"@type": _PASSES}
        for value in node.values():
            _still(value)
    elif isinstance(node, list):
        for value in node:
            _still(value)


def _followed(node: Any) -> Iterator[str]:  # as above
    """The relative paths of the files that a configuration follows."""
    if isinstance(node, dict):
        source = node.get("path_config_source")
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str) and path.partition("/")[0] in RENDERED_DIRECTORIES and ".." not in path:
            yield path
        for value in node.values():
            yield from _followed(value)
    elif isinstance(node, list):
        for value in node:
            yield from _followed(value)
