"""Of many proxies that extensions concern, an Envoy is shown those that differ."""

import stat
from pathlib import Path
from typing import Any

from authz.control.extension_validation import ShownExtensions, refused_by_envoy

COUNTING = """#!/bin/sh
echo shown >> {log}
grep -q REFUSED envoy.json || exit 0
echo no >&2
exit 1
"""


def bootstrap(name: str, address: str, port: int, more: str = "") -> dict[str, Any]:
    place = {"socket_address": {"address": address, "port_value": port}}
    return {"node": {"id": name}, "listeners": [{"name": f"inbound_{port}", "address": place, "stat_prefix": more}]}


def test_proxies_that_differ_in_names_addresses_and_ports_are_shown_once(tmp_path: Path) -> None:
    log, envoy = tmp_path / "log", tmp_path / "envoy"
    envoy.write_text(COUNTING.format(log=log))
    envoy.chmod(envoy.stat().st_mode | stat.S_IXUSR)
    shown = {
        **{f"web-{i}": bootstrap(f"web-{i}", f"10.0.0.{i}", 15000 + i) for i in range(20)},
        "other": bootstrap("other", "10.0.1.1", 15001, "of another sort"),
        "wrong": bootstrap("wrong", "nowhere", 15002),
        "refused": bootstrap("refused", "10.0.1.2", 15003, "REFUSED"),
        "beyond": bootstrap("beyond", "10.0.1.3", 99999),
    }
    said: list[str] = []
    problems = refused_by_envoy(str(envoy), tmp_path, ShownExtensions(lambda _: shown, ()), said.append)
    assert len(log.read_text().splitlines()) == 5 + 1, "each sort once, and the refused one again for its blame"
    assert said == ["showing Envoy 5 distinct of the 24 proxies that extensions concern"]
    (problem,) = problems
    assert "Envoy refuses `refused`" in problem.message
