"""Lines of the access log as Envoy writes them."""

import json
from typing import Any

from authz.core.asked import Asked
from authz.core.attributes import Workload
from authz.envoy.native.record_log import Subject
from authz.wire.access_line import LineReader
from authz.wire.access_log import LogEntry

SUBJECT = Subject(
    Workload("bookinfo", frozenset({("app", "reviews")}), "reviews", "reviews-v1"),
    "reviews-v1",
    "inbound_9080",
    asked=Asked(("x-team", "cookie", ":path"), (("groups",),), ("envoy.filters.http.lua",)),
)


OWN = ("bytes_in", "direct", "duration", "id", "path", "remote", "start", "trace")


def line(**changes: Any) -> bytes:
    """A line as Envoy writes it, from facts by their names in a stream."""
    told: dict[str, Any] = {
        "authz": SUBJECT.who(),
        "bytes_in": 12,
        "claims": {"exp": None, "groups": None, "iss": None, "sub": None},
        "code": 200,
        "details": "via_upstream",
        "direct": "10.0.0.7:41000",
        "duration": 3,
        "headers": {"x-team": None},
        "host": "reviews:9080",
        "id": "38a37674",
        "local": "127.0.0.1:9080",
        "method": "GET",
        "path": "/reviews",
        "protocol": "HTTP/1.1",
        "rbac": {"enforced_engine_result": "allowed"},
        "remote": "203.0.113.9:0",
        "scheme": "http",
        "start": "1700000000.250000",
        **changes,
    }
    written = {name: value for name, value in told.items() if name not in OWN}
    for name in ("claims", "rbac", "metadata"):
        if isinstance(written.get(name), dict):
            written[name] = {key: as_text(value) for key, value in written[name].items()}
    for name in ("hint", "kid"):
        written[name] = as_text(written.get(name))
    own = {
        "~at": f"{told['start']} {told['duration']} {told['bytes_in']}",
        **{f"~{name}": told.get(name) for name in ("direct", "id", "path", "remote", "trace")},
    }
    return json.dumps({**written, **own}, separators=(",", ":")).encode()


def as_text(value: Any) -> str:
    """As Envoy writes metadata beside other text."""
    if value is None:
        return "=-"
    return f"={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"


def read_line(written: bytes) -> LogEntry:
    """Read one line by a reader that remembers none. Raises NotAnEntry."""
    return LineReader().read(written)


def read(**changes: Any) -> LogEntry:
    return read_line(line(**changes))
