"""An authority for applications on this machine, and what clients of the SPIFFE Workload API ask of it."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from cryptography import x509
from google.protobuf.message import Message

from authz._proto import workload_pb2 as wire
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.bundle_endpoint import EndpointDoor
from authz.identity.ca import CertificateAuthority
from authz.identity.registrar import SigningLimit

REVIEWS, RATINGS = (f"spiffe://mesh.test/ns/shop/sa/{name}" for name in ("reviews", "ratings"))
ME = f"unix:uid:{os.getuid()}"
HEADER = (("workload.spiffe.io", "true"),)
_M = TypeVar("_M", bound=Message)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="authz-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def entry(spiffe_id: str = REVIEWS, *selectors: str, **fields: object) -> str:
    written = {"spiffeID": spiffe_id, "selectors": list(selectors or (ME,)), **fields}
    return f"- {json.dumps(written)}\n"


@asynccontextmanager
async def authority(
    directory: Path, *entries: str, trust_domain: str = "mesh.test", limit: SigningLimit | None = None, **doors: Any
) -> AsyncIterator[AuthorityServer]:
    """Its socket is ``<directory>/sds.sock``, its bundle endpoint (https_spiffe) at a port of its own."""
    if not (directory / "ca").exists():
        CertificateAuthority.create(trust_domain, time.time()).save(directory / "ca")
    (directory / "entries.yaml").write_text("entries:\n" + "".join(entries or (entry(),)))
    files = AuthorityFiles(directory / "ca", directory / "entries.yaml", **doors.pop("files", {}))
    endpoint = doors.pop("endpoint", EndpointDoor("127.0.0.1:0"))
    issuer = doors.pop("jwt_issuer", "")
    open_doors = Doors(socket=directory / "sds.sock", endpoint=endpoint, **doors)
    server = AuthorityServer(files, open_doors, limit=limit or SigningLimit(), jwt_issuer=issuer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


def channel(directory: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{directory}/sds.sock")


async def ask(
    to: grpc.aio.Channel, method: str, request: Message, answer: type[_M], metadata: Any = HEADER
) -> _M | tuple[str, str]:
    """The answer, or code and message of the refusal."""
    call = to.unary_unary(
        f"/SpiffeWorkloadAPI/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    try:
        found: _M = await asyncio.wait_for(call(request, metadata=metadata), 10)
        return found
    except grpc.aio.AioRpcError as error:
        return error.code().name, str(error.details())


class Stream:
    """One open stream; ``read`` gives the next message, or code and message of its end."""

    def __init__(
        self, to: grpc.aio.Channel, method: str, request: Message, answer: type[Message], metadata: Any = HEADER
    ) -> None:
        call = to.unary_stream(
            f"/SpiffeWorkloadAPI/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        self.call = call(request, metadata=metadata)

    async def read(self, seconds: float = 10) -> Any:
        try:
            return await asyncio.wait_for(self.call.read(), seconds)
        except grpc.aio.AioRpcError as error:
            return error.code().name, str(error.details())


def svids(to: grpc.aio.Channel) -> Stream:
    return Stream(to, "FetchX509SVID", wire.X509SVIDRequest(), wire.X509SVIDResponse)


async def run(*command: str) -> tuple[int, str, str]:
    """A program of somebody else: its exit code, what it printed, and what it complained of."""

    def go() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    done = await asyncio.to_thread(go)
    return done.returncode, done.stdout, done.stderr


def certificates(der: bytes) -> list[x509.Certificate]:
    """DER certificates that stand one after the other."""
    found = []
    while der:
        size = 4 + int.from_bytes(der[2:4]) if der[1] == 0x82 else 3 + der[2]  # a certificate has 128 to 65535 bytes
        found.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    return found
