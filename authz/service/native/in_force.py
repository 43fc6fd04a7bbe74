"""Whether proxies run the filters that were rendered for them: each is asked every half minute."""

import asyncio
import logging
from pathlib import Path

import httpx

from authz.envoy.native import running_filters
from authz.service.native.proxies import ask_admin

_log = logging.getLogger("authz.native")
PAUSE_SECONDS = 30.0


class FiltersInForce:
    """``proxies``: by name of each proxy that has filters in the state directory and answered, whether it runs them."""

    def __init__(self, state: Path, where: str) -> None:
        """``where``: as the setting ``access_log_admin``."""
        self._state = state
        self._where = where
        self.proxies: dict[str, bool] = {}

    async def run(self) -> None:
        """Compare for ever."""
        while True:
            await self.compare()
            await asyncio.sleep(PAUSE_SECONDS)

    async def compare(self) -> None:
        """Compare every proxy once. Never raises: a proxy that does not answer is left out."""
        found: dict[str, bool] = {}
        try:
            for proxy in running_filters.rendered_proxies(self._state):
                slots = await self._slots(proxy)
                if slots is None:
                    continue
                found[proxy] = all(slot.is_in_force for slot in slots)
                if not found[proxy] and self.proxies.get(proxy, True):
                    wrong = "; ".join(f"{slot.name}: {slot.problem}" for slot in slots if slot.problem)
                    _log.warning("proxy %s does not run the filters rendered for it: %s", proxy, wrong)
        except OSError as error:
            _log.error("the filters in `%s` cannot be read: %s", self._state, error.strerror or error)
        self.proxies = found

    async def _slots(self, proxy: str) -> tuple[running_filters.Slot, ...] | None:
        try:
            running = running_filters.read_running(await ask_admin(self._where, proxy, running_filters.STATS))
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL):
            return None
        return running_filters.compare(running, running_filters.read_rendered(self._state, proxy))
