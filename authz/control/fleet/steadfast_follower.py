"""
A mesh followed that starts from what was last in force when what is in its place cannot be used.

What is in force is kept whole, soon after it came into force and when this ends. At a start that fails, the kept one is
served, with key sets as they are now, and what is in its place is tried again at each change.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from authz.control.canary_follower import CanaryFollower
from authz.control.kept_inputs import KEPT_FILE, InputPaths, KeptInputs
from authz.control.mesh_follower import MeshFollower
from authz.core.errors import LoadError
from authz.envoy.native.binary import EnvoyError
from authz.sources.policies.looking import Looker, State

KEEP_SECONDS = 3.0
"""How often what is new in force is kept."""
LOOK_SECONDS = 0.5
"""How often it is looked whether what could not be used has changed."""
AGAIN_SECONDS = 60.0
"""After so long it is tried without a change, too: an issuer that did not answer may have come back."""
UNUSABLE = (LoadError, EnvoyError, OSError)
"""What a follower raises that cannot start from what is there."""
log = logging.getLogger("authz.control.mesh")


class SteadfastFollower:
    """``start`` in a running event loop, then ``run`` until cancelled, then ``close``; as a ``MeshFollower``."""

    def __init__(
        self, make: Callable[[InputPaths], MeshFollower], paths: InputPaths, keep: Path, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            make: a follower of a mesh at these paths, not yet started.
            paths: where the mesh is.
            keep: the directory in which what was last in force is kept.
            say: is given one line for people.
        """
        self._make = make
        self._paths = paths
        self._kept = KeptInputs(keep)
        self._keep = keep
        self._say = say
        self._follower = make(paths)
        self._looker = Looker(list(paths.named().values()))
        self._tried: State | None = None
        self._why = ""
        self._kept_at = 0.0, 0.0

    async def start(self) -> None:
        """
        Begin with what is there, or else with what was last in force.

        Raises:
            LoadError: policies or description have problems, and nothing usable is kept.
            EnvoyError: Envoy refuses the filters, as before.
            OSError: a file cannot be read or written, as before.
        """
        self._tried = await asyncio.to_thread(self._looker.look)
        try:
            await self._follower.start()
        except UNUSABLE as error:
            await self._follower.close()
            await self._start_from_kept(error)
        await self._keep_if_new()

    @property
    def problem(self) -> str:
        """Why the mesh as it is now is not in force; empty when it is."""
        return self._why or self._follower.problem

    @property
    def read_at(self) -> float:
        """
        When the reading of what is in force began, seconds since the epoch: nothing that was there then is missing.

        0 while what was kept is served.
        """
        return 0.0 if self._why else min(self._follower.read_at)

    @property
    def canary(self) -> CanaryFollower:
        """The candidate beside what is followed now."""
        return self._follower.canary

    async def run(self) -> None:
        """Follow what changes, until cancelled."""
        if self._why:
            await self._serve_kept()
        keeping = asyncio.create_task(self._keep_current(), name="keep what is in force")
        try:
            await self._follower.run()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def close(self) -> None:
        """Stop following; what is in force is kept."""
        await self._follower.close()
        await self._keep_if_new()

    async def _start_from_kept(self, error: Exception) -> None:
        try:
            found = await asyncio.to_thread(self._kept.unpack)
        except OSError as broken:
            log.error("`%s` %s", broken.filename, broken.strerror)
            found = None
        if found is None:
            raise error
        kept = self._make(found)
        try:
            await kept.start()
        except UNUSABLE as also:
            await kept.close()
            log.error("what was last in force cannot be used either: %s", _said(also))
            raise error from None
        self._follower = kept
        self._refuse(error)
        self._say(f"KEPT      what was last in force ({self._keep / KEPT_FILE}) is served: {self._why}")

    def _refuse(self, error: Exception) -> None:
        self._why = _said(error)
        log.error("what is there cannot be used, and what was last in force is served: %s", self._why)

    async def _serve_kept(self) -> None:
        """Serve what was kept until what is there can be used."""
        kept = self._follower
        following = asyncio.create_task(kept.run(), name="what was last in force")
        try:
            while self._why:
                await self._change()
                fresh = self._make(self._paths)
                try:
                    await fresh.start()
                    self._follower, self._why = fresh, ""
                except UNUSABLE as error:
                    await fresh.close()
                    self._refuse(error)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await kept.close()
        self._say("taken     what is there can be used again")

    async def _change(self) -> None:
        """Wait until what is there is at rest and not as it was at the last try, or until it is time for another."""
        loop = asyncio.get_running_loop()
        latest, before = loop.time() + AGAIN_SECONDS, self._tried
        while loop.time() < latest:
            await asyncio.sleep(LOOK_SECONDS)
            found = await asyncio.to_thread(self._looker.look)
            if found == before and found != self._tried:
                break
            before = found
        self._tried = before

    async def _keep_current(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await self._keep_if_new()

    async def _keep_if_new(self) -> None:
        """Keep what is in force; that it cannot be kept is said and changes nothing."""
        read_at = self._follower.read_at
        if self._why or read_at == self._kept_at:
            return
        self._kept_at = read_at
        try:
            if not await asyncio.to_thread(self._kept.keep, self._paths, *read_at):
                log.info("what is in force is not kept: its files have changed since it was read")
        except OSError as error:
            log.error("what is in force is not kept: %s: %s", error.filename or self._keep, error.strerror or error)


def _said(error: Exception) -> str:
    problems = error.problems if isinstance(error, LoadError) else ()
    return "; ".join(str(one) for one in problems if one.is_error) or str(error)
