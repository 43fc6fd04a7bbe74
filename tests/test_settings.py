"""Settings: defaults < file < environment < flags; unknown keys and bad values are named."""

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from authz.core.errors import SettingsError
from authz.settings.audit_section import AuditSettings
from authz.settings.precedence import read_settings
from authz.settings.section import Section
from authz.settings.sections import PATHS, SECTIONS, AccessLogSettings, Sections, flatten
from authz.settings.settings import Settings


def test_everything_has_a_default() -> None:
    settings = read_settings({}, environment={})
    assert settings == Settings()
    assert settings.listen == ("127.0.0.1:9191",)


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text("policies: from-file\nmesh: from-file\nlog_level: debug\nlisten: [unix:/a, unix:/b]\n")
    environment = {"AUTHZ_POLICIES": "from-env", "AUTHZ_MESH": "from-env", "AUTHZ_ADMIN": "", "PATH": "/bin"}
    settings = read_settings({"policies": Path("from-flag"), "mesh": None}, file=file, environment=environment)
    assert (settings.policies, settings.mesh, settings.log_level) == ("from-flag", Path("from-env"), "debug")
    assert settings.listen == ("unix:/a", "unix:/b")


@pytest.mark.parametrize(
    ("environment", "field", "expected"),
    [
        ({"AUTHZ_LISTEN": "unix:/a, 127.0.0.1:1"}, "listen", ("unix:/a", "127.0.0.1:1")),
        ({"AUTHZ_MAX_TOKEN_BYTES": "300"}, "max_token_bytes", 300),
        (
            {"AUTHZ_AUDIT": "stdout, nats://a:1,b:2/shop,file:x"},
            "audit",
            ("stdout", "nats://a:1,b:2/shop", "file:x"),
        ),
        ({"AUTHZ_JWKS_CA_BUNDLES": '{"https://i": "ca.pem"}'}, "jwks_ca_bundles", {"https://i": "ca.pem"}),
        (
            {"AUTHZ_JWKS_CA_BUNDLES": "https://i?a=b=ca.pem; j=k.pem"},
            "jwks_ca_bundles",
            {"https://i?a=b": "ca.pem", "j": "k.pem"},
        ),
        ({"AUTHZ_PEER_TRUST_BUNDLES": "mesh.test=a.pem,b.pem"}, "peer_trust_bundles", {"mesh.test": "a.pem,b.pem"}),
    ],
)
def test_texts_of_the_environment_become_values(environment: dict[str, str], field: str, expected: Any) -> None:
    assert getattr(read_settings({}, environment=environment), field) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AUTHZ_POLICY": "x"}, "unknown setting `policy`; did you mean `policies`?"),
        ({"AUTHZ_ZZZZ": "x"}, "unknown setting `zzzz`"),
        ({"AUTHZ_MAX_TOKEN_BYTES": "many"}, "setting `max_token_bytes`: input should be a valid integer"),
        ({"AUTHZ_MAX_TOKEN_BYTES": "1"}, "setting `max_token_bytes`: input should be greater than or equal to 256"),
        ({"AUTHZ_AUDIT_ON_FULL": "maybe"}, "setting `audit_on_full`: input should be 'drop' or 'deny'"),
        ({"AUTHZ_JWKS_CA_BUNDLES": "{"}, "setting `jwks_ca_bundles`: expected a JSON object"),
        ({"AUTHZ_JWKS_CA_BUNDLES": "ca.pem"}, "setting `jwks_ca_bundles`: `ca.pem` is neither NAME=FILE nor"),
        ({"AUTHZ_PEER_TRUST_BUNDLES": "a=x;a=y"}, "setting `peer_trust_bundles`: `a` is given twice"),
        ({"AUTHZ_LISTEN": "authz"}, "setting `listen`: `authz` is none of host:port, unix:/path and"),
        ({"AUTHZ_LISTEN": ":9191"}, "setting `listen`: `:9191` is none of"),
        ({"AUTHZ_LISTEN": "127.0.0.1:99999"}, "setting `listen`: `127.0.0.1:99999` is none of"),
        ({"AUTHZ_LISTEN": "localhost:http"}, "setting `listen`: `localhost:http` is none of"),
        ({"AUTHZ_LISTEN": "unix:"}, "setting `listen`: `unix:` is none of"),
        ({"AUTHZ_LISTEN": ","}, "setting `listen`: expected at least one address"),
        ({"AUTHZ_ADMIN": "15014"}, "setting `admin`: `15014` is neither host:port nor unix:/path"),
        ({"AUTHZ_ADMIN": "unix-abstract:authz"}, "setting `admin`: `unix-abstract:authz` is neither"),
        (
            {"AUTHZ_ACCESS_LOGS": "logs"},
            "setting `access_logs`: `logs` is neither file:DIR nor grpc:HOST:PORT nor grpc:unix:PATH nor grpc",
        ),
        ({"AUTHZ_ACCESS_LOGS": "grpc", "AUTHZ_SERVER": "envoy"}, "`grpc:HOST:PORT` or `grpc:unix:PATH`"),
        ({"AUTHZ_ACCESS_LOGS": "grpc", "AUTHZ_ACCESS_LOG_ADMIN": "http://{proxy}:15000"}, "needs `workers: 1`"),
        (
            {"AUTHZ_ACCESS_LOGS": "file:a,file:b", "AUTHZ_ACCESS_LOG_POSITIONS": "p"},
            "`access_log_positions` is for one directory",
        ),
        ({"AUTHZ_LISTEN": "none"}, "`listen: none` needs `access_logs`"),
        ({"AUTHZ_RATE_LIMITS": "unix:run/limits.sock"}, "`rate_limits` needs `mesh`"),
        ({"AUTHZ_RATE_LIMITS": "9292", "AUTHZ_MESH": "m.yaml"}, "setting `rate_limits`: `9292` is none of host:port"),
        ({"AUTHZ_RATE_LIMIT_STORE": "memcached://a"}, "setting `rate_limit_store`"),
        ({"AUTHZ_LISTEN": "none", "AUTHZ_ACCESS_LOGS": "grpc"}, "receives on `listen`, which is none"),
        ({"AUTHZ_LISTEN": "none", "AUTHZ_ACCESS_LOGS": "file:logs", "AUTHZ_SERVER": "envoy"}, "has nothing to host"),
        ({"AUTHZ_LISTEN": "none,127.0.0.1:9191"}, "setting `listen`: `none` is none of"),
        ({"AUTHZ_TLS_KEY": "k"}, "`tls_certificate` and `tls_key` must be given together"),
        ({"AUTHZ_TLS_CLIENT_CA": "k"}, "`tls_client_ca` needs"),
    ],
)
def test_what_is_wrong_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({}, environment=environment)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "not a mapping"),
        ("listen:\n- a: [", "authz.yaml`:2:7 is not YAML: "),
        ("polices: x", "did you mean `policies`?"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "authz.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"authz\.yaml|did you mean") as error:
        read_settings({}, file=file, environment={})
    assert message in str(error.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().log_level = "debug"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert Settings.model_fields[name].description


@pytest.mark.parametrize("section", SECTIONS.values())
def test_every_field_of_a_section_is_a_setting_of_the_same_type(section: type[Section]) -> None:
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    assert {flat: get_type_hints(section)[name] for name, flat in section.flat_names().items()} == {
        flat: kinds[flat] for flat in section.flat_names().values()
    }


def test_every_setting_is_in_one_section() -> None:
    flat_names = [flat for section in SECTIONS.values() for flat in section.flat_names().values()]
    assert sorted(flat_names) == sorted(Settings.model_fields)


@pytest.mark.parametrize(("name", "section"), SECTIONS.items())
def test_a_section_has_all_settings_of_its_prefix(name: str, section: type[Section]) -> None:
    wanted = {flat for flat in Settings.model_fields if flat == name or flat.startswith(f"{section.PREFIX}_")}
    assert wanted <= set(section.flat_names().values())


@pytest.mark.parametrize(("flat", "path"), PATHS.items())
def test_a_file_may_write_every_setting_by_both_of_its_names(flat: str, path: str) -> None:
    section, field = path.split(".")
    assert flatten({section: {field: "x"}}) == flatten({flat: "x"}) == {flat: "x"}


def test_a_file_may_write_a_section_or_flat_names(tmp_path: Path) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text("audit: {sinks: [none], capacity: 5}\naccess_logs: {carriers: [file:logs]}\nlog_level: debug\n")
    settings = read_settings({}, file=file, environment={"AUTHZ_AUDIT_CAPACITY": "6"})
    audit = AuditSettings.of(settings)
    assert (audit.sinks, audit.capacity, settings.log_level) == (("none",), 6, "debug")
    assert AccessLogSettings.of(settings).directories == (Path("logs"),)


def test_every_section_of_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text(
        "policies: {path: p, mesh: m}\nserver: {listen: [unix:/a], kind: grpcio}\nadmin: {address: unix:/b}\n"
        "peer: {certificate: optional, trust_bundles: {mesh.test: a.pem}}\ntokens: {max_bytes: 300}\n"
        "keys: {timeout_seconds: 1}\ndrain: {delay_seconds: 3}\nlog: {level: debug}\n"
    )
    parts = Sections.of(read_settings({}, file=file, environment={}))
    assert (parts.policies.path, parts.policies.place, parts.policies.mesh) == ("p", Path("p"), Path("m"))
    assert (parts.server.listen, parts.server.kind, parts.admin.address) == (("unix:/a",), "grpcio", "unix:/b")
    assert (parts.peer.certificate, parts.peer.trust_bundles) == ("optional", {"mesh.test": "a.pem"})
    assert (parts.tokens.max_bytes, parts.keys.timeout_seconds) == (300, 1)
    assert (parts.drain.delay_seconds, parts.log.level) == (3, "debug")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("audit: {sink: [none]}", "unknown setting `audit.sink`; did you mean `audit.sinks`?"),
        ("audit: {capacity: 5}\naudit_capacity: 6", "`audit_capacity` is given twice"),
        ("tls: {key: k}", "`tls_certificate` and `tls_key` must be given together"),
        ("otlp: {protocol: udp}", "setting `otlp_protocol`: input should be 'grpc' or 'http'"),
        # Of two, YAML's reader would take the last, be it the stricter or not:
        ("peer_certificate: required\npeer_certificate: 'off'", "authz.yaml`:2:1: `peer_certificate` is given twice"),
        ("audit: {capacity: 5}\naudit: {keep: 6}", "authz.yaml`:2:1: `audit` is given twice"),
        ("audit: {on_full: deny, on_full: drop}", "authz.yaml`:1:24: `on_full` is given twice"),
        ("server: {kind: envoy}\nserver: grpcio", "`server` is given twice"),
        ("audit: null", "setting `audit`: input should be a valid tuple"),
        ("audit: {capacity: {a: 1}}", "setting `audit_capacity`: input should be a valid integer"),
        ("tls: x", "unknown setting `tls`"),
        ("1: 2", "unknown setting `1`"),
        ("peer: {certificate: off}", "setting `peer_certificate`: input should be 'off', 'optional' or 'required'"),
        ("drain: {delay_seconds: .inf}", "setting `drain_delay_seconds`: input should be a finite number"),
        ("keys: {refresh_seconds: .inf}", "setting `jwks_refresh_seconds`: input should be a finite number"),
        (f"audit: {'[' * 500}", "is nested too deeply for settings"),
    ],
)
def test_what_is_wrong_in_a_section_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as error:
        read_settings({}, file=file, environment={})
    assert message in str(error.value)
