"""The section of the audit trail."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from authz.settings.section import Section


@dataclass(frozen=True, slots=True)
class AuditSettings(Section):
    """Records of decisions: where they go, what they hold, and how their files are kept."""

    PREFIX = "audit"
    FLAT = {"sinks": "audit"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    sinks: tuple[str, ...]
    capacity: int
    on_full: Literal["drop", "deny"]
    flush_seconds: float
    redact: tuple[str, ...]
    drop: tuple[str, ...]
    hash_key: Path | None
    query_values: tuple[str, ...]
    rotate_bytes: int
    rotate_seconds: float
    keep: int
    compress: Literal["gzip", "none"]
    sync: Literal["system", "disk"]
    chain: Literal["off", "on"]
    signing_key: Path | None
    spool: Path | None
    spool_bytes: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The file sinks."""
        return tuple(Path(name.partition(":")[2]) for name in self.sinks if name.startswith("file:"))
