"""The Go client, compiled once for all tests of this folder that need it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.authority.workload import short_directory

NOT_HERE = ("dial tcp", "no such host", "i/o timeout", "proxyconnect", "go.mod requires go >=")
"""What Go says without a network, or when it is too old."""
SOURCE = Path(__file__).parents[2] / "identity" / "gospiffe"


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture(scope="session")
def go_spiffe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    A program with go-spiffe, whose modules Go downloads by its own checksums.

    Half a minute of compiling the first time, seconds afterwards.
    """
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed, and the client is compiled when it is needed")
    binary = tmp_path_factory.mktemp("go") / "gospiffe"
    command = [go, "build", "-mod=readonly", "-o", str(binary), "."]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=300)
    if any(mark in done.stderr for mark in NOT_HERE):
        pytest.skip(f"go-spiffe cannot be built here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return str(binary)
