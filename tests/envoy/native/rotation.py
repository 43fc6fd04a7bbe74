"""
An issuer that rotates its keys before a real Envoy that verifies its tokens by itself: issuer, ``authz mesh render
--watch`` and the reader of the access log all run, and tokens come all the time.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.verify.proxy import Endpoints, Running, listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.control.mesh_follower import MeshFollower
from authz.core.asked import asked_of
from authz.core.attributes import Workload
from authz.envoy.native.key_hints import Hinter
from authz.envoy.native.record_log import Subject, http_file_log
from authz.envoy.native.slots import TYPES
from authz.envoy.native.value_matchers import Message
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from authz.service.loading.snapshot import load_snapshot
from authz.service.native.following import Following
from authz.service.native.intake import Intake
from authz.tokens.signing import SigningKey, jwks_text, make_keys, make_token
from tests.envoy.native.speaking import Line
from tests.mesh.meshes import Ports, description
from tests.service.native.test_gaps import Trail

ISSUER = "https://issuer.test"
SLOT, PROXY = "authz-rules", "server-v1"
WORKLOAD = Workload("app", frozenset({("app", "server"), ("version", "v1")}), "server", PROXY)
POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: app}
spec: {jwtRules: [{issuer: ISSUER, jwksUri: "URI"}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: someone, namespace: app}
spec: {rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}
"""


@dataclass
class Issuer:
    """Publishes the keys that are named; keys are made when they are first asked for."""

    published: tuple[str, ...]
    fetches: int = 0
    _keys: dict[str, SigningKey] = field(default_factory=dict)

    def key(self, name: str) -> SigningKey:
        if name not in self._keys:
            self._keys |= make_keys({name: {"kty": "EC", "kid": name, "alg": "ES256"}})
        return self._keys[name]

    def token(self, name: str) -> str:
        claims = {"iss": ISSUER, "sub": "someone", "exp": int(time.time()) + 600}
        return make_token({"key": name, "alg": "ES256", "claims": claims}, {name: self.key(name)}, time.time())

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """The address of the key set."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                text = jwks_text([issuer.key(name) for name in issuer.published]).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/keys"
            server.shutdown()


@dataclass
class Mesh:
    """One Envoy that decides by itself, its issuer, and a client."""

    issuer: Issuer
    envoy: Running
    follower: MeshFollower

    def status(self, name: str, line: Line) -> int:
        """What a request with a token of this key is answered."""
        headers = (("authorization", f"Bearer {self.issuer.token(name)}"),)
        told = line.tell(OfflineRequest(path="/", headers=headers))
        return told.status if told is not None else 0

    def line(self) -> Line:
        return Line(self.envoy, PROXY, Endpoints("127.0.0.1", "10.1.0.5", 8080), "", "", is_http2=False)


@contextlib.asynccontextmanager
async def rotating(directory: Path, *, refresh_seconds: float, has_record: bool) -> AsyncIterator[Mesh]:
    """Everything in this process but Envoy. ``has_record``: whether somebody reads the access log."""
    policies, state, logs = directory / "policies", directory / "state", directory / "logs"
    for folder in (policies, logs):
        folder.mkdir()
    issuer = Issuer(("k0",))
    (directory / "mesh.yaml").write_bytes(description(Ports()))
    async with contextlib.AsyncExitStack() as stack:
        uri = stack.enter_context(issuer.serving())
        (policies / "p.yaml").write_text(POLICIES.replace("URI", uri).replace("ISSUER", ISSUER))
        follower = MeshFollower(
            policies, directory / "mesh.yaml", state, RenderOptions(enforce=Enforce.NATIVE),
            clock=time.time, say=lambda _: None, refresh_seconds=refresh_seconds,
        )  # fmt: skip
        stack.push_async_callback(follower.close)
        await follower.start()
        await stack.enter_async_context(_task(follower.run()))
        snapshot = load_snapshot(policies, None, time.time())
        subject = Subject(WORKLOAD, PROXY, "in", asked=asked_of(snapshot.engine.for_workload(WORKLOAD)))
        if has_record:
            intake = Intake(Trail())
            intake.judge.replace(snapshot.engine, time.time())
            intake.hinter = Hinter(state, time.time)
            await stack.enter_async_context(_task(Following(intake, logs, None, []).run()))
        identities = Identities(directory)
        identities.write(directory / "server", "spiffe://cluster.local/ns/app/sa/server")
        log = http_file_log(str(logs / f"{PROXY}.json"), subject)
        made = listener(PROXY, [_slot(state)], directory, access_log=[log], stat_prefix="in")
        envoy = await asyncio.to_thread(stack.enter_context, running(directory, [made], identities))
        yield Mesh(issuer, envoy, follower)


def _slot(state: Path) -> Message:
    source: Message = {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": str(state / "ecds" / f"{PROXY}.{SLOT}.json"),
            "watched_directory": {"path": str(state / "ecds")},
        },
    }
    return json.loads(  # type: ignore[no-any-return]  # plain data
        json.dumps({"name": SLOT, "config_discovery": {"config_source": source, "type_urls": list(TYPES)}})
    )


@contextlib.asynccontextmanager
async def _task(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class Load:
    """What became of the tokens."""

    sent: int = 0
    refused: int = 0
    keys: int = 0


async def rotate(mesh: Mesh, *, rotations: int, seconds: float) -> Load:
    """Publish the next key one rotation before tokens are signed with it, and drop each one rotation after its last."""
    load = Load()

    def send(name: str, until: float) -> None:
        line = mesh.line()
        while time.monotonic() < until:
            load.sent += 1
            load.refused += mesh.status(name, line) != 200
        line.close()

    for number in range(rotations):
        mesh.issuer.published = tuple(f"k{one}" for one in range(max(0, number - 1), number + 2))
        await asyncio.to_thread(send, f"k{number}", time.monotonic() + seconds)
        load.keys += 1
    return load


async def seconds_unknown(mesh: Mesh, name: str, limit: float) -> float:
    """How long tokens of a key are refused that is used as it is published."""

    def wait() -> float:
        line = mesh.line()
        mesh.issuer.key(name)
        mesh.issuer.published = (*mesh.issuer.published, name)
        begun = time.monotonic()
        while mesh.status(name, line) != 200 and time.monotonic() - begun < limit:
            time.sleep(0.05)
        line.close()
        return time.monotonic() - begun

    return await asyncio.to_thread(wait)
