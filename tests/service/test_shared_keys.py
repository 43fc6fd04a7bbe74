"""Key sets in a real bucket behind mutual TLS, signed by certificates of the servers that share them."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.service.shared_keys import key_sharing
from authz.settings.precedence import read_settings
from authz.settings.sections import Sections
from authz.sources.keys.key_sharing import KeySharing
from authz.truth.server_configuration import TruthRole
from authz.truth.truth_bucket import KEY_SETS, TruthBucket
from tests.nats_server import NatsServers, shared_servers

SOURCE = "uri:https://issuer/keys"


servers = shared_servers(tls=True)


def sharing(servers: NatsServers, role: TruthRole = TruthRole.READER) -> KeySharing:
    access = servers.access(role.path)
    told: dict[str, object] = {
        "jwks_shared": str(servers.address), "truth_ca": access.ca, "truth_certificate": access.certificate,
        "truth_key": access.key, "truth_name": access.name,
    }  # fmt: skip
    parts = Sections.of(read_settings(told, environment={}))
    found = key_sharing(parts.keys, parts.truth, time.time)
    assert found is not None
    return found


async def obtained(one: KeySharing, text: str, newer_than: float | None = None) -> str:
    async def fetch() -> tuple[str, Mapping[str, str]]:
        return json.dumps({"keys": [{"kty": "EC", "kid": text}]}), {}

    got = await one.obtain(SOURCE, newer_than, fetch, lambda _: 1200.0)
    return str(json.loads(got.text)["keys"][0]["kid"])


async def test_what_one_server_fetched_another_takes_and_nobody_else_can_put_it_there(servers: NatsServers) -> None:
    first, second, authority = (
        sharing(servers), sharing(servers), sharing(servers, TruthRole.AUTHORITY),
    )  # fmt: skip
    try:
        assert await obtained(first, "of the first") == "of the first"
        assert await obtained(second, "of the second") == "of the first"
        assert await obtained(authority, "of another role") == "of another role"
        assert await obtained(second, "of the second") == "of the second", "which another role has signed"
        with servers.client() as client:
            bucket = TruthBucket(client, KEY_SETS)
            key = next(key for key in bucket.entries() if key.startswith("set."))
            bucket.put(key, b'{"type":"io.nats.jetstream.api.v1.stream_info_response"}')
        assert await obtained(first, "fetched") == "fetched"
    finally:
        for one in (first, second, authority):
            await one.close()


def test_without_certificates_key_sets_are_not_shared(tmp_path: Path) -> None:
    parts = Sections.of(read_settings({"jwks_shared": "nats://localhost:4222/shop"}, environment={}))
    with pytest.raises(SettingsError, match="setting `jwks_shared`: key sets are taken only with the signature"):
        key_sharing(parts.keys, parts.truth, time.time)
    assert key_sharing(Sections.of(read_settings({}, environment={})).keys, parts.truth, time.time) is None
