"""
Our command on a machine: `python command_line.py`, told by lines of JSON, answers each with one.

Every command is a fork of this process, which has read most of the program already: nearly a second of CPU less.
"""

import json
import os
import selectors
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import authz.cli.fleet_status
import authz.cli.policy_push
import authz.truth.policy_revisions
import authz.truth.report_store  # noqa: F401  # read for the commands
from authz.cli import main
from tests.fleet.network import Network

COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Typed:
    """What became of a command."""

    code: int
    out: str
    remarks: str


class CommandLine:
    """Where commands are typed on a machine, one after another."""

    def __init__(self, network: Network, machine: str) -> None:
        self._machine = machine
        program = Path(__file__)
        environment = {"PYTHONPATH": str(program.parents[2])}
        self._process = network.attach(machine, sys.executable, str(program), environment=environment)
        self._lock = threading.Lock()

    def type(self, arguments: str) -> Typed:
        """Run a command in the machine's folder, and wait until it has ended."""
        told, said = self._process.stdin, self._process.stdout
        assert told is not None
        assert said is not None
        with self._lock, selectors.DefaultSelector() as selector:
            told.write(json.dumps(arguments.split()).encode() + b"\n")
            told.flush()
            selector.register(said, selectors.EVENT_READ)
            assert selector.select(COMMAND_SECONDS), f"on {self._machine}: no end of `authz {arguments}`"
            return Typed(**json.loads(said.readline()))


def run(arguments: list[str]) -> dict[str, object]:
    """One command: its exit code, and what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as remarks:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(remarks.fileno(), 2)
            be(arguments)
        _, status = os.waitpid(child, 0)
        said = []
        for file in (out, remarks):
            file.seek(0)
            said.append(file.read().decode())
    return {"code": os.waitstatus_to_exitcode(status), "out": said[0], "remarks": said[1]}


def be(arguments: list[str]) -> NoReturn:
    """End as the command does."""
    sys.argv = ["authz", *arguments]
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
