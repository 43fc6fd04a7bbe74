"""Real HTTP servers on loopback for the tests of the demo's applications."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette


@contextlib.contextmanager
def serving(application: Starlette, certificate: Path | None = None) -> Iterator[str]:
    """Serve on a free port in a thread; yields the base URL. ``certificate``: a directory, then it is HTTPS."""
    pair = (
        {} if certificate is None else {"ssl_certfile": certificate / "tls.crt", "ssl_keyfile": certificate / "tls.key"}
    )
    options: Any = {"host": "127.0.0.1", "port": 0, "log_level": "error", "access_log": False, "ws": "none", **pair}
    config = uvicorn.Config(application, **options)
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
        yield f"http://127.0.0.1:{port}" if certificate is None else f"https://localhost:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
