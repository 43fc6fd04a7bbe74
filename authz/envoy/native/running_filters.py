"""
Which filters a proxy runs, by its own statistics, and which the state directory holds for it.

Envoy tells the version of each slot as ``…version_text``, which is short; its ``/config_dump`` would be megabytes.
Neither says why it refused a file: only its log does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

STATS = "/stats?filter=^extension_config_discovery%5C.http_filter%5C."
_STAT = re.compile(r'extension_config_discovery\.http_filter\.(.+)\.([a-z_]+): "?([^"\n]*)"?')
_VERSION = re.compile(rb'\s*\{"version_info":"([^"]*)"')
_HEAD = 4096
_REFUSED = re.compile(r"Filesystem config update (?:rejected|failure): (.*?)(?=^\[\d{4}-|\Z)", re.MULTILINE | re.DOTALL)
_LOG_TAIL = 256 * 1024


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of one proxy."""

    name: str
    running: str = ""
    """Version of the filters in it; empty: Envoy has none."""
    rendered: str = ""
    """Version in the state directory; empty: there is no file."""
    rejected: int = 0
    """Updates that Envoy refused since it started (``config_fail``), earlier ones included."""

    @property
    def is_in_force(self) -> bool:
        """Whether what was rendered is what runs."""
        return bool(self.running) and self.running == self.rendered

    @property
    def problem(self) -> str:
        """What is wrong, in words for people; empty if nothing is."""
        if self.is_in_force:
            return ""
        if not self.rendered:
            return "the state directory has no filters for it"
        if not self.running:
            return "the proxy has no filters: it answers 500 to every request"
        return "the proxy runs other filters" + (f", and refused {self.rejected} updates" if self.rejected else "")


def read_running(stats: str) -> dict[str, Slot]:
    """Read the answer of ``STATS``: the slots that the proxy's listeners name, by name."""
    found: dict[str, Slot] = {}
    for name, stat, value in _STAT.findall(stats):
        slot = found.get(name, Slot(name))
        if stat == "version_text":
            slot = replace(slot, running=value)
        elif stat == "config_fail":
            slot = replace(slot, rejected=int(value))
        found[name] = slot
    return found


def read_rendered(state: Path, proxy: str) -> dict[str, str]:
    """Versions by slot that a state directory holds for a proxy. Raises OSError."""
    found = {}
    for path in sorted((state / "ecds").glob(f"{_literal(proxy)}.*.json")):
        slot = path.name.removeprefix(f"{proxy}.").removesuffix(".json")
        if "." in slot:  # of another proxy whose name begins alike
            continue
        with path.open("rb") as file:
            version = _VERSION.match(file.read(_HEAD))
        found[slot] = version[1].decode("utf-8", "replace") if version else "unreadable"
    return found


def rendered_proxies(state: Path) -> tuple[str, ...]:
    """Names of the proxies for which a state directory holds filters. Raises OSError."""
    names = (path.name.removesuffix(".json").rpartition(".")[0] for path in (state / "ecds").glob("[!.]*.*.json"))
    return tuple(sorted(set(names)))


def compare(running: Mapping[str, Slot], rendered: Mapping[str, str]) -> tuple[Slot, ...]:
    """Every slot that runs or is rendered, by name; a proxy that asks the check has none."""
    return tuple(
        replace(running.get(name, Slot(name)), rendered=rendered.get(name, ""))
        for name in sorted(running.keys() | rendered.keys())
    )


def last_refusal(log: Path) -> str:
    """Return, on one line, what Envoy last logged about a file that it refused; empty without such a line or a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL))
            found: list[str] = _REFUSED.findall(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""
    if not found:
        return ""
    lines = [line.strip() for line in found[-1].strip().splitlines() if line.strip()]
    return lines[-1].removeprefix(":").strip()[:400]


def _literal(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
