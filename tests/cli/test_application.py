"""The command line as a whole: help, near misses, exit codes, streams."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from authz.cli import COMMANDS, application
from authz.cli.terminal import clean, print_json
from tests.cli.conftest import Run


def authz(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "authz", *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = authz("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "authz, version 0.1.0\n", "")


def test_help_names_every_command_and_loads_none(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom authz.cli import application\n"
        "application(['--help'], prog_name='authz', standalone_mode=False)\n"
        "print(sorted(name for name in sys.modules if name in ('rich', 'yaml', 'grpc', 'cryptography', 'httpx')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("[]\n")
    for name in ("validate", "check", "explain", "test"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", application.list_commands(click.Context(application)))
def test_every_command_has_help(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: authz {name} ")
    assert name in COMMANDS


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from commands(found, f"{name} {inner}")


EVERY = [pytest.param(command, id=name) for name, command in commands(application, "authz")]


@pytest.mark.parametrize("command", EVERY)
def test_every_command_shows_an_example_and_every_option_says_what_it_does(command: click.Command) -> None:
    assert "\b\n" in (command.help or ""), "examples stand in a block of their own"
    without = [option.opts for option in command.params if isinstance(option, click.Option) and not option.help]
    assert without == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["valdate"], "Error: no such command `valdate`; did you mean `validate`?"),
        (["xyzzy"], "Error: no such command `xyzzy`"),
        (["validate", "--mehs", "x", "."], "Error: No such option '--mehs'. Did you mean '--mesh'?"),
        (["validate"], "Error: Missing argument 'PATH...'."),
        (["check"], "Error: Missing option '--policies' / '-p'."),
        (["test", "--run", "(", "."], "Error: Invalid value for --run: `(` is not a regular expression"),
    ],
)
def test_wrong_usage_ends_with_two_and_offers_what_was_meant(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["validate", "nowhere"], ["check", "-p", "nowhere"], ["test", "nowhere"], ["audit", "tail", "--log", "nowhere"]],
)
def test_a_file_that_is_not_there_leaves_the_question_unanswered(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
    assert "Usage" not in result.stderr
    assert "Error:" not in result.stderr, "errors of the world begin with `error:`"


def test_options_can_be_given_in_the_environment(run: Run, policies: Path) -> None:
    result = run("validate", "policies", AUTHZ_VALIDATE_OUTPUT="json")
    assert result.exit_code == 0
    assert result.stdout.startswith("{")


def test_no_colour_without_a_terminal(policies: Path) -> None:
    done = authz("validate", "policies", cwd=policies.parent)
    assert (done.returncode, done.stdout) == (0, "2 policies in 1 file: ok\n")


def test_no_color_is_respected_where_colour_is_forced(policies: Path) -> None:
    coloured = authz("validate", "policies", cwd=policies.parent, FORCE_COLOR="1", TERM="xterm-256color")
    plain = authz("validate", "policies", cwd=policies.parent, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")
    assert "\x1b[32m" in coloured.stdout
    assert "\x1b[3" not in plain.stdout


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain ü", "plain ü"),
        ("bell\x07 escape\x1b[31m", "bell\\x07 escape\\x1b[31m"),
        ("turn \u202e round", "turn \\x202e round"),
        ("raw \udcff byte", "raw \\xff byte"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln!", "Bearer (token hidden)!"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", "(token hidden)"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_text_of_others_is_printed_as_text(text: str, printed: str) -> None:
    assert clean(text) == printed


def test_json_is_the_same_for_programs_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON escapes ESC by itself, and leaves the one-byte forms of it and changes of direction as they are."""
    value = {"path": "/\x1b[2J\x9b2J\u202e\x7f", "name": "Zoë"}
    print_json({**value})
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert not [letter for letter in printed if not letter.isprintable() and letter != "\n"]
    assert "Zoë" in printed


@pytest.mark.parametrize("name", ["validate", "check", "explain", "test", "analyze"])
def test_the_environment_twin_of_an_option_is_named_like_its_flag(name: str) -> None:
    command = application.get_command(click.Context(application), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option):
            flags = [flag.removeprefix("--").replace("-", "_") for flag in option.opts if flag.startswith("--")]
            assert option.name in flags
