"""The settings of the audit trail: where records go, what they hold, and how they are kept."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from authz.settings.written_settings import read_sinks


class AuditFields(BaseModel):
    """Fields of ``Settings``."""

    audit: tuple[str, ...] = Field(
        default=("stdout",),
        description="sinks of decision records: stdout, file:PATH, otlp, nats://HOST:PORT[,…]/FLEET or none; several "
        "allowed",
    )
    audit_capacity: int = Field(default=8192, ge=1, description="how many records may wait in the queue")
    audit_on_full: Literal["drop", "deny"] = Field(
        default="drop",
        description="what happens to a request when the audit queue is full: it goes unrecorded, or is denied",
    )
    audit_flush_seconds: float = Field(
        default=0.05,
        gt=0,
        le=60,
        description="how often records reach the sinks: a killed process loses at most this much",
    )
    audit_redact: tuple[str, ...] = Field(
        default=(), description="fields to hide, as $.token.subject:hash (or :mask, :remove); several allowed"
    )
    audit_drop: tuple[str, ...] = Field(
        default=(),
        description="allowed requests not to record: request.path=/healthz*; denials are kept; several allowed",
    )
    audit_hash_key: Path | None = Field(default=None, description="file with the key of hashed fields")
    audit_query_values: tuple[str, ...] = Field(
        default=(), description="query parameters whose values are recorded; for all others only the names are"
    )
    audit_rotate_bytes: int = Field(
        default=100_000_000, ge=0, description="a file sink is rotated at this size; 0 never does"
    )
    audit_rotate_seconds: float = Field(
        default=86_400, ge=0, description="a file sink is rotated at this age; 0 never does"
    )
    audit_keep: int = Field(default=0, ge=0, description="rotated files kept; 0 keeps all")
    audit_compress: Literal["gzip", "none"] = Field(default="gzip", description="compression of rotated files")
    audit_sync: Literal["system", "disk"] = Field(
        default="system",
        description="`disk` waits for the disk at every flush, so that losing the machine loses no more than that",
    )
    audit_chain: Literal["off", "on"] = Field(
        default="off", description="link the records of file sinks by digests, for `authz audit verify`"
    )
    audit_signing_key: Path | None = Field(
        default=None, description="Ed25519 key, PEM, that signs checkpoints of the chain"
    )
    audit_spool: Path | None = Field(
        default=None,
        description="directory where records for nats://… are kept until the servers have them; they need one",
    )
    audit_spool_bytes: int = Field(
        default=256 << 20, ge=4096, description="the most that each worker keeps there; a full one is a failing sink"
    )

    @field_validator("audit", mode="before")
    @classmethod
    def _several_sinks(cls, value: object) -> object:
        """A list, or one text with commas as the environment gives it; an address of several servers has some, too."""
        return read_sinks(value) if isinstance(value, str) else value

    @field_validator("audit_redact", "audit_query_values", mode="before")
    @classmethod
    def _several_names(cls, value: object) -> object:
        """A list, or one text with commas as the environment gives it."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("audit_drop", mode="before")
    @classmethod
    def _several_rules(cls, value: object) -> object:
        """A list, or one text with semicolons: a rule has commas inside."""
        return tuple(part.strip() for part in value.split(";") if part.strip()) if isinstance(value, str) else value
