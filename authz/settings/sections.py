"""
Settings by room: what a room needs, as one value that it is handed whole.

A section reads the flat names of ``Settings``, which are those of flags, environment and file; a file may also write
a section, ``audit: {capacity: 100}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the settings; its fields are ``<PREFIX>_<field>`` of ``Settings`` but where ``FLAT`` says otherwise."""

    PREFIX: ClassVar[str]
    FLAT: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def flat_names(cls) -> dict[str, str]:
        """The name in ``Settings`` of every field."""
        return {field.name: cls.FLAT.get(field.name, f"{cls.PREFIX}_{field.name}") for field in fields(cls)}

    @classmethod
    def of(cls, settings: object) -> Self:
        """Take the section out of all settings."""
        return cls(**{name: getattr(settings, flat) for name, flat in cls.flat_names().items()})


@dataclass(frozen=True, slots=True)
class TlsSettings(Section):
    """The server's certificate on ``listen``; without one it speaks plaintext."""

    PREFIX = "tls"

    certificate: Path | None
    key: Path | None
    client_ca: Path | None


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

    @property
    def files(self) -> tuple[Path, ...]:
        """The file sinks."""
        return tuple(Path(name.partition(":")[2]) for name in self.sinks if name.startswith("file:"))


@dataclass(frozen=True, slots=True)
class OtlpSettings(Section):
    """The OTLP endpoint of spans and records; ``endpoint`` is empty where there is none."""

    PREFIX = "otlp"
    FLAT = {"root_ratio": "trace_root_ratio"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    endpoint: str
    protocol: Literal["grpc", "http"]
    headers: Path | None
    ca: Path | None
    certificate: Path | None
    key: Path | None
    root_ratio: float


@dataclass(frozen=True, slots=True)
class AccessLogSettings(Section):
    """Records of proxies that enforce by themselves; without ``carriers`` there are none."""

    PREFIX = "access_log"
    FLAT = {"carriers": "access_logs"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    carriers: tuple[str, ...]
    positions: Path | None
    admin: str
    state: Path | None
    verify: float

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories whose logs are followed."""
        return tuple(Path(name.partition(":")[2]) for name in self.carriers if name.startswith("file:"))

    @property
    def takes_streams(self) -> bool:
        """Whether proxies send their records to ``listen``."""
        return "grpc" in self.carriers


SECTIONS: Mapping[str, type[Section]] = {
    "tls": TlsSettings,
    "audit": AuditSettings,
    "otlp": OtlpSettings,
    "access_logs": AccessLogSettings,
}
"""By the name that a file of settings gives them."""


def flatten(told: Mapping[str, Any]) -> dict[str, Any]:
    """
    Bring a file's sections to flat names; what no section has keeps its path, ``audit.sink``, for the error.

    A setting that stands there by both of its names is an error of the caller's: ValueError names it.
    """
    flat: dict[str, Any] = {}
    for name, value in told.items():
        names = SECTIONS[name].flat_names() if name in SECTIONS and isinstance(value, Mapping) else None
        parts = {name: value} if names is None else {names.get(k, f"{name}.{k}"): v for k, v in value.items()}
        for one in parts:
            if one in flat:
                raise ValueError(f"`{one}` is given twice, by itself and in its section")
        flat |= parts
    return flat
