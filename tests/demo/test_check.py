"""``authz demo`` as a user runs it: the check from end to end, two demos at once, and a clean end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.layout import Layout, ports_of
from authz.demo.prepare import plan
from authz.local.busy import busy_ports
from tests.service.test_both_servers import needs_hosting

ROOT = Path(__file__).parent.parent.parent
ARGUMENTS = ("--policies", str(ROOT / "policies"), "--mesh", str(ROOT / "envoy-configs" / "mesh.yaml"))
TRAFFIC, EVERYTHING = ROOT / "traffic", ROOT / "tests" / "demo" / "everything"
LONGEST_SECONDS = 400
"""Of a whole check on a busy machine."""
NOTHING = "no rules of traffic"
WAYS = [
    pytest.param((), id="server"),
    pytest.param(("--server", "envoy", "--traffic", str(EVERYTHING)), id="hosted-everything", marks=needs_hosting),
    pytest.param(("--authz", "embedded", "--traffic", NOTHING), id="embedded", marks=needs_hosting),
    pytest.param(("--traffic", str(EVERYTHING), "--enforce", "native"), id="native-everything"),
]
"""
Who decides: a server of its own, one hosted in Envoy, every proxy with a server inside, or Envoy's own filters.

With the demo's own rules of traffic, which scenarios try; with all that rules can do, which must change no decision; or
with none. Each takes a minute and a half, so not every way is tried with all of them.
"""

pytestmark = [pytest.mark.envoy, pytest.mark.slow]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Ports that nothing else uses: tests run beside each other, and beside a demo."""
    first = 1000 + os.getpid() % 40 * 100
    for offset in range(first, first + 8000, 100):
        found = plan(tmp_path / "state", ROOT / "policies", ROOT / "envoy-configs" / "mesh.yaml", offset=offset)
        if not busy_ports(ports_of(found.mesh, offset)):
            return found
    pytest.fail("no free ports")


def command(layout: Layout, *more: str) -> list[str]:
    state = ("--state", str(layout.state), "--port-offset", str(layout.offset))
    traffic = () if "--traffic" in more else ("--traffic", str(TRAFFIC))
    return [sys.executable, "-m", "authz", "demo", *ARGUMENTS, *traffic, *state, *more]


def children(layout: Layout) -> Iterator[int]:
    """Every process that works in the state directory."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == layout.state:
                yield int(entry.name)
        except OSError:
            continue


def nobody_left(layout: Layout) -> bool:
    ends = time.monotonic() + 5
    while list(children(layout)) and time.monotonic() < ends:
        time.sleep(0.05)
    return not list(children(layout))


def until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read the output until a line has this text; the test's own time is the bound."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"ended without `{text}`:\n{read}")


@pytest.mark.parametrize("way", WAYS)
def test_every_scenario_holds_on_real_envoys(layout: Layout, tmp_path: Path, way: tuple[str, ...]) -> None:
    nothing = tmp_path / "no rules"
    nothing.mkdir()
    asked = command(layout, "--check", "-o", "json", *(str(nothing) if word is NOTHING else word for word in way))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    failed = [
        f"{scenario['group']}: {scenario['name']}: expected {scenario['expected']}, got {scenario['actual']}"
        for scenario in answer["scenarios"]
        if not scenario["ok"]
    ]
    assert failed == []
    assert done.returncode == 0
    assert len(answer["scenarios"]) >= 100
    assert nobody_left(layout)


def test_the_demo_says_what_to_try_and_ends_cleanly(layout: Layout) -> None:
    with subprocess.Popen(command(layout), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        said = until(demo, "Decisions")
        assert f"https://localhost:{layout.ingress_port}/" in said
        assert len(list(children(layout))) == 25
        second = subprocess.run(command(layout), capture_output=True, text=True, timeout=30)
        assert second.returncode == 1
        assert "another demo runs in" in second.stdout + second.stderr
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 0
    assert nobody_left(layout)


def test_nothing_is_left_when_the_demo_is_killed(layout: Layout) -> None:
    with subprocess.Popen(command(layout), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        until(demo, "Decisions")
        demo.kill()
    assert nobody_left(layout)
