"""
The processes of ``authz serve``: one worker in this process, or a supervisor with its workers and their administration.

A supervisor holds no policies, so what only a worker needs is imported late.
"""

import asyncio
import signal
from collections.abc import Callable

from authz.service.ports.giving_way import GivingWay
from authz.service.ports.log import Announce
from authz.service.ports.signals import on_signals
from authz.service.ports.waiting import first_done
from authz.service.workers.addresses import worker_count
from authz.service.workers.choose import choose_server
from authz.service.workers.line import REOPEN
from authz.service.workers.published import published_policies
from authz.service.workers.supervisor import Supervisor
from authz.settings.sections import AdminSettings
from authz.settings.settings import Settings


async def run(settings: Settings, announce: Announce, giving_way: GivingWay) -> None:
    """
    Serve until SIGTERM, SIGINT or SIGQUIT, with as many workers as the settings say; SIGHUP rolls them.

    SIGUSR1 lets all workers reopen audit files, SIGUSR2 switches the log level of all to debug and back.

    Args:
        giving_way: what runs this; a server that only records tells it to begin.

    Raises:
        LoadError, SettingsError: the start failed.
    """
    with published_policies(settings, announce) as settings:
        await _serve(settings, announce, giving_way)


async def _serve(settings: Settings, announce: Announce, giving_way: GivingWay) -> None:
    """The same for policies that are at a path."""
    settings, why = choose_server(settings)
    if why:
        announce(f"server    {why}")
    if settings.server == "grpcio" and (worker_count(settings) == 1 or not settings.listen):
        from authz.service.app import run as run_in_process  # 40 MB that a supervisor never uses

        await run_in_process(settings, announce, giving_way)
        return
    from authz.service.workers.admin import WorkersAdmin  # needs httpx, which a single worker may never

    supervisor = Supervisor(settings, announce)
    admin: WorkersAdmin | None = None
    stopping, at_once = asyncio.Event(), asyncio.Event()
    others: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGHUP: supervisor.roll_soon,
        signal.SIGUSR1: lambda: supervisor.tell(REOPEN),
        signal.SIGUSR2: supervisor.switch_log_level,
    }
    on_signals(lambda: (at_once if stopping.is_set() else stopping).set(), others, announce)
    try:
        if settings.admin:
            admin = WorkersAdmin(supervisor.workers, AdminSettings.of(settings), lambda: supervisor.is_draining)
            await admin.start()
            announce(f"admin     {admin.url}/healthz")
        if await first_done(supervisor.start(), stopping.wait()):
            announce(f"ready     {len(supervisor.workers)} workers serve")
            await stopping.wait()
        announce("draining  health is NOT_SERVING, press again to stop at once")
        if not await first_done(supervisor.stop(), at_once.wait()):
            await supervisor.stop(drain=False)
        announce("stopped")
    except BaseException:
        await supervisor.stop(drain=False)
        raise
    finally:
        if admin is not None:
            await admin.stop()
