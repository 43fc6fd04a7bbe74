"""One server for all tests of a module; each takes keys of its own."""

from collections.abc import Iterator

import pytest

from authz.truth.truth_client import TruthClient
from tests.nats_server import NatsServers, shared_servers

servers = shared_servers()


@pytest.fixture(scope="module")
def client(servers: NatsServers) -> Iterator[TruthClient]:
    with servers.client() as connected:
        yield connected
