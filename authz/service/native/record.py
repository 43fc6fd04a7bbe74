"""
The record of native enforcement as one part of the service: carriers, judge and the comparison with Envoy's counters.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from authz.audit.trail import AuditTrail
from authz.envoy.native.key_hints import Hinter
from authz.service.loading.snapshot import Snapshot
from authz.service.native.following import Following
from authz.service.native.gaps import Gaps
from authz.service.native.in_force import FiltersInForce
from authz.service.native.intake import Intake
from authz.service.native.stream import AccessLogStream
from authz.service.ports.log import Announce
from authz.settings.sections import AccessLogSettings, Sections
from authz.telemetry.status import NativeStatus


class NativeRecord:
    """``start`` when policies are in force, ``close`` while the trail is still open."""

    @classmethod
    def of(cls, settings: Sections, trail: AuditTrail, clock: Callable[[], float]) -> "NativeRecord | None":
        """
        None if no carrier is named, and no proxy tells of what rate limits refused. Raises as the constructor does.
        """
        logs = settings.access_logs
        return cls(logs, settings.audit.files, trail, clock) if logs.carriers or settings.rate_limits.listen else None

    def __init__(
        self, settings: AccessLogSettings, sinks: Iterable[Path], trail: AuditTrail, clock: Callable[[], float]
    ) -> None:
        """
        Make the parts; none runs yet.

        Args:
            settings: their section.
            sinks: the audit's own files, which must not be followed.

        Raises:
            SettingsError: a directory cannot be followed.
        """
        self._clock = clock
        self._carriers = str(settings) if settings.carriers else ""
        self.intake = Intake(trail, settings.verify, clock)
        if settings.state is not None:
            self.intake.hinter = Hinter(settings.state, clock)
        own = list(sinks)
        self._following = [
            Following(self.intake, directory, settings.positions, own, settings.backlog)
            for directory in settings.directories
        ]
        self.stream = AccessLogStream(self.intake) if settings.takes_streams else None
        """What a server takes streams with; None where none are taken."""
        self.refusals = AccessLogStream(self.intake)
        """What the port of rate limits takes streams with."""
        self._gaps = None
        if settings.admin:
            self._gaps = Gaps(self.intake, settings.admin, clock, _counts(settings))
        self._in_force = None
        if settings.admin and settings.state is not None:
            self._in_force = FiltersInForce(settings.state, settings.admin)

    def replace(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force."""
        self.intake.judge.replace(snapshot.engine, self._clock())

    def start(self, announce: Announce) -> list[asyncio.Task[None]]:
        """Begin, and say what is recorded; the tasks run until they are cancelled."""
        if self._carriers:
            announce(f"records   {self._carriers}")
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

    def is_behind(self) -> bool:
        """Whether more waits in a directory than may while others need the processor."""
        return any(one.is_behind for one in self._following)

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


def _counts(settings: AccessLogSettings) -> Path | None:
    """Beside the positions; None if only streams are taken and no place is named."""
    if settings.positions is not None:
        return settings.positions.with_name(settings.positions.name + ".counts")
    return settings.directories[0] / ".authz-counts.json" if settings.directories else None
