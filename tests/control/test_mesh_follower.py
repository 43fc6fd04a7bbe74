"""A rendered mesh follows policies, description and key sets, all at once or not at all."""

import asyncio
import json
import logging
import os
from pathlib import Path
from time import time
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.control.envoy_validation import Validator
from authz.control.key_texts import fetch_key_texts, read_key_text
from authz.control.mesh_follower import MeshFollower
from authz.core.errors import LoadError
from authz.core.resources import JwtRule
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from authz.tokens.signing import jwks_text, make_keys
from tests.control.following import following
from tests.demo.serving import serving
from tests.mesh.meshes import Ports, description

KEYS = jwks_text(list(make_keys({"one": {"kty": "EC", "kid": "one"}}).values()))
OPTIONS = RenderOptions(enforce=Enforce.NATIVE)


def policy(name: str, path: str, action: str = "ALLOW") -> str:
    return (
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: app}}\n"
        f"spec: {{action: {action}, selector: {{matchLabels: {{app: server}}}}, "
        f'rules: [{{to: [{{operation: {{paths: ["{path}"]}}}}]}}]}}\n'
    )


def jwt(uri: str) -> str:
    return (
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: app}\n"
        f"spec: {{jwtRules: [{{issuer: https://issuer.example, jwksUri: '{uri}'}}]}}\n"
    )


class Followed:
    def __init__(self, folder: Path, validator: Validator | None = None) -> None:
        self.policies, self.mesh, self.out = folder / "policies", folder / "mesh.yaml", folder / "state"
        self.policies.mkdir()
        self.mesh.write_bytes(description(Ports()))
        self.write("a.yaml", policy("one", "/one"))
        self.said: list[str] = []
        self.follower = MeshFollower(
            self.policies, self.mesh, self.out, OPTIONS, clock=time, say=self.said.append, validator=validator
        )

    def write(self, name: str, text: str) -> None:
        fresh = self.policies.parent / name
        fresh.write_text(text)
        fresh.replace(self.policies / name)

    def filters(self, proxy: str = "server-v1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "ecds" / f"{proxy}.authz-rules.json").read_bytes())
        return found

    async def becomes(self, text: str, proxy: str = "server-v1") -> None:
        async with asyncio.timeout(20):
            while text not in json.dumps(self.filters(proxy)):  # noqa: ASYNC110  # a file tells nobody
                await asyncio.sleep(0.02)


async def test_a_changed_policy_reaches_the_workloads_that_it_concerns_and_no_others(tmp_path: Path) -> None:
    async with following(Followed(tmp_path)) as mesh:
        before = mesh.filters(), mesh.filters("ingress")
        mesh.write("b.yaml", policy("two", "/two", "DENY"))
        await mesh.becomes("ns[app]-policy[two]-rule[0]")
        assert mesh.filters()["version_info"] != before[0]["version_info"]
        assert mesh.filters("ingress") == before[1]


EVERYTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everything, namespace: app, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules:
  - when:
    - {key: "request.headers[x-team]", values: [red]}
    - {key: "request.auth.claims[groups]", values: [admin]}
    - {key: "experimental.envoy.filters.http.lua[k]", values: [v]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: look, namespace: app}
spec: {action: AUDIT, rules: [{}]}
"""


async def test_a_policy_that_asks_for_what_none_asked_for_before_changes_filters_and_no_listener(
    tmp_path: Path,
) -> None:
    async with following(Followed(tmp_path)) as mesh:
        before = {path: http_listeners(path) for path in (mesh.out / "lds").iterdir()}
        mesh.write("jwt.yaml", jwt("http://127.0.0.1:9/keys"))
        mesh.write("b.yaml", EVERYTHING)
        await mesh.becomes("request.headers['x-team']")
        assert "payload:groups" in json.dumps(mesh.filters())
        assert {path: http_listeners(path) for path in (mesh.out / "lds").iterdir()} == before


def http_listeners(path: Path) -> list[str]:
    """Those of bytes hold their rules themselves."""
    resources = yaml.safe_load(path.read_bytes())["resources"]
    return [text for text in map(json.dumps, resources) if "http_connection_manager" in text]


async def test_a_broken_policy_keeps_every_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with following(Followed(tmp_path)) as mesh:
        before = {path: path.read_bytes() for path in mesh.out.rglob("*") if path.is_file()}
        mesh.write("b.yaml", policy("two", "/two", "DENI"))
        async with asyncio.timeout(20):
            while "the policies were not loaded" not in caplog.text:  # noqa: ASYNC110  # only the log tells
                await asyncio.sleep(0.02)
        assert {path: path.read_bytes() for path in mesh.out.rglob("*") if path.is_file()} == before


EXTENSION = """
---
kind: EnvoyFilter
metadata: {name: rules, namespace: app}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain:
          filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: authz-rules}}
    patch:
      operation: OPERATION
      value: {name: mine, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig}}
"""  # noqa: E501  # a type's name is long


async def test_an_extension_that_weakens_enforcement_keeps_every_file(tmp_path: Path) -> None:
    async with following(Followed(tmp_path)) as mesh:
        before = {path: path.read_bytes() for path in mesh.out.rglob("*") if path.is_file()}
        mesh.mesh.write_bytes(description(Ports()) + EXTENSION.replace("OPERATION", "REPLACE").encode())
        async with asyncio.timeout(20):
            while not any("kept" in line for line in mesh.said):  # noqa: ASYNC110  # a line tells nobody
                await asyncio.sleep(0.02)
        assert {path: path.read_bytes() for path in mesh.out.rglob("*") if path.is_file()} == before
        mesh.mesh.write_bytes(description(Ports()) + EXTENSION.replace("OPERATION", "INSERT_BEFORE").encode())
        async with asyncio.timeout(20):
            while b"name: mine" not in (mesh.out / "lds" / "server-v1.yaml").read_bytes():  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.02)


async def test_nothing_is_written_when_the_first_set_is_broken(tmp_path: Path) -> None:
    mesh = Followed(tmp_path)
    mesh.write("a.yaml", policy("one", "/one", "DENI"))
    with pytest.raises(LoadError):
        await mesh.follower.start()
    await mesh.follower.close()
    assert not mesh.out.exists()


async def test_keys_that_come_later_are_rendered_when_they_come(tmp_path: Path) -> None:
    """Until then tokens are refused, and requests without one pass."""
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = KEYS if answered.is_set() else ""
        writer.write(f"HTTP/1.1 {'200' if body else '503'} -\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        (tmp_path / "x").mkdir()
        mesh = Followed(tmp_path / "x")
        mesh.write("jwt.yaml", jwt(uri))
        await mesh.follower.start(keys_timeout_seconds=0.1)
        assert any(line.startswith("missing") and uri in line for line in mesh.said)
        assert '\\"kid\\":\\"one\\"' not in json.dumps(mesh.filters())
        running = asyncio.create_task(mesh.follower.run())
        answered.set()
        await mesh.becomes('\\"kid\\":\\"one\\"')
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await mesh.follower.close()

        rule = JwtRule(issuer="https://issuer.example", jwks_uri=uri)
        texts, missing = await fetch_key_texts([rule], clock=time)
        assert (texts, missing) == ({rule.keys_from: KEYS}, ())


def test_a_fetched_set_keeps_why_keys_of_it_are_not_used() -> None:
    keys = read_key_text('{"keys": [{"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"}]}')
    assert len(keys) == 0
    assert len(keys.skipped) == 1
    assert "small" in keys.skipped[0]


async def test_what_could_not_be_written_is_written_when_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without anybody changing anything else: it may be what denies."""
    caplog.set_level(logging.INFO, "authz.reload")
    async with following(Followed(tmp_path)) as mesh:
        listeners, aside = mesh.out / "lds", mesh.out / "aside"
        before = (listeners / "server-v1.yaml").read_bytes()
        listeners.rename(aside)
        listeners.write_text("no folder")
        mesh.write("mode.yaml", MODE)
        async with asyncio.timeout(20):
            while caplog.text.count("is in force") < 2:  # noqa: ASYNC110  # only the log tells
                await asyncio.sleep(0.02)
        listeners.unlink()
        aside.rename(listeners)
        async with asyncio.timeout(20):
            while (listeners / "server-v1.yaml").read_bytes() == before:  # noqa: ASYNC110  # a file tells nobody
                await asyncio.sleep(0.02)


MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: app}
spec: {mtls: {mode: STRICT}}
"""


async def test_filters_with_a_symmetric_key_are_for_owner_and_group_alone(tmp_path: Path) -> None:
    """Whoever reads such a key can sign tokens; the umask of most machines would let everybody."""
    secret = jwks_text(list(make_keys({"one": {"kty": "oct", "kid": "one"}}).values()))
    before = os.umask(0o022)
    try:
        followed = Followed(tmp_path)
        (followed.out / "ecds").mkdir(parents=True)
        (followed.out / "ecds" / ".server-v1.authz-rules.json.new").touch(0o666)  # a killed run left it
        rule = f"{{issuer: https://issuer.example, jwks: '{secret}'}}"
        followed.write("jwt.yaml", jwt("unused").replace("{issuer: https://issuer.example, jwksUri: 'unused'}", rule))
        await followed.follower.start(keys_timeout_seconds=0.1)
        await followed.follower.close()
    finally:
        os.umask(before)
    modes = {b'kty\\":\\"oct' in path.read_bytes(): path.stat().st_mode & 0o777 for path in followed.out.glob("*/*.*")}
    assert modes == {True: 0o640, False: 0o644}


async def test_a_login_is_rendered_once_its_issuer_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.control.mesh_follower.ISSUER_PATIENCE_SECONDS", 0.1)
    is_there: list[bool] = []

    async def discovery(request: Request) -> Response:
        base = str(request.base_url).removesuffix("/")
        found = {"issuer": base, "authorization_endpoint": f"{base}/a", "token_endpoint": f"{base}/t"}
        return JSONResponse(found) if is_there else Response(status_code=503)

    with serving(Starlette(routes=[Route("/.well-known/openid-configuration", discovery)])) as url:
        login = f"      issuer: {url}\n      clientId: shop\n      credentialName: shop-login\n"
        plain = "metadata: {name: web, namespace: istio-system}"
        more = f"metadata:\n  name: web\n  namespace: istio-system\n  annotations:\n    mesh.authz/login: |\n{login}"
        async with following(Followed(tmp_path)) as mesh:
            fresh = tmp_path / "fresh.yaml"
            fresh.write_text(mesh.mesh.read_text().replace(plain, more.rstrip()))
            fresh.replace(mesh.mesh)
            async with asyncio.timeout(30):
                while not any(said.startswith("kept") for said in mesh.said):  # noqa: ASYNC110  # only this tells
                    await asyncio.sleep(0.02)
                assert not (mesh.out / "login").exists()
                is_there.append(True)
                while not (mesh.out / "lds" / "ingress.yaml").read_text().count(f"{url}/a"):  # noqa: ASYNC110  # a file
                    await asyncio.sleep(0.02)
            assert (mesh.out / "login" / "shop-login.json").exists()
            assert any("client-secret` is missing" in said for said in mesh.said)
