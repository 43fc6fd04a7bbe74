"""Bundles of a test fleet, a server that has one, and a follower with a clock that tests set."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.core.errors import LoadError, Location, Problem, SettingsError, Severity
from authz.sources.published.opening import PublishedPolicies, open_follower
from authz.sources.published.policy_address import read_address
from authz.sources.published.policy_cache import PolicyCache
from authz.sources.published.policy_follower import PolicyFollower

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOW = 1_800_000_000
POISON = b"poison"


def bundle(revision: int, text: bytes = b"kind: AuthorizationPolicy\n", **changes: Any) -> bytes:
    told: dict[str, Any] = {"fleet": "shop", "created": NOW, "expires": NOW + 1000} | changes
    return sign_bundle(build_bundle({"policies/a.yaml": text}, revision=revision, **told), KEY)


def trial(folder: Path, _: Path | None) -> None:
    """Policies are anything but poison."""
    for file in sorted((folder / "policies").rglob("*.yaml")):
        if POISON in file.read_bytes():
            raise LoadError([Problem(Severity.ERROR, "RE-1", "it is poison", Location(file.name))])


@dataclass
class BundleServer:
    """What it has, and what it was asked."""

    url: str = ""
    data: bytes = b""
    status: int = 200
    location: str = ""
    told: list[dict[str, str]] = field(default_factory=list)
    put: bytes = b""

    @property
    def tag(self) -> str:
        return f'"{hash(self.data)}"'


@contextmanager
def serving(tls: SSLContext | None = None) -> Iterator[BundleServer]:
    state = BundleServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.told.append({name.lower(): value for name, value in self.headers.items()})
            status = 304 if self.headers.get("if-none-match") == state.tag and state.status == 200 else state.status
            self.send_response(status)
            if state.location:
                self.send_header("location", state.location)
            self.send_header("etag", state.tag)
            self.send_header("content-length", str(len(state.data) if status == 200 else 0))
            self.end_headers()
            if status == 200:
                self.wfile.write(state.data)

        def do_PUT(self) -> None:
            state.told.append({name.lower(): value for name, value in self.headers.items()})
            state.put = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(state.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/shop.tar.gz"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Replica:
    """One replica of the fleet on a directory; ``now`` is set by the test."""

    directory: Path
    address: str
    now: float = NOW
    told: PublishedPolicies = field(default_factory=PublishedPolicies)

    @contextmanager
    def running(self, *, begin: bool = True) -> Iterator[tuple[PolicyFollower, PolicyCache]]:
        key = self.directory / "bundle.pub"
        self.directory.mkdir(exist_ok=True)
        public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        key.write_bytes(KEY.public_key().public_bytes(*public))
        told = PublishedPolicies(
            self.directory / "cache", "shop", [key], self.told.signers, self.told.ca, self.told.headers,
            truth=self.told.truth,
        )  # fmt: skip
        clock: Callable[[], float] = lambda: self.now  # noqa: E731  # a test sets it
        follower, cache = open_follower(read_address(self.address), told, trial, clock=clock, share=lambda: 0.5)
        try:
            if begin:
                follower.begin()
            yield follower, cache
        finally:
            follower.stop()


def in_force(cache: PolicyCache) -> bytes:
    return (cache.policies / "a.yaml").read_bytes()


def start_refused(replica: Replica, said: str) -> str:
    """Why a replica does not start, which is what the pattern says."""
    with pytest.raises(SettingsError, match=said) as refused, replica.running():
        """It does not come so far."""
    return str(refused.value)
