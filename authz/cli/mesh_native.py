"""
The part of ``authz mesh render`` for native enforcement: fetch keys, show filters to an Envoy, follow what changes.
"""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from authz.cli import terminal
from authz.control.envoy_validation import Filters
from authz.core.engine import Engine
from authz.envoy.options import RenderOptions
from authz.mesh.login import LoginEndpoints
from authz.mesh.nouns import Mesh

if TYPE_CHECKING:
    from authz.envoy.listeners import MtlsModeOf
    from authz.envoy.proxy_parts import Native


def fetched_keys(engine: Engine, bundles: dict[str, str]) -> Mapping[str, str]:
    """Fetch the key sets that policies need, once, and say which ones did not come."""
    from authz.control.key_texts import fetch_key_texts

    rules = [rule for item in engine.resources.request_authentications for rule in item.jwt_rules]
    keys, missing = asyncio.run(fetch_key_texts(rules, clock=time, ca_bundles=bundles))
    for line in missing:
        terminal.remark(f"warning: no keys of {line}; tokens are refused until it is rendered again")
    return keys


def discovered_logins(mesh: Mesh, beside: Path, out: Path) -> Mapping[str, LoginEndpoints]:
    """Ask the issuers of browser logins, and say whose kept document is used. Raises LoadError."""
    if not mesh.logins:
        return {}
    from authz.control.login_discovery import discover_logins

    found, remarks = asyncio.run(discover_logins(mesh, out, beside=beside))
    for line in remarks:
        terminal.remark(line)
    return found


def validate(how: str, out: Path, files: Mapping[str, bytes], network: Mapping[str, Filters]) -> None:
    """Show changed filters to an Envoy. Raises EnvoyError, and then nothing is to be written."""
    from authz.control.envoy_validation import Validator

    validator = Validator.of(how)
    if validator is not None and (why := validator.validate(out, files, network)):
        terminal.remark(f"unchecked {why}")


def judge_extensions(
    mesh: Mesh, mode_of: "MtlsModeOf", options: RenderOptions, native: "Native | None", out: Path, how: str
) -> None:
    """Say what extensions can do to requests. Raises LoadError, EnvoyError, and then nothing is to be written."""
    if not mesh.envoy_filters and not mesh.wasm_plugins:
        return
    from authz.control import extension_validation
    from authz.control.envoy_validation import Validator

    validator = Validator.of(how)
    for problem in extension_validation.judge_extensions(
        mesh, mode_of, options, native, out, validator, terminal.remark
    ):
        terminal.remark(str(problem))


async def follow(
    policies: Path,
    mesh: Path,
    out: Path,
    options: RenderOptions,
    bundles: dict[str, str],
    how: str,
    traffic: Path | None = None,
) -> None:
    """Render what changes, until SIGINT or SIGTERM. Raises LoadError, EnvoyError, OSError at the first rendering."""
    from authz.control.envoy_validation import Validator
    from authz.control.mesh_follower import MeshFollower

    follower = MeshFollower(
        policies,
        mesh,
        out,
        options,
        clock=time,
        say=terminal.remark,
        ca_bundles=bundles,
        validator=Validator.of(how),
        traffic=traffic,
    )
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await follower.start()
        terminal.remark("watching  policies, description and key sets")
        running = asyncio.create_task(follower.run())
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
    finally:
        await follower.close()
