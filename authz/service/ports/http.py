"""
The operator's HTTP side hosted in the same event loop: uvicorn without its own signals and logs.

Who may read is decided when it is built: an address that others can reach without showing anything refuses to start.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from authz.admin.access import Guard, judge_access
from authz.core.errors import SettingsError
from authz.identity.pem import refuse_encrypted_key
from authz.service.ports.handshakes import HANDSHAKES
from authz.service.ports.sockets import owner_alone
from authz.settings.sections import AdminSettings

Application = Callable[..., Awaitable[Any]]
"""An ASGI application; which framework made it does not matter here."""


_log = logging.getLogger("authz.admin")
REREAD_SECONDS = 5.0
"""The time between looks at the files of the certificate, which others renew."""
MAX_PUBLIC_CONNECTIONS = 256
PUBLIC_CONNECTION_SECONDS = 30.0
"""For those who fetch what is public; they will come again."""
_LAST_SECONDS = 2
"""Connections that are still open then are cut, so that a browser cannot hold up the end of the service."""


@dataclass(frozen=True, slots=True)
class AdminTls:
    """HTTPS with these files; ``client_ca`` asks readers for a certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def options(self) -> dict[str, Any]:
        """The same by uvicorn's names."""
        found: dict[str, Any] = {"ssl_certfile": str(self.certificate), "ssl_keyfile": str(self.key)}
        if self.client_ca is not None:
            found |= {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return found

    def facts(self) -> tuple[tuple[int, ...], ...]:
        """Facts that change when the files are replaced or edited, links followed. Raises OSError."""
        found = (self.certificate.stat(), self.key.stat())
        return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found)


@dataclass(frozen=True, slots=True)
class PortTraits:
    """What differs between the HTTP ports: the setting and TLS settings named in messages, and uvicorn's options."""

    setting: str = "admin"
    tls: str = "admin_tls"
    protocol: type[H11Protocol] | Literal["auto"] = "auto"
    keep_alive_seconds: int = 5
    socket_mode: int = 0o660
    name: str = "admin port"
    """In the count of handshakes that were refused."""


ADMIN = PortTraits()


def make_admin_server(app: Application, settings: AdminSettings) -> "AdminServer":
    """
    Host an application at the address of the setting ``admin``, guarded.

    A Unix socket is guarded by its permissions, and asks neither token nor certificate.

    Raises:
        SettingsError: the address is unusable, or others could read without showing anything.
    """
    listen = settings.address
    if listen.startswith("unix:"):
        return AdminServer(Guard(app, judge_access(listen)), listen)
    host_and_port(listen)  # whether it is an address at all comes before who may read there
    token, tls = "", None
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SettingsError(f"setting `admin_token_file`: cannot be read: {reason}") from error
        if not token:
            raise SettingsError(f"setting `admin_token_file`: `{settings.token_file}` is empty")
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = AdminTls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    asks_certificate = tls is not None and tls.client_ca is not None
    return AdminServer(Guard(app, judge_access(listen, token, asks_certificate=asks_certificate)), listen, tls)


def host_and_port(listen: str, setting: str = "admin") -> tuple[str, str]:
    """Cut ``host:port``. Raises SettingsError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"setting `{setting}`: `{listen}` is neither host:port nor unix:/path")
    return host, port


class _Brief(H11Protocol):
    """A connection from anywhere in the world: only so many, and not for long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TLS gives one of these
        super().connection_made(transport)
        if len(self.connections) > MAX_PUBLIC_CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(PUBLIC_CONNECTION_SECONDS, transport.close)


class _Hosted(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the service: they drain it, and this stops last."""
        yield


class AdminServer:
    """``start`` once, ``stop`` once. ``address`` is where it listens, a port chosen by the system filled in."""

    def __init__(
        self,
        app: Application,
        listen: str,
        tls: "AdminTls | None" = None,
        *,
        is_public: bool = False,
        traits: PortTraits = ADMIN,
    ) -> None:
        """
        ``listen`` is ``host:port`` or ``unix:/path``; ``tls`` None speaks plain HTTP; ``is_public`` bounds connections.

        Raises SettingsError.
        """
        self._path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
        self._traits = traits
        host, port = ("", "") if self._path is not None else host_and_port(listen, traits.setting)
        number = 0 if self._path is not None else int(port)
        config = uvicorn.Config(
            app, host.strip("[]"), number, log_config=None, access_log=False, lifespan="off", ws="none",
            http=_Brief if is_public else traits.protocol, server_header=False,
            timeout_keep_alive=traits.keep_alive_seconds, timeout_graceful_shutdown=_LAST_SECONDS,
            **(tls.options() if tls else {}),
        )  # fmt: skip
        try:
            if tls is not None:
                refuse_encrypted_key(tls.key)
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"settings `{traits.tls}_…`: the files cannot be used: {error.strerror}") from error
        if config.ssl is not None:
            HANDSHAKES.watch(config.ssl, traits.name)
        self._scheme = "https" if tls is not None else "http"
        self._tls, self._context = tls, config.ssl
        self._facts: tuple[tuple[int, ...], ...] = tls.facts() if tls is not None else ()
        self._refused: tuple[tuple[int, ...], ...] = ()
        self._following: asyncio.Task[None] | None = None
        self._server = _Hosted(config)
        if self._path is not None:
            self._socket = _unix_socket(self._path, traits)
            self.address = listen
        else:
            try:
                self._socket = config.bind_socket()
            except SystemExit as error:  # uvicorn ends the process where it cannot bind
                raise SettingsError(f"setting `{traits.setting}`: cannot listen on `{listen}`") from error
            self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address for people: ``http://127.0.0.1:9000``, or the path of the socket."""
        return self.address if self._path is not None else f"{self._scheme}://{self.address}"

    async def start(self) -> None:
        """Serve, from when this returns, and follow the files of the certificate."""
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="admin")
        while not (self._server.started or self._task.done()):  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.002)
        if self._tls is not None:
            self._following = asyncio.create_task(self._follow(), name="admin certificate")

    def renew(self) -> bool:
        """
        Take up certificate files that were replaced; True when they were.

        Files that do not fit together, for example half of a renewal, leave the old certificate in force.
        """
        tls, context = self._tls, self._context
        if tls is None or context is None:
            return False
        try:
            facts = tls.facts()
            if facts in (self._facts, self._refused):
                return False
            self._refused = facts
            refuse_encrypted_key(tls.key)
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trial.load_cert_chain(tls.certificate, tls.key)  # a context that failed once may have half of each
            context.load_cert_chain(tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            name = f"{self._traits.tls}_certificate"
            _log.warning("the renewed `%s` cannot be used, the old one stays: %s", name, error)
            return False
        self._facts = facts
        return True

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            self.renew()

    async def stop(self) -> None:
        """Stop serving, cut what is open after two seconds, and remove the Unix socket."""
        self._server.should_exit = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._task is not None:
            await self._task
        self._socket.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _unix_socket(path: Path, traits: PortTraits) -> socket.socket:
    """A socket for its owner and group; one that a crashed process left is replaced."""
    found = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()
        with owner_alone():
            found.bind(str(path))
        path.chmod(traits.socket_mode)
    except OSError as error:
        found.close()
        reason = error.strerror or error
        raise SettingsError(f"setting `{traits.setting}`: cannot listen on `unix:{path}`: {reason}") from error
    return found
