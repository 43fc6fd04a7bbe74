"""
A record as one line for people: the demo's tail and ``authz audit tail``.

    12:00:00.123  DENY   productpage → ratings:9080  GET /ratings/0  403  deny bookinfo/deny-ratings/0 (deny.yaml:7) …

INVARIANT: what a client sent cannot move the cursor or colour the terminal; control characters are shown escaped.
"""

from authz.core.attributes import Json, read_field
from authz.core.decided import Record

EFFECT_STYLES = {"allow": "green", "deny": "bold red"}
"""rich styles of the effect, for callers that colour."""


def render_line(record: Record) -> str:
    """Render one record on one line without colours and without a newline."""
    return "  ".join(part for part in render_parts(record) if part)


def render_parts(record: Record) -> tuple[str, str, str, str, str, str]:
    """Render (time, effect, ``source → destination``, what was asked, why, decision id); columns of the table."""
    time = text(record.get("time"))
    return (
        time[11:23] if len(time) >= 23 else time,
        text(record.get("effect")).upper().ljust(5),
        f"{_source(record)} → {_destination(record)}",
        _asked(record),
        _why(record),
        text(record.get("decision_id")),
    )


def text(value: Json) -> str:
    """Show a scalar as JSON has it, without quotes; None is empty, and control characters are escaped."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = value if isinstance(value, str) else str(value)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _source(record: Record) -> str:
    principal = text(read_field(record, "source", "principal"))
    if principal:
        return short_principal(principal)
    address = text(read_field(record, "source", "ip"))
    name = text(read_field(record, "token", "subject")) or "anonymous"
    return f"{name}({address})" if address else name


def short_principal(principal: str) -> str:
    """Shorten ``td/ns/<namespace>/sa/<account>`` to ``<account>.<namespace>``; other identities stay whole."""
    parts = principal.split("/")
    if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
        return f"{parts[4]}.{parts[2]}"
    return principal


def _destination(record: Record) -> str:
    name = text(read_field(record, "destination", "workload")) or text(
        read_field(record, "destination", "service_account")
    )
    namespace = text(read_field(record, "destination", "namespace"))
    port = text(read_field(record, "destination", "port"))
    return f"{name or '?'}{'.' + namespace if namespace else ''}{':' + port if port else ''}"


def _asked(record: Record) -> str:
    if not isinstance(record.get("request"), dict):
        sni = text(record.get("sni"))
        return f"TCP {sni}".rstrip()
    method = text(read_field(record, "request", "method"))
    path = text(read_field(record, "request", "path"))
    return f"{method} {path if len(path) <= 80 else path[:79] + '…'}"


def _why(record: Record) -> str:
    parts = []
    status = text(record.get("status"))
    if status:
        parts.append(status)
    parts.append(text(record.get("reason")))
    file, line = text(read_field(record, "rule", "file")), text(read_field(record, "rule", "line"))
    if file:
        parts.append(f"({file}:{line})" if line not in ("", "0") else f"({file})")
    nearest = text(read_field(record, "nearest", "rule"))
    if nearest:
        parts.append(f"[nearest: {nearest}]")
    if record.get("audit"):
        parts.append("[audited]")
    effect, would_deny = record.get("effect"), record.get("would_deny")
    if would_deny is not None and would_deny != (effect == "deny"):
        by = text(record.get("by"))
        parts.append(f"[dry run: would {'deny' if would_deny else 'allow'}{' by ' + by if by else ''}]")
    return " ".join(part for part in parts if part)
