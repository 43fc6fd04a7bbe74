"""``--server auto``: the fastest that works here, and a line that says why."""

from pathlib import Path
from typing import Literal

import pytest

from authz.core.errors import SettingsError
from authz.service.workers import choose
from authz.service.workers.envoy_host import Hosting
from authz.settings.settings import Settings


@pytest.mark.parametrize("named", ["grpcio", "envoy"])
def test_a_server_that_was_named_is_never_another(
    named: Literal["grpcio", "envoy"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "find_hosting", lambda: pytest.fail("nobody asked"))
    settings = Settings(server=named)
    assert choose.choose_server(settings) == (settings, "")


def test_envoy_hosts_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_hosting", lambda: Hosting(Path("/x/envoy"), Path("/x/m.so"), Path("/x/lib.so")))
    settings, why = choose.choose_server(Settings(workers=3))
    assert (settings.server, settings.workers) == ("envoy", 3)
    assert why.startswith("envoy, which hosts the workers")


def test_grpcio_serves_elsewhere_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Hosting:
        raise SettingsError("this Python has no shared library: install libpython, or choose --server grpcio")

    monkeypatch.setattr(choose, "find_hosting", missing)
    settings, why = choose.choose_server(Settings())
    assert settings.server == "grpcio"
    assert why.endswith("but this Python has no shared library: install libpython")


@pytest.mark.parametrize(
    ("carrier", "server"), [("grpc", "grpcio"), ("grpc:127.0.0.1:9192", "envoy"), ("file:logs", "envoy")]
)
def test_streams_to_addresses_of_their_own_leave_the_choice(
    carrier: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "find_hosting", lambda: Hosting(Path("/x/envoy"), Path("/x/m.so"), Path("/x/lib.so")))
    assert choose.choose_server(Settings(access_logs=(carrier,)))[0].server == server


def test_nothing_is_chosen_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_hosting", lambda: pytest.fail("nobody asked"))
    settings, why = choose.choose_server(Settings(listen=("none",), access_logs=("file:logs",)))
    assert (settings.server, settings.listen) == ("grpcio", ())
    assert why == "none: access logs are recorded, no check is answered"
