"""Key sets that control planes fetch, shared by a real truth: one asks the issuer, and servers keep theirs beside."""

import contextlib
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.cli.truth_options import key_sharing
from authz.control.mesh_follower import MeshFollower
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from authz.tokens.signing import jwks_text, make_keys
from authz.truth.server_configuration import TruthRole
from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_bucket import KEY_SETS, TruthBucket
from authz.truth.truth_client import TruthClient, TruthForbidden
from tests.demo.serving import serving
from tests.mesh.meshes import Ports, description
from tests.nats_server import NatsServers, shared_servers

pytestmark = pytest.mark.slow
KEYS = jwks_text(list(make_keys({"one": {"kty": "EC", "kid": "one"}}).values()))
POLICY = """apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: app}
spec: {jwtRules: [{issuer: https://issuer.example, jwksUri: 'URI'}]}
"""


servers = shared_servers(tls=True)


def write_mesh(folder: Path, uri: str) -> None:
    folder.mkdir()
    (folder / "policies").mkdir()
    (folder / "policies" / "jwt.yaml").write_text(POLICY.replace("URI", uri))
    (folder / "mesh.yaml").write_bytes(description(Ports()))


async def render(folder: Path, truth: TruthClient) -> bool:
    """Whether what a control renders has the issuer's key."""
    follower = MeshFollower(
        folder / "policies", folder / "mesh.yaml", folder / "state", RenderOptions(enforce=Enforce.NATIVE),
        clock=time.time, say=lambda _: None, sharing=key_sharing(truth),
    )  # fmt: skip
    try:
        await follower.start()
    finally:
        await follower.close()
    assert truth.is_connected, "it is not the follower's"
    return has_key(folder)


def has_key(folder: Path) -> bool:
    rendered = folder / "state" / "ecds" / "server-v1.authz-rules.json"
    found = "kty" in rendered.read_text()
    rendered.unlink()
    return found


async def test_one_control_asks_the_issuer_and_the_others_take_what_it_got(
    servers: NatsServers, tmp_path: Path
) -> None:
    asked: list[str] = []

    async def jwks(request: Request) -> Response:
        asked.append(request.url.path)
        return Response(KEYS, media_type="application/json")

    with serving(Starlette(routes=[Route("/keys", jwks)])) as url, contextlib.ExitStack() as all_of_them:
        write_mesh(tmp_path / "mesh", f"{url}/keys")
        controls = [all_of_them.enter_context(servers.client()) for _ in range(3)]
        for control in controls:
            assert await render(tmp_path / "mesh", control)
        assert asked == ["/keys"]
        reader = all_of_them.enter_context(servers.client(TruthRole.READER))
        found = TruthBucket(reader, KEY_SETS)
        name = next(key for key in found.entries() if key.startswith("control.set."))
        with pytest.raises(TruthForbidden):  # what is a server's stands beside it
            found.put(name, b"{}")
        TruthBucket(controls[1], KEY_SETS).put(name, b"{}")  # nor is a control believed that did not sign it
        assert await render(tmp_path / "mesh", controls[0])
        assert asked == ["/keys"] * 2


def test_without_a_certificate_a_control_shares_no_key_sets() -> None:
    assert key_sharing(None) is None
    local = TruthClient(TruthAddress(("localhost:4222",), "shop"), TruthAccess())
    assert key_sharing(local) is None
    local.stop()
