"""Checks 1, 2 and 8 of what ``authz serve`` was told: who can reach it, and what it does on failure."""

from collections.abc import Iterator
from ipaddress import ip_address

from authz.analysis.hardening.checklist import Finding
from authz.core.errors import Severity
from authz.settings.sections import AccessLogSettings
from authz.settings.settings import Settings


def is_local(address: str) -> bool:
    """Whether only this machine reaches ``host:port`` or a Unix socket."""
    if address.startswith(("unix:", "unix-abstract:", "/")):
        return True
    host = address.rpartition(":")[0].strip("[]").lower() or address
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def judge_settings(settings: Settings) -> Iterator[Finding]:
    """Yield what the settings of a server leave open."""
    for address in settings.listen:
        yield from _listener("listen", address, settings)
    for door in settings.http_doors:
        yield from _listener("http_doors", door.listen, settings)
    for address in AccessLogSettings.of(settings).listen:
        yield from _listener("access_logs", address, settings)
    yield from _admin(settings)
    yield from _failing(settings)


def _listener(setting: str, address: str, settings: Settings) -> Iterator[Finding]:
    where = f"setting `{setting}`: {address}"
    if is_local(address):
        if address.startswith("unix-abstract:") or not address.startswith("unix:"):
            yield Finding(
                1, where, "every user of this machine may use it",
                "listen on a Unix socket, `unix:/run/authz/authz.sock`, whose group is that of the Envoys",
                Severity.INFO,
            )  # fmt: skip
    elif settings.tls_certificate is None:
        yield Finding(
            1, where, "other machines may use it, and headers and tokens pass in plaintext",
            "set `tls_certificate`, `tls_key` and `tls_client_ca`, or listen on a Unix socket", Severity.ERROR,
        )  # fmt: skip
    elif settings.tls_client_ca is None:
        yield Finding(
            1, where, "whoever reaches the port speaks in anybody's name", "set `tls_client_ca` to the mesh's bundle",
            Severity.ERROR,
        )  # fmt: skip


def _admin(settings: Settings) -> Iterator[Finding]:
    where = f"setting `admin`: {settings.admin}"
    if not settings.admin or settings.admin.startswith("unix:"):
        return
    if is_local(settings.admin):
        if settings.admin_token_file is None and settings.admin_tls_client_ca is None:
            yield Finding(
                2, where, "every user of this machine may read it",
                "set `admin_token_file`, or listen on a Unix socket", Severity.INFO,
            )  # fmt: skip
    elif settings.admin_tls_certificate is None:
        yield Finding(
            2, where, "the token and all that is read pass in plaintext",
            "set `admin_tls_certificate` and `admin_tls_key`", Severity.ERROR,
        )  # fmt: skip


def _failing(settings: Settings) -> Iterator[Finding]:
    if settings.allow_empty:
        yield Finding(
            8, "setting `allow_empty`", "a directory that lost its policies denies nothing any more",
            "unset it; to allow everything on purpose write an ALLOW policy with `rules: [{}]`", Severity.ERROR,
        )  # fmt: skip
    if not settings.audit or set(settings.audit) == {"none"}:
        yield Finding(
            8, "setting `audit`", "decisions are not recorded", "set `audit`, `file:/var/log/authz/audit.jsonl`"
        )
    elif settings.audit_on_full == "drop":
        yield Finding(
            8, "setting `audit_on_full`: drop", "requests pass unrecorded while the queue is full",
            "set it to `deny` where every request must be on record", Severity.INFO,
        )  # fmt: skip
    if settings.peer_certificate == "optional":
        yield Finding(
            8, "setting `peer_certificate`: optional", "an identity without its certificate is believed",
            "set it to `required` when every Envoy has `include_peer_certificate`",
        )  # fmt: skip
