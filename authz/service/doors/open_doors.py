"""
The doors in plain HTTP beside the gRPC port, for proxies that speak nothing else.

Whoever may ask is believed, whatever the headers of the form say. So a door is a Unix socket, loopback, or asks for a
client certificate; anything else refuses to start.
"""

from collections.abc import Callable
from pathlib import Path

from authz.admin.access import is_loopback
from authz.core.errors import SettingsError
from authz.service.check_function import CheckFunction
from authz.service.doors.door_app import DoorApp
from authz.service.ports.certificate_protocol import CertificateProtocol
from authz.service.ports.http import AdminServer, AdminTls, PortTraits
from authz.service.ports.log import Announce
from authz.service.ports.sockets import SocketLock
from authz.service.server import AskProvider
from authz.service.streams import JudgeCaller
from authz.settings.http_doors import HttpDoor
from authz.settings.sections import Sections, TlsSettings

KEEP_ALIVE_SECONDS = 3600
"""Longer than proxies keep connections: closing first would turn a request into a refusal."""


class OpenDoors:
    """All doors of a worker. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        settings: Sections,
        function: CheckFunction,
        ask: AskProvider,
        judge_caller: JudgeCaller | None,
        clock: Callable[[], float],
    ) -> None:
        self._doors = settings.doors.http
        self._tls = settings.tls
        self._traits = PortTraits(
            "http_doors",
            "tls",
            CertificateProtocol,
            KEEP_ALIVE_SECONDS,
            settings.server.socket_permissions,
            "http door",
        )
        self._make_app: Callable[[HttpDoor], DoorApp] = lambda door: DoorApp(
            door, function, ask, clock, judge_caller, settings.server.max_message_bytes
        )
        self._servers: list[AdminServer] = []
        self._locks: list[SocketLock] = []

    async def start(self, announce: Announce) -> None:
        """
        Open every door and say where, ports chosen by the system filled in.

        Raises:
            SettingsError: an address is unusable, or strangers could ask there.
        """
        for door in self._doors:
            tls = door_tls(door.listen, self._tls)
            if door.listen.startswith("unix:"):
                self._locks.append(SocketLock(Path(door.listen.removeprefix("unix:"))))
            server = AdminServer(self._make_app(door), door.listen, tls, traits=self._traits)
            self._servers.append(server)
            await server.start()
            announce(f"door      {door.kind} {server.address}")

    async def stop(self) -> None:
        """Close them all."""
        for server in self._servers:
            await server.stop()
        for lock in self._locks:
            lock.release()
        self._servers.clear()
        self._locks.clear()


def door_tls(listen: str, tls: TlsSettings) -> AdminTls | None:
    """
    The TLS of a door: that of ``listen`` over TCP, none on a Unix socket.

    Raises:
        SettingsError: strangers could reach the door and say what they like.
    """
    if listen.startswith("unix:"):
        return None
    is_guarded = tls.certificate is not None and tls.client_ca is not None
    if not is_guarded and not is_loopback(listen.rpartition(":")[0]):
        raise SettingsError(
            f"setting `http_doors`: `{listen}` can be reached from other machines, and whoever asks there is believed; "
            "ask for client certificates with `tls_client_ca`, or listen on 127.0.0.1 or a Unix socket"
        )
    if tls.certificate is None or tls.key is None:
        return None
    return AdminTls(tls.certificate, tls.key, tls.client_ca)
