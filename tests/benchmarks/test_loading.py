"""What policies may cost; measured in a process of its own, as the benchmark does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_memory_of_a_policy_is_bounded(tmp_path: Path) -> None:
    """Some 8 kB with everything that is looked up by; twelve are a mistake."""
    command = [sys.executable, "-m", "benchmarks.loading", "--only", "10,000 policies", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["policies"] == 10_000
    assert 1_000 < found["bytes_each"] < 12_000
