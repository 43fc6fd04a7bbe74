"""``authz control status``: what every proxy of a fleet has taken, and what it refused."""

import json
from pathlib import Path
from typing import Any

import click
import httpx

from authz.cli import terminal
from authz.cli.ca_files import time_of
from authz.cli.status import admin_client
from authz.core.errors import FetchError

WAITS = {"cds": " (while one cluster waits, Envoy says of none whether it refuses it)"}
"""What may be the reason that a proxy leaves a type without an answer."""


@click.command()
@click.option("--admin", metavar="ADDRESS", default="127.0.0.1:15014", help="Its --admin: host:port or unix:/path.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to answer.")
def status(admin: str, output: str) -> None:
    """
    Ask a control plane which version each proxy has taken, and what was refused, in Envoy's own words.

    Exit code: 0 every proxy is connected and has taken all that there is for it, 3 not so, 1 no answer.

    \b
    authz control status --admin 127.0.0.1:15014
    authz control status -o json
    """
    found = ask_control(admin, "/fleet", "proxies")
    proxies: list[dict[str, Any]] = found["proxies"]
    if output == "json":
        terminal.print_json(found)
    else:
        _print(str(found["policies"]), proxies)
    raise SystemExit(terminal.Exit.YES if all(one["is_current"] for one in proxies) else terminal.Exit.NO)


def ask_control(admin: str, page: str, has: str) -> dict[str, Any]:
    """
    The JSON of a page of a control plane's admin address, in which there is a key that only it ``has``.

    Raises:
        FetchError: there is no answer, or it is another server's.
    """
    socket = Path(admin.removeprefix("unix:"))
    if admin.startswith("unix:") and not socket.exists():  # httpcore would leave its own socket open
        raise FetchError(f"`{admin}` does not answer: there is no such socket")
    try:
        with admin_client(admin, None, None) as client:
            response = client.get(page)
        found = response.json() if response.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise FetchError(f"`{admin}` does not answer: {str(error) or type(error).__name__}") from error
    if not isinstance(found, dict) or has not in found:
        raise FetchError(f"`{admin}` is not the admin address of a control plane")
    return found


def _print(version: str, proxies: list[dict[str, Any]]) -> None:
    rows = []
    for one in proxies:
        types = one["types"].items()
        refused = any(kind["rejection"] for _, kind in types)
        word = "current" if one["is_current"] else "refusing" if refused else "behind"
        taken = " ".join(f"{short}:{kind['accepted'][:6] or '-'}" for short, kind in types)
        expires = one["certificate_expires"]
        state = "gone" if one["is_gone"] else word if one["is_connected"] else "missing"
        rows.append((one["name"], state, taken, time_of(expires) if expires else ""))
    terminal.say(f"policies {version}: {terminal.count(len(rows), 'proxy', 'proxies')}")
    terminal.print_table(("PROXY", "STATE", "TAKEN", "CERTIFICATE UNTIL"), rows)
    for one in proxies:
        for short, kind in one["types"].items():
            if kind["rejection"]:
                terminal.say(f"{one['name']} refused {short} {kind['refused']}: {kind['rejection']}")
            if kind.get("is_overdue"):
                waits = f": {'; '.join(found)}" if (found := kind.get("waits")) else ""
                terminal.say(f"{one['name']} does not answer {short}{waits}{WAITS.get(short, '')}")
