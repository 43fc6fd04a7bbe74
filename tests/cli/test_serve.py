"""``authz serve``: which variables of the environment are settings."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.cli.serve import environment
from authz.core.errors import SettingsError
from authz.settings.precedence import read_settings


@pytest.mark.parametrize(
    "name",
    [
        "AUTHZ_AUDIT_TAIL_LOG",
        "AUTHZ_AUDIT_SINCE_OUTPUT",
        "AUTHZ_CHECK_POLICIES",
        "AUTHZ_MESH_RENDER_OUT",
        "AUTHZ_DEMO_PORT_OFFSET",
        "AUTHZ_SERVE_LISTEN",
    ],
)
def test_the_options_of_commands_are_not_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert name not in environment()
    read_settings({}, environment=environment())


@pytest.mark.parametrize("name", ["AUTHZ_AUDIT", "AUTHZ_AUDIT_CAPACITY", "AUTHZ_MESH", "AUTHZ_POLICIES"])
def test_a_setting_counts_whatever_command_it_resembles(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "17")
    assert environment()[name] == "17"


@pytest.mark.parametrize(
    ("name", "near"), [("AUTHZ_AUDIT_ON_FUL", "audit_on_full"), ("AUTHZ_AUDIT_CAPCITY", "audit_capacity")]
)
def test_a_misspelt_setting_is_named_although_a_command_begins_alike(
    monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(name, "deny")
    with pytest.raises(SettingsError, match=f"did you mean `{near}`"):
        read_settings({}, environment=environment())


def test_a_variable_is_named_after_the_option_as_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``--log`` of ``authz audit tail``, whatever its argument is called in the code."""
    monkeypatch.setenv("AUTHZ_AUDIT_TAIL_LOG", str(tmp_path / "named.jsonl"))
    result = CliRunner().invoke(application, ["audit", "tail"])
    assert "named.jsonl" in result.output


def test_the_file_of_settings_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "authz.yaml").write_text("worker: 1\n")
    monkeypatch.setenv("AUTHZ_CONFIG", str(tmp_path / "authz.yaml"))
    result = CliRunner().invoke(application, ["serve"])
    assert result.exit_code == 2
    assert "unknown setting `worker`; did you mean `workers`?" in result.output
