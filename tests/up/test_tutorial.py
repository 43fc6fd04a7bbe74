"""The tutorial, as it is written: its commands run in its order against real Envoys, and print what it says."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import authz
from authz.local.busy import busy_ports
from authz.starter.mesh_plan import INGRESS_OFFSET
from tests.up.own import Up, environment, free_first_port, until

TUTORIAL = Path(authz.__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
MOST_COMMANDS = 4
MOST_LINES_OF_YAML = 30


def steps() -> Iterator[tuple[str, str]]:
    """Every command of the page, with what is printed there."""
    for block in BLOCK.findall(TUTORIAL.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.replace("\\\n", " ").partition("\n")
            yield command, printed


def shifted(text: str, first: int) -> str:
    """Ports of the page, made those of this run."""
    text = re.sub(r"\b15(\d\d\d)\b", lambda found: str(first + int(found[1])), text)
    text = text.replace(":8080", f":{first + 30}").replace(":9000", f":{first + 31}")
    return text.replace("authz init shop", f"authz init shop --first-port {first}")


def as_written(folder: Path, script: str, printed: str, said: list[str]) -> bool:
    """Whether a command prints what the page says; what it printed is left in ``said``."""
    ran = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
    said[:] = [ran.stdout, ran.stderr]
    return ran.stdout == printed or (not printed and ran.returncode == 0)


def test_it_takes_no_more_commands_and_yaml_than_promised() -> None:
    commands = [command for command, _ in steps()]
    assert commands.index("authz up shop") < MOST_COMMANDS
    yaml_lines = sum(
        len(found.splitlines()) for found in re.findall(r"^```yaml\n(.*?)^```", TUTORIAL.read_text(), re.M | re.S)
    )
    assert yaml_lines <= MOST_LINES_OF_YAML


@pytest.mark.slow
@pytest.mark.envoy
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial asks by curl")
def test_every_command_does_what_the_page_says(tmp_path: Path) -> None:
    first = free_first_port()
    up: Up | None = None
    definitions = ""
    try:
        for written, printed in steps():
            command = shifted(written, first)
            if command.startswith("pip "):
                continue
            if command.startswith("authz up"):
                up = Up(tmp_path, command.split()[2:])
                continue
            if re.match(r"\w+\(\)|[A-Z]+=", command):  # of the shell: for the commands after it
                definitions += command + "\n"
                continue
            said: list[str] = []
            is_asked = command.startswith("ask")  # whoever asks waits a moment for what was edited
            run_again = partial(as_written, tmp_path, definitions + command, printed, said)
            assert until(run_again, 10.0 if is_asked else 0.0), (command, printed, said)
        assert up is not None
        assert up.interrupt() == 0, up.said()
        assert busy_ports([*range(first, first + 40), first + INGRESS_OFFSET]) == ()
    finally:
        if up is not None:
            up.kill()
