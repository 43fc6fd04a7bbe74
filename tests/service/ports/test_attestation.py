"""Which binary is at the other end of a socket: a real process, and all that can come between."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.identity.registration import UnixPeer
from authz.service.ports import attestation
from authz.service.ports.attestation import attest, boot_time, peer_credentials

BOTH = frozenset({"path", "sha256"})
CONNECT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.set_inheritable(True)
if sys.argv[2] == "forks" and os.fork():
    os._exit(0)
print(flush=True)
if sys.argv[2] == "becomes":
    os.execv(sys.argv[3], [sys.argv[3], "60"])
sys.stdin.read()
"""


@contextmanager
def connected(folder: Path, does: str = "waits", other: str = "") -> Iterator[socket.socket]:
    """Our end of a connection that another process made."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        command = [sys.executable, "-c", CONNECT, str(folder / "s"), does, other]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            assert process.stdout is not None
            process.stdout.readline()
            if does == "forks":
                process.wait(10)
            with connection:
                yield connection
            process.kill()


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


PYTHON = os.path.realpath(sys.executable)
ME = (os.getuid(), os.getgid())


def test_a_process_is_known_by_its_binary(tmp_path: Path) -> None:
    with connected(tmp_path) as connection:
        assert peer_credentials(connection) == UnixPeer(*ME)
        for wanted, path, content in (
            (frozenset[str](), "", ""),
            (frozenset({"path"}), PYTHON, ""),
            (frozenset({"sha256"}), "", digest(PYTHON)),
            (BOTH, PYTHON, digest(PYTHON)),
        ):
            assert attest(connection, wanted, boot_time()) == UnixPeer(*ME, path, content)
        peer = attest(connection, BOTH, boot_time())
        assert peer.unknown == ""
        assert peer.selectors == {
            f"unix:uid:{ME[0]}", f"unix:gid:{ME[1]}", f"unix:path:{PYTHON}", f"unix:sha256:{digest(PYTHON)}"
        }  # fmt: skip
        assert str(peer) == f"unix:uid:{ME[0]},gid:{ME[1]},path:{PYTHON},sha256:{digest(PYTHON)}"


def test_a_process_that_has_ended_is_unknown_though_somebody_else_holds_the_connection(tmp_path: Path) -> None:
    with connected(tmp_path, "forks") as connection:
        peer = attest(connection, BOTH, boot_time())
    assert (peer.path, peer.sha256) == ("", "")
    assert peer.unknown.startswith("its binary is not known: ")
    assert peer.selectors == {f"unix:uid:{ME[0]}", f"unix:gid:{ME[1]}"}


def test_a_binary_that_was_replaced_is_unknown(tmp_path: Path) -> None:
    copy = tmp_path / "sleeper"
    shutil.copy(str(shutil.which("sleep")), copy)
    with connected(tmp_path, "becomes", other=str(copy)) as connection:
        _until(lambda: attest(connection, BOTH, boot_time()).path == str(copy))
        copy.unlink()
        shutil.copy(str(shutil.which("true")), copy)
        assert attest(connection, BOTH, boot_time()).unknown == (
            "its binary is not known: its file was deleted or replaced"
        )


def _until(condition: object) -> None:
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        os.sched_yield()
    raise AssertionError("it did not happen")


def test_an_old_kernel_gives_the_number_alone_and_a_successor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SO_PEERPIDFD does not exist, the process must have begun before the connection was accepted."""
    monkeypatch.setattr(attestation, "SO_PEERPIDFD", 9999)
    with connected(tmp_path) as connection:
        assert attest(connection, BOTH, boot_time() + 1) == UnixPeer(*ME, PYTHON, digest(PYTHON))
        peer = attest(connection, BOTH, boot_time() - 3600)
        assert peer.unknown == "its binary is not known: the process began after the connection"
        assert peer.path == ""


def test_a_path_that_is_no_text_is_unknown(tmp_path: Path) -> None:
    strange = f"{tmp_path}/sl\udcffeep"
    shutil.copy(str(shutil.which("sleep")), strange)
    with connected(tmp_path, "becomes", other=strange) as connection:
        _until(lambda: attest(connection, frozenset({"path"}), boot_time()).path == "")
        _until(lambda: "written as a selector" in attest(connection, frozenset({"path"}), boot_time()).unknown)


def test_a_content_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(tmp_path) as connection:
        attest(connection, BOTH, boot_time())
        monkeypatch.setattr(hashlib, "file_digest", None)
        assert attest(connection, BOTH, boot_time()).sha256 == digest(PYTHON)


def test_the_content_of_a_file_that_just_changed_is_not_remembered(tmp_path: Path) -> None:
    """Another change in the same tick would have the same times, and the digest of what it replaced."""
    attestation._DIGESTS.clear()
    fresh = shutil.copy(str(shutil.which("sleep")), tmp_path / "sleep")
    with connected(tmp_path, "becomes", other=str(fresh)) as connection:
        _until(lambda: attest(connection, BOTH, boot_time()).path == str(fresh))
        assert attest(connection, BOTH, boot_time()).sha256 == digest(str(fresh))
    changed = os.stat(fresh).st_ctime_ns
    assert [key for key in attestation._DIGESTS if key[-1] == changed] == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it forks beside threads of other tests
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_users_process_is_unknown_to_whoever_may_not_look(tmp_path: Path) -> None:
    """Without root, ``/proc/PID/exe`` of another user cannot be read: fail closed."""
    tmp_path.chmod(0o755)
    with connected(tmp_path) as connection:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            os.write(write, attest(connection, BOTH, boot_time()).unknown.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 200) == b"its binary is not known: Permission denied"
        os.close(read)
        os.close(write)
