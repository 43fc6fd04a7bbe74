"""
The state directory of a mesh whose proxies run: what changed is put in place, what is no longer called stays a while.

A proxy reads one file after the other. A cluster that goes before the last route to it has gone would answer 503.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from authz.envoy.options import HEADER
from authz.envoy.rendered_files import left_over, write_files
from authz.envoy.rendered_text import named_resources

RETIRE_SECONDS = 2.0
"""How long a cluster stays that nothing leads to now: proxies that look only now and then have seen all by then."""


class Put(NamedTuple):
    """What was done, by names of files, and in how many seconds something remains to be done; None: nothing."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    again_seconds: float | None


class StateDirectory:
    """What was written into a state directory."""

    def __init__(
        self,
        out: Path,
        clock: Callable[[], float],
        *,
        settle_seconds: float = 0.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            out: the directory.
            clock: seconds.
            settle_seconds: in this time proxies have seen that a file changed. Those that watch see changes in their
                order; those that only look now and then may read a route before the cluster that it leads to.
            pause: waits.
        """
        self._out = out
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._pause = pause
        self._known: dict[str, bytes] = {}
        self._retiring: dict[str, float] = {}
        """Files with clusters that are to go: since when."""

    def put(self, files: Mapping[str, bytes]) -> Put:
        """
        Write the files that are not those of last time, and remove those that are no longer among them.

        Raises OSError; then everything is written again next time.
        """
        now = self._clock()
        known, self._known = self._known, {}
        wanted = dict(files)
        for name in files:
            if name.startswith("cds/") and known.get(name) is not files[name]:
                wanted[name] = self._with_retiring(name, files[name], known.get(name), now)
        changed = {name: content for name, content in wanted.items() if known.get(name) is not content}
        written: tuple[str, ...] = ()
        ahead = {
            name: content for name, content in changed.items() if name.startswith(("eds/", "eds-compose/", "cds/"))
        }
        if self._settle_seconds and any((self._out / name).is_file() for name in ahead if name.startswith("cds/")):
            written = write_files(self._out, ahead)
            if any(name.startswith("cds/") for name in written):
                self._pause(self._settle_seconds)
        written += write_files(self._out, changed)
        self._retiring = {name: since for name, since in self._retiring.items() if name in files}
        removed: tuple[str, ...] = ()
        if not self._retiring:
            removed = left_over(self._out, files)
            for name in removed:
                (self._out / name).unlink(missing_ok=True)
        self._known = wanted
        due = min(self._retiring.values(), default=None)
        return Put(written, removed, None if due is None else max(0.0, due + RETIRE_SECONDS - now))

    def _with_retiring(self, name: str, content: bytes, known: bytes | None, now: float) -> bytes:
        """The clusters of a proxy, and those that it had and that its routes may still lead to."""
        old = known if known is not None else _on_disk(self._out / name)
        new = named_resources(content)
        names = {resource["name"] for resource in new}
        gone = [resource for resource in named_resources(old) if resource["name"] not in names] if old else []
        since = self._retiring.setdefault(name, now)
        if not gone or not 0 <= now - since < RETIRE_SECONDS:
            del self._retiring[name]
            return content
        return HEADER + json.dumps({"resources": [*new, *gone]}).encode() + b"\n"


def _on_disk(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
