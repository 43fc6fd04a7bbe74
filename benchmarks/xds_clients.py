"""
Many proxies in one process, as far as discovery sees them: streams of deltas over mutual TLS, each a connection.

    python -m benchmarks.xds_clients PORT FIRST COUNT DIRECTORY

Run by ``benchmarks.xds``. Prints a line of JSON for everything that comes: the proxy, the short name of the type, the
time. The directory has ``chain.pem``, ``key.pem`` and ``bundle.pem``, the same for all: they share an identity.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc

from authz._proto import delta_discovery_pb2 as wire
from authz.control.discovery.discovered import SHORT_NAMES

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]


async def proxy(port: int, name: str, credentials: grpc.ChannelCredentials) -> None:
    """Ask for everything of every type, take it, and say what came."""
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=OPTIONS) as channel:
        call = channel.stream_stream(
            METHOD,
            request_serializer=wire.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=wire.DeltaDiscoveryResponse.FromString,
        )()  # type: ignore[call-arg]  # the stubs want an iterator, where one may write instead
        for url in SHORT_NAMES:
            request = wire.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["*"])
            request.node.id = name
            await call.write(request)
        while isinstance(response := await call.read(), wire.DeltaDiscoveryResponse):
            size = response.ByteSize()
            print(json.dumps([name, SHORT_NAMES[response.type_url], time.time(), size]), flush=True)
            await call.write(wire.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))


async def run(port: int, first: int, count: int, directory: Path) -> None:
    """As many proxies as asked for, all at once."""
    roots, key, chain = ((directory / f"{name}.pem").read_bytes() for name in ("bundle", "key", "chain"))
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    await asyncio.gather(*(proxy(port, f"w{number}", credentials) for number in range(first, first + count)))


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
