"""Check 11: an Envoy's version against published weaknesses, which are data with their sources beside this file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from authz.analysis.hardening.checklist import Finding
from authz.core.errors import Severity

FILE = "envoy_vulnerabilities.json"
OLD_DAYS = 180
"""After that the list itself is worth a remark."""
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One published weakness of Envoy."""

    id: str
    touches: str
    summary: str
    fixed: tuple[Version, ...]
    """The first good version of every release line that got one."""
    introduced: Version
    sources: tuple[str, ...]

    def affects(self, version: Version) -> bool:
        """Whether a version is older than the correction of its line, or than every line that has one."""
        if version < self.introduced:
            return False
        own = next((fixed for fixed in self.fixed if fixed[:2] == version[:2]), None)
        return version < own if own is not None else version < min(self.fixed)


@dataclass(frozen=True, slots=True)
class Listed:
    """The list."""

    until: float
    """Seconds since the epoch: what was published later is not in it."""
    maintained: tuple[tuple[int, int], ...]
    vulnerabilities: tuple[Vulnerability, ...]


@cache
def known() -> Listed:
    """Read the list."""
    told = json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    return Listed(
        datetime.fromisoformat(told["until"]).replace(tzinfo=UTC).timestamp(),
        tuple((int(a), int(b)) for a, b in (line.split(".") for line in told["maintained"])),
        tuple(
            Vulnerability(
                one["id"],
                one["touches"],
                one["summary"],
                tuple(sorted(read_version(text) for text in one["fixed"])),
                read_version(one.get("introduced", "0.0.0")),
                tuple(one["sources"]),
            )
            for one in told["vulnerabilities"]
        ),
    )


def read_version(text: str) -> Version:
    """``1.40.0``, also within what ``/server_info`` says. Raises ValueError."""
    for part in text.split("/"):
        numbers = part.partition("-")[0].split(".")
        if len(numbers) == 3 and all(number.isdigit() for number in numbers):
            return int(numbers[0]), int(numbers[1]), int(numbers[2])
    raise ValueError(f"`{text[:80]}` is not a version of Envoy")


def judge_version(proxy: str, version: Version, now: float) -> Iterator[Finding]:
    """Yield each weakness that a proxy's version has, and that nobody corrects its line any more."""
    where, listed = f"proxy {proxy}, Envoy {_shown(version)}", known()
    for one in listed.vulnerabilities:
        if one.affects(version):
            own = [fixed for fixed in one.fixed if fixed[:2] == version[:2]]
            target = _shown(own[0]) if own else f"{_shown(max(one.fixed))} or newer"
            do = f"update to {target}; {one.sources[0]}"
            yield Finding(11, where, f"{one.id} ({one.touches}): {one.summary}", do, Severity.ERROR)
    if version[:2] < min(listed.maintained):
        oldest = ".".join(map(str, min(listed.maintained)))
        yield Finding(11, where, "its release line no longer gets corrections", f"update to {oldest} or newer")
    if now - listed.until > OLD_DAYS * 86_400:
        age = int((now - listed.until) / 86_400)
        yield Finding(
            11, where, f"the list of weaknesses is {age} days old", "update authz, and look at Envoy's own advisories",
            Severity.INFO,
        )  # fmt: skip


def _shown(version: Version) -> str:
    return ".".join(map(str, version))
