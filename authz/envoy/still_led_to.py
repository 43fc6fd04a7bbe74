"""Clusters that a proxy's present routes may still lead to, kept until its new routes are in force."""

import re
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(rb"^  name: (.+)$", re.MULTILINE)
_ITEM = b"\n- "


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
