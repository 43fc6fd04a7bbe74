"""``authz status --proxies``: whether proxies that decide by themselves run the filters that were rendered for them."""

import glob
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal as out
from authz.cli.envoy_admin import get, proxy_name
from authz.core.attributes import Json
from authz.core.errors import FetchError

if TYPE_CHECKING:
    from authz.envoy.native.running_filters import Slot

PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy with its slots, or the reason why it could not be asked."""

    name: str
    slots: tuple["Slot", ...] = ()
    failure: str = ""
    """Why it could not be asked."""
    refusal: str = ""
    """Envoy's own words for the last file that it refused, where its log has them."""

    @property
    def is_in_force(self) -> bool:
        """Whether every slot holds what was rendered; a proxy that asks the check has none."""
        return not self.failure and all(slot.is_in_force for slot in self.slots)


def answer(addresses: Sequence[str], state: Path, wait: float, output: str) -> out.Exit:
    """
    Ask until every proxy runs what the state directory holds, or the time is over; print what was found.

    Returns:
        YES, NO where a proxy runs something else, FAILED where one does not answer and no other is wrong.
    """
    names = _addresses(addresses)
    until = time.monotonic() + wait
    while True:
        proxies = [_ask(one, state) for one in names]
        if all(proxy.is_in_force for proxy in proxies) or time.monotonic() >= until:
            break
        time.sleep(PAUSE_SECONDS)
    if output == "json":
        out.print_json(_as_json(proxies))
    else:
        _print(proxies)
    if any(not proxy.failure and not proxy.is_in_force for proxy in proxies):
        return out.Exit.NO
    return out.Exit.FAILED if any(proxy.failure for proxy in proxies) else out.Exit.YES


def _addresses(given: Sequence[str]) -> list[str]:
    """Patterns stand for the sockets they match. Raises click.BadParameter for one that matches none."""
    found: dict[str, None] = {}
    for one in given:
        matched = sorted(glob.glob(one)) if any(star in one for star in "*?[") else [one.removeprefix("unix:")]
        if not matched:
            raise click.BadParameter(f"no socket is named `{one}`", param_hint="--proxies")
        found |= dict.fromkeys(matched)
    return list(found)


def _ask(address: str, state: Path) -> Proxy:
    from authz.envoy.native import running_filters

    name = proxy_name(address)
    try:
        running = running_filters.read_running(get(address, running_filters.STATS))
    except FetchError as error:
        return Proxy(name, failure=str(error))
    slots = running_filters.compare(running, running_filters.read_rendered(state, name))
    is_refused = any(slot.rejected and not slot.is_in_force for slot in slots)
    return Proxy(
        name, slots, refusal=running_filters.last_refusal(state / "logs" / f"{name}.log") if is_refused else ""
    )


def _print(proxies: Sequence[Proxy]) -> None:
    rows = [
        (proxy.name, slot.name, slot.running or "none", slot.rendered or "none", str(slot.rejected),
         slot.problem or "in force")
        for proxy in proxies
        for slot in proxy.slots
    ]  # fmt: skip
    if rows:
        out.print_table(("PROXY", "SLOT", "RUNS", "RENDERED", "REFUSED", "STATE"), rows)
    for proxy in proxies:
        if proxy.failure:
            out.say(f"{proxy.name}: does not answer: {proxy.failure}")
        elif not proxy.slots:
            out.say(f"{proxy.name}: has no native filters: it asks the server")
        if proxy.refusal:
            out.say(f"{proxy.name}: Envoy says: {proxy.refusal}")
    good = sum(proxy.is_in_force for proxy in proxies)
    out.say(f"{good} of {out.count(len(proxies), 'proxy', 'proxies')} as rendered")


def _as_json(proxies: Sequence[Proxy]) -> Json:
    return {
        "ok": all(proxy.is_in_force for proxy in proxies),
        "proxies": [
            {
                "proxy": proxy.name, "ok": proxy.is_in_force, "failure": proxy.failure or None,
                "refusal": proxy.refusal or None,
                "slots": [
                    {"slot": slot.name, "running": slot.running or None, "rendered": slot.rendered or None,
                     "refused_updates": slot.rejected, "ok": slot.is_in_force, "problem": slot.problem or None}
                    for slot in proxy.slots
                ],
            }
            for proxy in proxies
        ],
    }  # fmt: skip
