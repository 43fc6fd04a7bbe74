"""Rendered plain data as the text of a file: YAML for people, JSON (which is YAML) where nobody could read it all."""

import json
import re
from typing import Any

import yaml

from authz.envoy.options import HEADER, Listeners, RenderOptions
from authz.mesh.nouns import Mesh

READABLE_WORKLOADS = 100
"""Of a larger mesh the files are JSON: nobody reads them, and YAML would be most of the time of a rendering."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def resources_text(resources: list[dict[str, object]], mesh: Mesh, options: RenderOptions) -> bytes:
    """A discovery file with these resources."""
    return file_text({"resources": resources}, mesh, options)


def file_text(content: dict[str, object], mesh: Mesh, options: RenderOptions) -> bytes:
    """A file of a mesh, as Envoy reads it."""
    if options.poll_seconds:
        _poll(content, f"{options.poll_seconds:g}s")
    if len(mesh.workloads) > READABLE_WORKLOADS or options.listeners is Listeners.ADS:
        return HEADER + _ENCODER.encode(content).encode() + b"\n"
    return HEADER + readable_text(content).encode()


def readable_text(content: dict[str, object]) -> str:
    """Plain data as YAML that Envoy reads as it was meant."""
    made: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return made


def named_resources(content: bytes) -> list[dict[str, Any]]:
    """The resources of a file that was rendered; none where somebody has put something else there."""
    try:
        found = yaml.load(content, Loader=_Loader)  # noqa: S506  # it is a safe loader
    except yaml.YAMLError:
        return []
    resources = found.get("resources") if isinstance(found, dict) else None
    return [one for one in resources or () if isinstance(one, dict) and "name" in one]


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the fast one is not always built
    """Quotes a lone ``y`` or ``n``, too: Envoy's reader takes them for booleans, and a label would be lost."""

    def ignore_aliases(self, data: object) -> bool:
        """Nobody wants to read anchors."""
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), list("yYnN"))


def _poll(content: object, interval: str) -> None:
    """Ask for polling wherever a file is followed: on plain data, as envoy-data-plane lacks this field of 1.40."""
    if isinstance(content, list):
        for item in content:
            _poll(item, interval)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key == "path_config_source":
                value.pop("watched_directory", None)  # "cannot both be set"
                value["poll_interval"] = interval
            else:
                _poll(value, interval)
