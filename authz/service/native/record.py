"""
The record of native enforcement as one part of the service: carriers, judge and the comparison with Envoy's counters.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from authz.audit.trail import AuditTrail
from authz.service.loading.snapshot import Snapshot
from authz.service.native.following import Following
from authz.service.native.gaps import Gaps
from authz.service.native.in_force import InForce
from authz.service.native.intake import Intake
from authz.service.native.stream import AccessLogStream
from authz.settings import Settings
from authz.telemetry.status import NativeStatus


class NativeRecord:
    """``start`` when policies are in force, ``close`` while the trail is still open."""

    def __init__(self, settings: Settings, trail: AuditTrail, clock: Callable[[], float]) -> None:
        """Raises SettingsError when a directory cannot be followed."""
        self._clock = clock
        self.intake = Intake(trail, settings.access_log_verify, clock)
        sinks = [Path(name.partition(":")[2]) for name in settings.audit if name.startswith("file:")]
        self._following = [
            Following(self.intake, Path(name.partition(":")[2]), settings.access_log_positions, sinks)
            for name in settings.access_logs
            if name.startswith("file:")
        ]
        self.stream = AccessLogStream(self.intake) if "grpc" in settings.access_logs else None
        """What the server takes streams with; None where none are taken."""
        self._gaps = None
        if settings.access_log_admin:
            self._gaps = Gaps(self.intake, settings.access_log_admin, clock, _counts(settings))
        self._in_force = None
        if settings.access_log_admin and settings.access_log_state is not None:
            self._in_force = InForce(settings.access_log_state, settings.access_log_admin)

    def replace(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force."""
        self.intake.judge.replace(snapshot, self._clock())

    def start(self) -> list[asyncio.Task[None]]:
        """Begin; the tasks run until they are cancelled."""
        tasks = [asyncio.create_task(one.run(), name="access logs") for one in self._following]
        if self._gaps is not None:
            tasks.append(asyncio.create_task(self._gaps.run(), name="gaps"))
        if self._in_force is not None:
            tasks.append(asyncio.create_task(self._in_force.run(), name="filters in force"))
        return tasks

    async def close(self) -> None:
        """Keep positions, after the tasks have ended."""
        for one in self._following:
            await one.close()
        if self._gaps is not None:
            self._gaps.close()

    def status(self) -> NativeStatus:
        """The status of carriers and judge as one."""
        told = self.intake.status()
        return replace(
            told,
            waiting_bytes=sum(one.waiting_bytes for one in self._following),
            problem="; ".join(one.problem for one in self._following if one.problem),
            missing=dict(self._gaps.missing) if self._gaps is not None else {},
            in_force=dict(self._in_force.proxies) if self._in_force is not None else {},
            unreachable=dict(self._gaps.unreachable) if self._gaps is not None else {},
        )


def _counts(settings: Settings) -> Path | None:
    """Beside the positions; None where streams only are taken and no place is named."""
    if settings.access_log_positions is not None:
        return settings.access_log_positions.with_name(settings.access_log_positions.name + ".counts")
    directories = [name.partition(":")[2] for name in settings.access_logs if name.startswith("file:")]
    return Path(directories[0]) / ".authz-counts.json" if directories else None
