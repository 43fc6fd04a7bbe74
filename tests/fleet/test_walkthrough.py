"""docs/fleet.md as it is written: its commands typed on three machines, in its order."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import authz
from tests.fleet.network import Network, missing_right, until

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # some forty commands, one after another
    pytest.mark.skipif(bool(missing_right()), reason=missing_right()),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks by curl"),
]
PAGE = Path(authz.__file__).parent.parent / "docs" / "fleet.md"
BLOCK = re.compile(r"^```(sh|yaml)\n# (\S+?)(, stays)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
MACHINES = ("one", "two", "three")
STAYING_READY_SECONDS = 120.0


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with Network(tmp_path, MACHINES) as network:
        commands = tmp_path / "bin"
        write_programs(commands, network)
        environment = {"PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        exported = dict.fromkeys(MACHINES, "")
        for kind, where, stays, text in BLOCK.findall(PAGE.read_text()):
            if kind == "yaml":
                file = network.folders["one"] / where
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
                continue
            machine = where.removesuffix(".example")
            lines = text.replace("\\\n", " ").splitlines()
            staying = lines.pop() if stays else ""
            for line in lines:
                if line.startswith("export "):  # of the terminal in which everything on this machine is typed
                    exported[machine] += line + "\n"
                else:
                    typed(network, machine, line, exported[machine], environment)
            if staying:
                script = f"{exported[machine]}exec {staying}"
                network.start(machine, "bash", "-c", script, log=f"{staying.split()[0]}.log", environment=environment)


def typed(network: Network, machine: str, line: str, exported: str, environment: dict[str, str]) -> None:
    """A command, again until what stays is ready for it; one with a comment prints that."""
    command, _, expected = (part.strip() for part in line.partition("  #"))
    said: list[str] = []

    def is_done() -> bool:
        try:
            said[:] = [network.run(machine, exported + command, environment)]
        except AssertionError as error:
            said[:] = [str(error)]
            return False
        return not expected or said[0].strip() == expected

    try:
        until(is_done, command, STAYING_READY_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{machine}: {command}\n{said}\n{network.logs()}") from error


def write_programs(directory: Path, network: Network) -> None:
    """``scp`` between folders, and an ``envoy`` that shares no memory with those of the other machines."""
    directory.mkdir()
    folders = network.folders["one"].parent
    for name, script in {
        "scp": f'for last; do :; done\ncp -r "${{@:1:$#-1}}" "{folders}/${{last%%.example:*}}/${{last#*:}}"',
        "envoy": f'exec {Path(sys.executable).parent}/envoy --disable-hot-restart --concurrency 1 -l warning "$@"',
    }.items():
        (directory / name).write_text(f"#!/bin/bash\n{script}\n")
        (directory / name).chmod(0o755)
