"""
Settings by room: what a room needs, as one value that it is handed whole.

Every setting is a field of exactly one section. A section reads the flat names of ``Settings``, which are those of
flags, environment and file; a file may also write a section, ``audit: {capacity: 100}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from authz.settings.audit_section import AuditSettings
from authz.settings.http_doors import HttpDoor
from authz.settings.section import Section


@dataclass(frozen=True, slots=True)
class PolicySettings(Section):
    """Where policies and the mesh's own settings are read and kept, and whether their loss is meant."""

    PREFIX = "policies"
    _OWN: ClassVar = ("mesh", "allow_empty", "archive", "candidate")
    FLAT: ClassVar[Mapping[str, str]] = {"path": "policies"} | dict(zip(_OWN, _OWN, strict=True))

    path: str
    mesh: Path | None
    allow_empty: bool
    archive: Path | None
    candidate: Path | None
    cache: Path | None = None
    fleet: str = ""
    public_keys: tuple[Path, ...] = ()
    signers: Path | None = None
    ca: Path | None = None
    headers: Path | None = None
    poll_seconds: float = 30

    @property
    def place(self) -> Path:
        """The path; where policies are published, whoever serves was given one in the cache instead."""
        return Path(self.path)


@dataclass(frozen=True, slots=True)
class ServerSettings(Section):
    """Where Envoy asks, what answers, in how many processes, and what it may send."""

    PREFIX = "server"
    FLAT = {  # noqa: RUF012  # the dataclass has it as a ClassVar
        "kind": "server",
        **{name: name for name in ("listen", "socket_mode", "workers", "max_message_bytes", "metadata_namespaces")},
    }

    listen: tuple[str, ...]
    socket_mode: str
    kind: Literal["auto", "grpcio", "envoy"]
    workers: int
    max_message_bytes: int
    metadata_namespaces: tuple[str, ...]

    @property
    def socket_permissions(self) -> int:
        """``socket_mode`` as a number."""
        return int(self.socket_mode, 8)


@dataclass(frozen=True, slots=True)
class AdminSettings(Section):
    """The operator's HTTP side; with an empty ``address`` there is none."""

    PREFIX = "admin"
    FLAT = {"address": "admin", "certificates": "certificates"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    address: str
    token_file: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    certificates: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class TlsSettings(Section):
    """The server's certificate on ``listen``; without one it speaks plaintext."""

    PREFIX = "tls"

    certificate: Path | None
    key: Path | None
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class DoorSettings(Section):
    """Doors in plain HTTP, for proxies that speak no gRPC; without any there is none."""

    PREFIX = "doors"
    FLAT = {"http": "http_doors"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    http: tuple[HttpDoor, ...]


@dataclass(frozen=True, slots=True)
class PeerSettings(Section):
    """The certificates of callers, judged on every request unless ``certificate`` is off."""

    PREFIX = "peer"

    certificate: Literal["off", "optional", "required"]
    trust_bundles: dict[str, str]
    revocations: Path | None


@dataclass(frozen=True, slots=True)
class TokenSettings(Section):
    """How large a token may be and how many verified ones are remembered."""

    PREFIX = "tokens"
    FLAT = {"max_bytes": "max_token_bytes", "cache_size": "token_cache_size"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    max_bytes: int
    cache_size: int


@dataclass(frozen=True, slots=True)
class KeySettings(Section):
    """Key sets that are fetched: how often, by which way, and how long the start waits for them."""

    PREFIX = "jwks"
    FLAT = {"timeout_seconds": "keys_timeout_seconds"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    refresh_seconds: float
    ca_bundles: dict[str, str]
    proxy: str
    timeout_seconds: float
    shared: str = ""


@dataclass(frozen=True, slots=True)
class TruthSettings(Section):
    """By what the servers of the fleet's truth and this one know each other."""

    PREFIX = "truth"

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str = ""


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
    backlog: int

    def __str__(self) -> str:
        """As a server says what it is going to record."""
        logs = f"{', '.join(self.carriers)}: access logs of proxies that enforce"
        return f"{logs}; {self.verify:.0%} of what is allowed decided again, and every denial"

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories whose logs are followed."""
        return tuple(Path(name.partition(":")[2]) for name in self.carriers if name.startswith("file:"))

    @property
    def listen(self) -> tuple[str, ...]:
        """Addresses of their own to which proxies send their records."""
        return tuple(name.partition(":")[2] for name in self.carriers if name.startswith("grpc:"))

    @property
    def on_listen(self) -> bool:
        """Whether proxies send their records to the addresses of the check."""
        return "grpc" in self.carriers

    @property
    def takes_streams(self) -> bool:
        """Whether proxies send their records at all."""
        return self.on_listen or bool(self.listen)


@dataclass(frozen=True, slots=True)
class RateLimitSettings(Section):
    """Where requests are counted for rate limits, and by whom; without ``listen`` nobody asks."""

    PREFIX = "rate_limit"
    FLAT = {"listen": "rate_limits"}  # noqa: RUF012  # the dataclass has it as a ClassVar

    listen: tuple[str, ...]
    store: str
    store_password: Path | None
    store_ca: Path | None


@dataclass(frozen=True, slots=True)
class DrainSettings(Section):
    """How a server stops: the delay until callers have gone elsewhere, then the time for requests that run."""

    PREFIX = "drain"

    delay_seconds: float
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class LogSettings(Section):
    """The operator's log on standard error."""

    PREFIX = "log"

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Sections:
    """All settings in sections, by the names that a file gives them; every setting is in exactly one."""

    policies: PolicySettings
    server: ServerSettings
    admin: AdminSettings
    tls: TlsSettings
    doors: DoorSettings
    peer: PeerSettings
    tokens: TokenSettings
    keys: KeySettings
    audit: AuditSettings
    truth: TruthSettings
    access_logs: AccessLogSettings
    rate_limits: RateLimitSettings
    otlp: OtlpSettings
    drain: DrainSettings
    log: LogSettings

    @classmethod
    def of(cls, settings: object) -> "Sections":
        """Take all settings apart."""
        parts: dict[str, Any] = {name: section.of(settings) for name, section in SECTIONS.items()}
        return cls(**parts)


SECTIONS: Mapping[str, type[Section]] = get_type_hints(Sections)
PATHS: Mapping[str, str] = {
    flat: f"{name}.{field}" for name, section in SECTIONS.items() for field, flat in section.flat_names().items()
}
"""Where a file may write a setting instead of by its flat name: ``audit.capacity``."""


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
