"""
The files of the page of a fleet, for a control plane to serve; what it shows is at ``/fleet/view``.

    GET /            the page; /static/… its scripts and styles, shared with the page of a server
"""

from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = ("base.css", "views.css", "icon.svg", "js/fleet.js", "js/api.js", "js/dom.js", "js/text.js")
_PATHS = {"/": "fleet.html", **{f"/static/{name}": name for name in _FILES}}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    content_type: str


def fleet_file(path: str) -> PageFile | None:
    """The file at a path; None where there is none. Raises OSError."""
    name = _PATHS.get(path)
    if name is None:
        return None
    file = STATIC / name
    return PageFile(file.read_bytes(), f"{_TYPES[file.suffix]}; charset=utf-8")
