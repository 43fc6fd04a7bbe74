"""
The service's own settings: one frozen value, read once.

Defaults < file < ``AUTHZ_*`` environment < flags. Flags are derived from the fields; an unknown key is an error.
Rooms receive the values they need, never the whole. Secrets are named by file only.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from authz.settings.audit_fields import AuditFields
from authz.settings.http_doors import HttpDoors
from authz.settings.policy_fields import PolicyFields
from authz.settings.truth_fields import TruthFields
from authz.settings.written_settings import is_address, named_files


class Settings(PolicyFields, AuditFields, TruthFields, BaseSettings):
    """Every setting of ``authz serve``. A field's description is its flag's help."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    allow_empty: bool = Field(
        default=False,
        description="accept empty files, a set without policies, and changes that lose all policies or a mesh setting",
    )
    archive: Path | None = Field(default=None, description="directory that keeps what was in force, by version")
    candidate: Path | None = Field(default=None, description="policies that decide in shadow, once they are there")
    listen: tuple[str, ...] = Field(
        default=("127.0.0.1:9191",),
        description="where Envoy asks: host:port, unix:/path or unix-abstract:name; several allowed; none: nobody is "
        "answered, and access logs are recorded in a way that leaves the processor to the proxies",
    )
    socket_mode: str = Field(
        default="660",
        pattern="^0?[0-7]{3}$",
        description="permissions of Unix sockets, octal; 666 lets Envoys of any user ask",
    )
    server: Literal["auto", "grpcio", "envoy"] = Field(
        default="auto",
        description="what answers: grpcio in Python, an Envoy that hosts the workers, or the faster that works here",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="processes; 0: one for each core. The first has the addresses given, the next port + 1 or NAME-1",
    )
    admin: str = Field(
        default="", description="host:port or unix:/path for health, metrics and the admin page; empty serves none"
    )
    admin_token_file: Path | None = Field(
        default=None, description="file with the token that readers of `admin` must present; required beyond loopback"
    )
    admin_tls_certificate: Path | None = Field(
        default=None, description="PEM chain of `admin`, which then speaks HTTPS"
    )
    admin_tls_key: Path | None = Field(default=None, description="PEM key of `admin`")
    admin_tls_client_ca: Path | None = Field(
        default=None, description="PEM bundle; readers of `admin` must then present a certificate that it vouches for"
    )
    certificates: tuple[Path, ...] = Field(
        default=(),
        description="certificates whose expiry is shown and measured: directories of NAME/tls.crt, and an authority's "
        "issued.jsonl; several allowed",
    )

    http_doors: HttpDoors = Field(
        default=(),
        description="where proxies ask that speak no gRPC, each with `listen`, `kind`, `namespace`, `labels` "
        "(docs/other-proxies.md); a list of mappings, in the environment as JSON; the first worker opens them",
    )
    tls_certificate: Path | None = Field(default=None, description="PEM chain of the server; reread when it changes")
    tls_key: Path | None = Field(default=None, description="PEM key of the server")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM bundle; clients must then present a certificate that it vouches for"
    )

    peer_certificate: Literal["off", "optional", "required"] = Field(
        default="off",
        description="judge the caller's certificate on every request (include_peer_certificate); required refuses "
        "identities that come without one",
    )
    peer_trust_bundles: dict[str, str] = Field(
        default={},
        description="DOMAIN=FILE,FILE: a trust domain's roots and intermediates, PEM or SPIFFE bundle documents; "
        "reread when they change; several allowed, with semicolons or as JSON",
    )
    peer_revocations: Path | None = Field(
        default=None,
        description="serial numbers and SPIFFE IDs to refuse at once, one per line; reread when it changes",
    )

    max_message_bytes: int = Field(default=4 << 20, ge=4096, description="largest CheckRequest, body included (XA-52)")
    max_token_bytes: int = Field(default=16 << 10, ge=256, description="a longer token is refused unread")
    token_cache_size: int = Field(default=10_000, ge=1, description="verified tokens remembered")
    metadata_namespaces: tuple[str, ...] = Field(
        default=(),
        description="dynamic metadata that Envoy is configured to send (metadata_context_namespaces); other namespaces "
        "are unknown, which never admits a request; several allowed",
    )
    jwks_refresh_seconds: float = Field(default=1200, gt=0, description="refresh of key sets without Cache-Control")
    jwks_ca_bundles: dict[str, str] = Field(
        default={},
        description="ISSUER=FILE or KEY-URI=FILE: that source is verified by this PEM bundle only; "
        "several allowed, with semicolons or as JSON",
    )
    jwks_proxy: str = Field(
        default="",
        description="proxy for key sets and discovery, http://host:port; `none` for no proxy; by default that of the "
        "environment, HTTPS_PROXY and NO_PROXY",
    )
    jwks_shared: str = Field(
        default="",
        description="nats://HOST:PORT[,…]/FLEET where one server of the fleet fetches key sets for all; needs "
        "`truth_ca`, `truth_certificate` and `truth_key`, with which it signs them",
    )
    keys_timeout_seconds: float = Field(
        default=30,
        ge=0,
        description="how long the start waits for key sets; after that their tokens are refused; 0 waits for ever",
    )

    access_logs: tuple[str, ...] = Field(
        default=(),
        description="records of proxies that enforce by themselves: file:DIR follows their logs, grpc:ADDRESS receives "
        "them there, grpc alone on `listen` of grpcio; several allowed",
    )
    access_log_positions: Path | None = Field(
        default=None, description="file that records how far the logs were read; by default one in their directory"
    )
    access_log_admin: str = Field(
        default="",
        description="where {proxy} shows its counters, to find requests without a record: unix:run/{proxy}.admin.sock "
        "or http://{proxy}:15000; empty compares nothing",
    )
    access_log_state: Path | None = Field(
        default=None,
        description="directory of `authz mesh render --enforce native`: tokens that are refused for their key have the "
        "key set fetched; with `access_log_admin` a metric tells of proxies that run other filters than it holds",
    )
    access_log_verify: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of allowed requests that the engine decides again and compares; denials, audited requests "
        "and the first of each kind always are",
    )
    access_log_backlog: int = Field(
        default=256 << 20,
        ge=0,
        description="bytes of logs that may wait while others need the processor; beyond that, reading takes its share",
    )

    rate_limits: tuple[str, ...] = Field(
        default=(),
        description="where proxies have requests counted for the rate limits of `mesh` (docs/rate-limits.md): "
        "host:port, unix:/path or unix-abstract:name; several allowed; the first worker opens them",
    )
    rate_limit_store: str = Field(
        default="memory",
        pattern=r"^(memory$|rediss?://.|unix://.)",
        description="where requests are counted: redis://host:port/db, rediss://… with TLS, unix:///path, all of them "
        "shared by several servers, or memory, each server for itself",
    )
    rate_limit_store_password: Path | None = Field(default=None, description="file with the password of that Redis")
    rate_limit_store_ca: Path | None = Field(default=None, description="PEM bundle that alone vouches for that Redis")

    otlp_endpoint: str = Field(
        default="", description="OTLP endpoint for spans: http://host:4317, or unix:PATH for grpc; empty sends none"
    )
    otlp_protocol: Literal["grpc", "http"] = Field(default="grpc", description="protocol of the OTLP endpoint")
    otlp_headers: Path | None = Field(default=None, description="file with headers of OTLP calls, `name: value` lines")
    otlp_ca: Path | None = Field(default=None, description="PEM bundle that vouches for the OTLP endpoint")
    otlp_certificate: Path | None = Field(default=None, description="PEM client certificate for the OTLP endpoint")
    otlp_key: Path | None = Field(default=None, description="PEM key of that certificate")
    trace_root_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of decisions without a parent trace that are traced; others follow their parent",
    )

    drain_delay_seconds: float = Field(
        default=2,
        ge=0,
        description="seconds of NOT_SERVING before stopping: more than Envoy's health check interval (XA-127)",
    )
    drain_grace_seconds: float = Field(
        default=5, ge=0, description="seconds for requests that are still running when the server stops"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="level of the operator's log"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="form of the operator's log")

    @field_validator(
        "listen", "metadata_namespaces", "certificates", "access_logs",
        "rate_limits", mode="before",
    )  # fmt: skip
    @classmethod
    def _several(cls, value: object) -> object:
        """A list, or one text with commas as the environment gives it."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("jwks_ca_bundles", "peer_trust_bundles", mode="before")
    @classmethod
    def _bundles(cls, value: object) -> object:
        """``NAME=FILE``, several with semicolons or as a list, or a JSON object; the last ``=`` divides."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            return value
        found: dict[str, object] = {}
        for text in texts:
            for name, file in named_files(str(text)):
                if name in found:
                    raise ValueError(f"`{name}` is given twice")
                found[name] = file
        return found

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("expected at least one address, or none for a server that only records access logs")
        if value == ("none",):
            return ()
        for address in value:
            if not is_address(address):
                raise ValueError(f"`{address}` is none of host:port, unix:/path and unix-abstract:name")
        return value

    @field_validator("rate_limits")
    @classmethod
    def _limit_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not is_address(address):
                raise ValueError(f"`{address}` is none of host:port, unix:/path and unix-abstract:name")
        return value

    @field_validator("access_logs")
    @classmethod
    def _carriers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            kind, _, where = name.partition(":")
            if name != "grpc" and not (kind == "file" and where) and not (kind == "grpc" and is_address(where)):
                raise ValueError(f"`{name}` is neither file:DIR nor grpc:HOST:PORT nor grpc:unix:PATH nor grpc")
        return value

    @field_validator("admin")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and (value.startswith("unix-abstract:") or not is_address(value)):
            raise ValueError(f"`{value}` is neither host:port nor unix:/path")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what ``read_settings`` passes: file and flags are one mapping by then."""
        return (init_settings,)
