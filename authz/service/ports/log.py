"""The operator's log: one form for the command and all of its workers."""

import json
import logging
import sys
from collections.abc import Callable

from authz.settings.sections import LogSettings

Announce = Callable[[str], None]
"""Called with one line of progress for people, when starting and stopping."""
_log = logging.getLogger("authz.log")


class _JsonLine(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__("%(message)s")
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        told = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        if self.worker is not None:
            told["worker"] = str(self.worker)
        return json.dumps({**told, "message": super().format(record)})


def set_log_level(level: str) -> None:
    """Change the level while the process runs: ``debug``, ``info``, ``warning`` or ``error``."""
    logging.getLogger().setLevel(level.upper())
    _log.log(max(logging.WARNING, logging.getLogger().level), "the log level is now %s", level)


def other_log_level(configured: str) -> str:
    """The level that SIGUSR2 brings: ``debug``, or back to the configured one."""
    if logging.getLogger().level == logging.DEBUG:
        return configured if configured != "debug" else "info"
    return "debug"


def log_to_stderr(settings: LogSettings, worker: int | None = None) -> None:
    """Send the log of every library there, in the form of the settings; ``worker`` numbers one of several."""
    handler = logging.StreamHandler(sys.stderr)
    place = "" if worker is None else f" worker {worker}"
    text = logging.Formatter(f"%(asctime)s %(levelname)s %(name)s{place}: %(message)s")
    handler.setFormatter(_JsonLine(worker) if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for library in ("httpx", "watchfiles"):  # whole URLs, and every change of a file
        logging.getLogger(library).setLevel(logging.WARNING)
