"""Key sets in a real truth, as the servers that share them see it."""

from collections.abc import Mapping
from typing import Any

import pytest

from authz.core.errors import AuthzError
from authz.truth.truth_client import TruthAway, TruthClient
from authz.truth.truth_key_store import TruthKeyStore
from tests.nats_server import NatsServers


class Signing:
    """Signs nothing; without its files it cannot."""

    def __init__(self, *, has_files: bool = True) -> None:
        self.has_files = has_files

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        self._demand_files()
        return str(dict(payload)).encode()

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        self._demand_files()
        return {"data": data, "now": now}

    def _demand_files(self) -> None:
        if not self.has_files:
            raise FileNotFoundError(2, "No such file or directory", "tls.crt")


def test_a_key_set_is_changed_only_by_whoever_saw_the_last_one(client: TruthClient) -> None:
    store = TruthKeyStore(client, Signing(), is_lent=True)
    assert store.get("changed") is None
    assert store.change("changed", b"1", 0)
    assert not store.change("changed", b"2", 0)
    found = store.get("changed")
    assert found is not None
    value, revision = found
    assert value == b"1"
    assert store.change("changed", b"2", revision)
    store.put("changed", b"3")
    assert not store.change("changed", b"4", revision + 1)
    found = store.get("changed")
    assert found is not None
    assert found[0] == b"3"


def test_those_of_another_role_are_kept_beside(client: TruthClient) -> None:
    servers, controls = (TruthKeyStore(client, Signing(), among=among, is_lent=True) for among in ("", "control"))
    servers.put("beside", b"server's")
    assert controls.get("beside") is None
    assert controls.change("beside", b"control's", 0)
    assert [found[0] for store in (servers, controls) if (found := store.get("beside"))] == [b"server's", b"control's"]


def test_only_a_client_of_its_own_is_stopped(servers: NatsServers) -> None:
    own, lent = servers.client(), servers.client()
    stores = TruthKeyStore(own, Signing()), TruthKeyStore(lent, Signing(), is_lent=True)
    for store in stores:
        assert store.get("nobody's") is None  # the first question waits for the connection
        store.close()
    try:
        assert stores[1].get("nobody's") is None
        with pytest.raises(TruthAway):
            stores[0].get("nobody's")
    finally:
        lent.stop()


def test_files_that_cannot_be_read_are_an_error_that_says_whose(client: TruthClient) -> None:
    store = TruthKeyStore(client, Signing(), is_lent=True)
    assert store.unseal(store.seal({"a": 1}), 5.0) == {"data": b"{'a': 1}", "now": 5.0}
    store = TruthKeyStore(client, Signing(has_files=False), is_lent=True)
    for act in (lambda: store.seal({}), lambda: store.unseal(b"", 0.0)):
        with pytest.raises(AuthzError, match=r"the certificate of this server: .*tls\.crt"):
            act()
