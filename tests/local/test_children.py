"""Children: started, asked, stopped, and gone with their parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from authz.local.children import Command, LocalError, last_lines, start, stop
from authz.local.ready import ask, ask_all, wait_until_ready

SERVER = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
server.serve_forever()
"""
STUBBORN = (
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
)
PARENT = """
import asyncio, sys
from pathlib import Path
from authz.local.children import Command, start
async def main():
    child = await start(Command("child", "sleeper", ("sleep", "60")), Path(sys.argv[1]))
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def python(name: str, code: str, *arguments: str, ready: str = "") -> Command:
    return Command(name, "test", (sys.executable, "-c", code, *arguments), ready)


def is_alive(pid: int) -> bool:
    """Zombies count as gone: in a container nobody may reap them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 5) -> bool:
    ends = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < ends:
        time.sleep(0.02)
    return not is_alive(pid)


def logged(state: Path, name: str, text: str, seconds: float = 5) -> str:
    """Wait until the log of a child has this text."""
    ends = time.monotonic() + seconds
    while text not in last_lines(state, name) and time.monotonic() < ends:
        time.sleep(0.01)
    return last_lines(state, name)


async def test_a_child_works_in_the_state_directory_and_logs_there(state: Path) -> None:
    child = await start(python("one", "import os; print(os.getcwd())"), state)
    assert await child.process.wait() == 0
    assert last_lines(state, "one") == str(state)
    assert (state / "logs" / "one.log").stat().st_mode & 0o777 == 0o600


async def test_settings_of_the_demo_do_not_reach_the_children(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_DEMO_STATE", "/x")
    child = await start(python("two", "import os; print([n for n in os.environ if n.startswith('AUTHZ_')])"), state)
    await child.process.wait()
    assert last_lines(state, "two") == "[]"


async def test_a_command_may_have_variables_of_its_own(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_POLICIES", "of the demo")
    code = "import os; print(os.environ.get('AUTHZ_POLICIES'), os.environ.get('AUTHZ_MESH'))"
    child = await start(replace(python("three", code), environment={"AUTHZ_MESH": "mine"}), state)
    await child.process.wait()
    assert last_lines(state, "three") == "None mine"


async def test_a_child_that_ignores_sigterm_is_killed(state: Path) -> None:
    child = await start(python("stubborn", STUBBORN), state)
    assert await asyncio.to_thread(logged, state, "stubborn", "here") == "here"
    await stop(child, grace_seconds=0.1)
    assert child.process.returncode == -signal.SIGKILL


async def test_grandchildren_go_too(state: Path) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, 'is it', flush=True); p.wait()"
    child = await start(python("family", code), state)
    grandchild = int((await asyncio.to_thread(logged, state, "family", "is it")).split()[0])
    await stop(child)
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_children_end_when_their_parent_is_killed(state: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(state)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


async def test_readiness_is_asked_for_until_it_is_there(state: Path, unused_tcp_port: int) -> None:
    command = python("server", SERVER, str(unused_tcp_port), ready=f"http:{unused_tcp_port}/")
    assert "Connect call failed" in await ask(command.ready, state)
    child = await start(command, state)
    try:
        assert await wait_until_ready(child, state) < 10
        assert await ask(f"tcp:{unused_tcp_port}", state) == ""
        assert "404" in await ask(f"http:{unused_tcp_port}/nothing", state)
        assert "No such file" in await ask("envoy:run/none.sock", state)
        assert await ask_all(f"tcp:{unused_tcp_port} http:{unused_tcp_port}/", state) == ""
        assert "No such file" in await ask_all(f"tcp:{unused_tcp_port} authz:run/none.sock", state)
    finally:
        await stop(child)


async def test_a_child_that_ends_while_it_starts_says_its_last_words(state: Path) -> None:
    child = await start(python("brief", "import sys; sys.exit('no such luck')", ready="tcp:9"), state)
    with pytest.raises(LocalError, match=r"(?s)brief ended with code 1 while it started:.*no such luck"):
        await wait_until_ready(child, state)
