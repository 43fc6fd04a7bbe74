"""Write rendered files below running proxies, whose routes must not lead to clusters that they do not know."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from authz.envoy.options import RenderOptions
from authz.envoy.rendered_files import write_files

WATCHED_SECONDS = 0.2
_NAME = re.compile(rb"^  name: (.+)$", re.MULTILINE)
_ITEM = b"\n- "


def settle_seconds(options: RenderOptions) -> float:
    """Tell in which time a proxy has read a changed file: one that watches soon, another one when it has looked."""
    return max(2 * options.poll_seconds, WATCHED_SECONDS)


def write_below_proxies(
    out: Path, files: Mapping[str, bytes], settle: float, pause: Callable[[float], None] = time.sleep
) -> tuple[str, ...]:
    """
    Write what is new or different, as ``write_files`` does, so that no request of a running proxy goes astray.

    Clusters come before the routes that lead to them, and go after the routes that led to them.

    Args:
        out: the state directory.
        files: all that was rendered, by name.
        settle: seconds; in this time a proxy sees that a file has changed; waited for only where it matters.
        pause: waits.

    Returns:
        The names written, each once. Raises OSError.
    """
    first = with_clusters_led_to(out, files)
    written = write_files(out, first)
    if any(name.startswith("cds/") for name in written):
        pause(settle)
    written += write_files(out, {name: content for name, content in files.items() if name not in first})
    if any(files[name] != content for name, content in first.items()):
        pause(settle)
        written += write_files(out, files)
    return tuple(dict.fromkeys(written))


def with_clusters_led_to(out: Path, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """
    Choose of rendered files those that come before routes; clusters that are in ``out`` and no longer rendered stay.

    A proxy takes every file for itself, in an order of its own: a route that leads to a cluster which is not there is
    answered 503.

    Args:
        out: the state directory, with what was rendered before.
        files: what was rendered now.

    Returns:
        Files of endpoints, secrets and clusters, by name. Raises OSError.
    """
    chosen = {}
    for name, content in files.items():
        kind = name.partition("/")[0]
        if kind == "cds":
            path = out / name
            chosen[name] = _joined(content, path.read_bytes()) if path.is_file() else content
        elif kind in ("eds", "eds-compose", "sds", "ecds"):
            chosen[name] = content
    return chosen


def _joined(now: bytes, before: bytes) -> bytes:
    """Append to a file of resources those of another whose names it lacks."""
    items, known = now.rstrip(b"\n").split(_ITEM), set(_NAME.findall(now))
    kept = [item for item in before.rstrip(b"\n").split(_ITEM)[1:] if not known.issuperset(_NAME.findall(item)[:1])]
    return _ITEM.join([*items, *kept]) + b"\n" if kept else now
