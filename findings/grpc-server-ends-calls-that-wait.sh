#!/usr/bin/env bash
# WHAT     What becomes of calls that come faster than a gRPC server in Python takes them, as when a whole fleet connects
#          again after a restart (grpcio 1.85.3, asyncio).
# GUESS    They wait in their connections until the event loop gets to them, as long as their own deadline allows: nothing
#          in the code limits them, `maximum_concurrent_rpcs` is not set.
# SEEN     The core below keeps about a thousand calls that were not asked for yet, and ends some of those beyond, at random,
#          though they asked to wait until the server is ready. The server's code is never asked, and logs nothing. With
#          grpc.server.max_pending_requests and its hard limit raised every call is served.
# MATTERS  4,000 proxies that come back at once while the control plane is busy for a few seconds are partly turned away,
#          come back, and are counted again: a storm that paces itself nowhere, and looks like a failing network.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
cd "$work" && "$work/venv/bin/python" - <<'PY'
import asyncio, json, subprocess, sys, time
import grpc

CALLS, CHANNELS, BUSY_SECONDS = 3000, 30, 4
CLIENT = """
import asyncio, collections, json, sys
import grpc

async def ask(call):
    async def requests():
        yield b""
        await asyncio.sleep(60)

    try:
        async for _ in call(requests(), wait_for_ready=True):
            return "served"
    except grpc.aio.AioRpcError as error:
        return error.code().name

async def main(target, calls, channels):
    alone = [("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(target, options=alone) for _ in range(channels)]
    asked = [ask(one.stream_stream("/s/m")) for one in opened for _ in range(calls // channels)]
    print(json.dumps(collections.Counter(await asyncio.gather(*asked))))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


async def answers(**options):
    async def echo(requests, context):
        async for _ in requests:
            yield b""

    server = grpc.aio.server(options=list(options.items()))
    methods = {"m": grpc.stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    command = [sys.executable, "-c", CLIENT, f"127.0.0.1:{port}", str(CALLS), str(CHANNELS)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        await asyncio.sleep(0.2)
        time.sleep(BUSY_SECONDS)  # the event loop has something else to do
        said, _ = await asyncio.wait_for(asyncio.to_thread(client.communicate), 60)
        return json.loads(said)
    finally:
        client.kill()
        await server.stop(0)


async def main():
    print("grpcio", grpc.__version__)
    as_it_is = await answers()
    raised = await answers(**{
        "grpc.server.max_pending_requests": 20_000,
        "grpc.server.max_pending_requests_hard_limit": 40_000,
        "grpc.server_max_unrequested_time_in_server": 120,
    })
    print("as it is:", as_it_is)
    print("raised:", raised)
    assert 0 < as_it_is["served"] < CALLS and sum(as_it_is.values()) == CALLS
    assert raised == {"served": CALLS}


asyncio.run(main())
PY
