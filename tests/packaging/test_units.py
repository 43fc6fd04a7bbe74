"""The units for systemd: as its own tools judge them, and as a real systemd runs them, sandbox and all."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging" / "systemd"
NAMES = sorted(path.name for path in UNITS.glob("*.service"))
MOST_EXPOSED = 20
"""In tenths of `systemd-analyze security`'s scale, where 100 is no sandbox at all."""
SYSTEMD = Path("/usr/lib/systemd/systemd")
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, "TERM": "dumb"}
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as on a machine: their program exists, and templates have an instance."""
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/authz/bin/authz", shutil.which("true") or "/bin/true")
        (tmp_path / name.replace("@.", "@root.")).write_text(text)
    return tmp_path


@needs_analyze
@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_nothing_to_say_against_a_unit(installed: Path, name: str) -> None:
    done = analyze("verify", "--man=no", str(installed / name.replace("@.", "@root.")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_locked_in(installed: Path, name: str) -> None:
    unit = str(installed / name.replace("@.", "@root."))
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_calls_commands_and_options_that_exist(name: str) -> None:
    text = (UNITS / name).read_text().replace("\\\n", " ")
    commands = re.findall(r"^Exec\w+=/opt/authz/bin/authz (.*)$", text, re.M)
    assert commands, "every unit runs the program"
    for command in commands:
        words = command.split()
        verbs = words[: next(at for at, word in enumerate(words) if word.startswith("-"))]
        told = subprocess.run(
            [sys.executable, "-m", "authz", *verbs, "--help"], capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert told.returncode == 0, told.stderr
        assert [word for word in words if word.startswith("--") and word not in told.stdout] == []


def can_boot() -> str:
    """Why a systemd of our own cannot be started here; empty when it can."""
    if os.geteuid():
        return "takes root"
    if not SYSTEMD.exists() or not shutil.which("unshare") or not shutil.which("setpriv"):
        return "there is no systemd, unshare or setpriv"
    tried = subprocess.run(
        ["unshare", "--fork", "--pid", "--mount", "--cgroup", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
    )
    return "" if tried.returncode == 0 else "this container may make no namespaces"


@pytest.mark.slow
def test_a_real_systemd_runs_all_of_them_in_their_sandbox(tmp_path: Path) -> None:
    """In namespaces with their own files: an authority, a workload that joins, two servers, a renderer, a recorder."""
    if reason := can_boot():
        pytest.skip(reason)
    done = subprocess.run(
        [
            *("unshare", "--fork", "--kill-child", "--pid", "--mount", "--cgroup", "--ipc"),
            *("bash", str(Path(__file__).with_name("boot.sh")), sys.executable, str(ROOT), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(tmp_path.glob("*.log")))
    error = (tmp_path / "error").read_text() if (tmp_path / "error").exists() else ""
    assert (tmp_path / "found.json").exists(), f"{error}\n{logs}\n{done.stdout}\n{done.stderr}"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {
        "joined": True,
        "key": "web:web 0600",
        "sds socket": "authz-ca:authz-ca 0666",
        "socket": "authz:envoy 0660",
        "decided": [[0, 7], [0, 7]],
        "decided after": [[0, 7], [0, 7]],
        "other socket stays": True,
        "record": "authz:envoy 0640",
        "rendered": "authz:envoy 0640",
        "gives way": True,
        "positions": "authz:envoy 0640",
        "active": {"authz-ca": "active", "authz-join@web": "active"},
        "failed": "",
        "seccomp": "2",
    }
