"""A request that waits for a real provider while a reload takes its RequestAuthentication away."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc

from authz._proto import ext_authz_pb2 as pb
from authz.service.app import App
from authz.service.ports.grpc_health import AUTHORIZATION
from authz.settings.settings import Settings
from authz.tokens.signing import jwks_text
from tests.service.messages import check_request, response, told
from tests.service.running import check_call
from tests.tokens.material import ISSUER, KEYS, token

JWT = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: "%s", jwksUri: "http://127.0.0.1:%d/keys"}]}
"""
POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: ext}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: alice, namespace: shop}
spec: {rules: [{from: [{source: {requestPrincipals: ["%s/alice"]}}]}]}
"""
MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: ext, envoyExtAuthzGrpc: {service: 127.0.0.1, port: %d, timeout: 20s}}
"""


@contextmanager
def key_server() -> Iterator[int]:
    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(jwks_text([KEYS["rsa"]]).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def test_a_waiting_request_keeps_the_key_sets_of_its_beginning(tmp_path: Path) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def provide(message: bytes, context: object) -> bytes:
        asked.set()
        await may_answer.wait()
        return pb.CheckResponse(ok_response=pb.OkHttpResponse()).SerializeToString()

    provider = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(provide)
    provider.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": handler}),))
    port = provider.add_insecure_port("127.0.0.1:0")
    await provider.start()
    policies = tmp_path / "policies"
    policies.mkdir()
    (tmp_path / "mesh.yaml").write_text(MESH % port)
    with key_server() as keys:
        (policies / "policies.yaml").write_text(POLICIES % ISSUER)
        (policies / "jwt.yaml").write_text(JWT % (ISSUER, keys))
        settings = Settings(
            policies=str(policies), mesh=tmp_path / "mesh.yaml", listen=("127.0.0.1:0",), audit=("none",), workers=1
        )
        app = App(settings, lambda _: None)
        try:
            await app.start()
            assert await app.keys.wait_ready(10)
            message = check_request(headers=[("authorization", f"Bearer {token(now=time.time())}")])
            async with grpc.aio.insecure_channel(app.server.addresses[0]) as channel:
                ask = check_call(channel)
                waiting = asyncio.create_task(ask(message))
                await asyncio.wait_for(asked.wait(), 10)
                (policies / "jwt.yaml").unlink()
                version = app.reloader.status.policy_version
                async with asyncio.timeout(10):
                    while app.reloader.status.policy_version == version:  # noqa: ASYNC110  # nothing tells of it
                        await asyncio.sleep(0.02)
                assert not app.keys.key_sets
                may_answer.set()
                before, after = response(await waiting), response(await ask(message))
        finally:
            await app.stop(drain=False)
            await provider.stop(None)
    assert (before.status.code, told(before)["policy_version"]) == (0, version)
    assert told(after)["stage"] == "allow"  # without the rule there is no principal
    assert after.status.code == 7
