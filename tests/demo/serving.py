"""Real HTTP servers on loopback for the tests of the demo's applications."""

import contextlib
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette


@contextlib.contextmanager
def serving(application: Starlette) -> Iterator[str]:
    """Serve on a free port in a thread; yields the base URL."""
    config = uvicorn.Config(application, host="127.0.0.1", port=0, log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def announced(sockets: object = None) -> None:
        await startup()
        started.set()

    server.startup = announced  # type: ignore[method-assign]  # uvicorn has no event for "it listens"
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(10)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
