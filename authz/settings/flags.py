"""Settings as a command line and the documentation show them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from authz.settings.precedence import PREFIX
from authz.settings.settings import Settings

TYPED = frozenset({
    "policies", "policies_cache", "policies_fleet", "policies_public_keys", "policies_signers",
    "mesh", "allow_empty", "archive", "candidate", "listen", "server", "workers", "admin", "certificates",
    "audit", "log_level", "peer_certificate", "peer_trust_bundles", "peer_revocations", "otlp_endpoint",
    "drain_delay_seconds", "access_logs", "access_log_positions", "access_log_admin", "access_log_state",
    "admin_token_file", "tls_certificate", "tls_key", "tls_client_ca", "audit_on_full", "audit_chain", "log_format",
    "audit_spool", "truth_ca", "truth_certificate", "truth_key", "truth_name",
    "rate_limits", "rate_limit_store",
})  # fmt: skip
"""Settings that have a flag: what changes from start to start, or makes one safe. The others belong in a file."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as a command line or the documentation shows it."""

    name: str
    kind: type
    """The type of one value: str, bool, int, float or Path."""
    several: bool
    choices: tuple[str, ...]
    help: str


_NOTHING = ("", "None", "{}", "False")
"""Defaults that are not worth showing."""


def setting_flags() -> Iterator[Flag]:
    """Describe every setting, those without a flag included, in the order of the fields."""
    for name, field in Settings.model_fields.items():
        kind: Any = field.annotation
        if get_origin(kind) in (Union, UnionType):  # `Path | None`
            kind = next(part for part in get_args(kind) if part is not type(None))
        several = get_origin(kind) in (tuple, dict)
        if several:
            kind = get_args(kind)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        shown = ",".join(field.default) if several else str(field.default)
        yield Flag(
            name,
            kind if kind in (bool, int, float, Path) else str,
            several,
            choices,
            f"{field.description}.  [{PREFIX}{name.upper()}{f'; default: {shown}' if shown not in _NOTHING else ''}]",
        )
