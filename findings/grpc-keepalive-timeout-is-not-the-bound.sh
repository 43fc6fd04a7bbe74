#!/usr/bin/env bash
# WHAT     After which time a gRPC server in Python ends the streams of a client that does not answer any more, its process
#          stopped or its network cut (grpcio 1.85.3).
# GUESS    After keepalive_time and keepalive_timeout: with 1 s each after two seconds or so, and a control plane that sets
#          both knows that long after which proxies are gone.
# SEEN     keepalive_timeout does not bound it: nothing ends within twelve seconds, and no call says so. The bound is
#          another setting, grpc.http2.ping_timeout_ms: with 1 s the stream ends after two seconds, whatever
#          keepalive_timeout says.
# MATTERS  A control plane that takes endpoints of silent proxies out of use, or counts streams of a peer, waits far longer
#          than its operator asked for.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
cd "$work" && "$work/venv/bin/python" - <<'PY'
import asyncio, signal, subprocess, sys, time
import grpc

CLIENT = """
import grpc, sys, threading

def requests():
    threading.Event().wait()
    yield b""

for _ in grpc.insecure_channel(sys.argv[1]).stream_stream("/s/m")(requests()):
    pass
"""
PATIENCE = 12


async def seconds_until_ended(**timeouts):
    began, ended = asyncio.Event(), asyncio.Event()

    async def stream(requests, context):
        began.set()
        try:
            async for _ in requests:
                pass
        finally:
            ended.set()
        yield b""

    options = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_permit_without_calls": 1} | timeouts
    server = grpc.aio.server(options=list(options.items()))
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = subprocess.Popen([sys.executable, "-c", CLIENT, f"127.0.0.1:{port}"])
    try:
        await asyncio.wait_for(began.wait(), 30)
        client.send_signal(signal.SIGSTOP)
        at = time.monotonic()
        try:
            await asyncio.wait_for(ended.wait(), PATIENCE)
        except TimeoutError:
            return None
        return time.monotonic() - at
    finally:
        client.kill()
        client.wait()
        await server.stop(0)


async def main():
    print("grpcio", grpc.__version__)
    keepalive = await seconds_until_ended(**{"grpc.keepalive_timeout_ms": 1000})
    ping = await seconds_until_ended(**{"grpc.http2.ping_timeout_ms": 1000})
    print(f"keepalive_timeout 1 s: {keepalive}; ping_timeout 1 s: {ping:.1f} s")
    assert keepalive is None
    assert 1 < ping < 6


asyncio.run(main())
PY
