"""What ``authz control --audit`` and ``--audit-settings`` come to, and what they refuse."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.cli.control_records import record_settings
from authz.core.errors import SettingsError
from authz.truth.truth_address import TruthAccess

KEEP = Path("kept")
TRUTH = TruthAccess(Path("ca.pem"), Path("own.pem"), Path("own.key"), "truth.example")


def written(folder: Path, text: str) -> Path:
    file = folder / "records.yaml"
    file.write_text(text)
    return file


def test_the_command_line_alone_is_enough() -> None:
    found = record_settings(("stdout", "nats://one.example/shop"), None, KEEP, TRUTH)
    assert found.audit.sinks == ("stdout", "nats://one.example/shop")
    assert found.audit.spool == KEEP / "audit-spool"
    truth = found.truth
    assert (truth.ca, truth.certificate, truth.key, truth.name) == (
        TRUTH.ca, TRUTH.certificate, TRUTH.key, TRUTH.name
    )  # fmt: skip


def test_a_file_says_the_rest_and_counts_where_the_command_line_says_nothing(tmp_path: Path) -> None:
    file = written(
        tmp_path, "audit: [stdout]\naudit_redact: [request.path]\naudit_spool: spool\naccess_log_verify: 1\n"
    )
    found = record_settings((), file, KEEP, None)
    assert (found.audit.sinks, found.audit.redact) == (("stdout",), ("request.path",))
    assert (found.audit.spool, found.access_logs.verify) == (Path("spool"), 1)
    assert record_settings(("otlp",), file, KEEP, None).audit.sinks == ("otlp",)


def test_a_truth_of_its_own_is_asked_by_its_own_certificate(tmp_path: Path) -> None:
    file = written(tmp_path, "truth_ca: other.pem\n")
    found = record_settings(("stdout",), file, KEEP, TRUTH)
    assert (found.truth.ca, found.truth.certificate) == (Path("other.pem"), None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("allow_empty: true\nworkers: 2\n", "`allow_empty`, `workers`: not about records"),
        ("audit_redact: [request.path]\n", "there is no `audit`, and no --audit"),
        ("audit_redakt: [request.path]\n", "audit_redact"),
        ("audit: [stdout]\naccess_log_verify: 2\n", "access_log_verify"),
        ("audit: [stdout\n", "records.yaml"),
        ("audit: [none]\n", "`none` would record nothing"),
    ],
)
def test_what_is_not_about_records_or_cannot_be_used_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        record_settings((), written(tmp_path, text), KEEP, None)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("sink", "complaint"),
    [
        ("sdtout", "`sdtout` is not a sink"),
        ("otlp", "otlp"),
        ("file:/proc/none/audit.jsonl", "`/proc/none/audit.jsonl` cannot be written"),
    ],
)
def test_a_sink_that_cannot_be_used_is_named_before_anything_is_served(
    tmp_path: Path, sink: str, complaint: str
) -> None:
    policies, mesh, ca, keep = (tmp_path / name for name in ("policies", "mesh.yaml", "ca", "keep"))
    policies.mkdir()
    mesh.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n")
    runner = CliRunner()
    made = runner.invoke(application, ["ca", "init", "--trust-domain", "mesh.test", "--ca", str(ca)])
    assert made.exit_code == 0, made.output
    told = {"--policies": policies, "--mesh": mesh, "--ca": ca, "--keep": keep, "--listen": "127.0.0.1:0"}
    arguments = (str(part) for pair in (told | {"--audit": sink}).items() for part in pair)
    done = runner.invoke(application, ["control", *arguments])
    assert done.exit_code == 1, done.output
    assert complaint in done.output
