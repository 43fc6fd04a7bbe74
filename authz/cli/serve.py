"""``authz serve``: the authorization server. What it says goes to standard error."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from authz.cli import COMMANDS, application, name_variables
from authz.core.errors import LoadError, SettingsError
from authz.service.ports.giving_way import GivingWay
from authz.service.ports.log import log_to_stderr
from authz.service.workers.serving import run
from authz.settings.flags import TYPED, setting_flags
from authz.settings.precedence import PREFIX, read_settings
from authz.settings.sections import LogSettings
from authz.settings.settings import Settings

CONFIG = f"{PREFIX}CONFIG"
"""Names the file of settings, here as in an embedded server. It is not a setting itself."""

_Command = Callable[..., None]


def with_setting_flags(command: _Command) -> _Command:
    """Add the flags of those settings that have one, in the order of the fields."""
    for flag in reversed([flag for flag in setting_flags() if flag.name in TYPED]):
        kind: Any = click.Choice(flag.choices) if flag.choices else flag.kind
        name = f"--{flag.name.replace('_', '-')}"
        if kind is bool:
            option = click.option(name, flag.name, is_flag=True, default=None, help=flag.help)
        else:
            kind = click.Path(path_type=Path) if kind is Path else kind
            option = click.option(name, flag.name, type=kind, multiple=flag.several, help=flag.help)
        command = option(command)
    return command


def environment() -> dict[str, str]:
    """
    The process's environment without the options of commands, ``AUTHZ_AUDIT_TAIL_LOG``, which click reads itself.

    A setting's own name always counts. What is neither stays, so that a misspelt setting is named and not ignored.
    """
    return {name: value for name, value in os.environ.items() if name != CONFIG and not _is_option(name)}


def _config_of_environment() -> Path | None:
    return Path(os.environ[CONFIG]) if os.environ.get(CONFIG) else None


def _is_option(name: str) -> bool:
    """Only the command that a variable seems to belong to is loaded."""
    if name.removeprefix(PREFIX).lower() in Settings.model_fields:
        return False
    command = next((command for command in COMMANDS if name.startswith(f"{PREFIX}{command.upper()}_")), None)
    if command is None:
        return False
    found = application.get_command(click.Context(application), command)
    return found is not None and name in name_variables(found, f"{PREFIX}{command.upper()}")


class _Serve(click.Command):
    """Tells how a setting without a flag is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.removeprefix("--").replace("-", "_")
            if name not in Settings.model_fields:
                raise
            how = f"set {PREFIX}{name.upper()}, or `{name}` in the file of --config"
            raise click.UsageError(f"`{error.option_name}` is a setting without a flag: {how}", ctx) from error


@click.command(cls=_Serve)
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file of settings by name.  [AUTHZ_CONFIG]"
)
@with_setting_flags
def serve(config: Path | None, **flags: Any) -> None:
    """
    Answer Envoy's authorization checks.

    The flags are the settings that change from one start to the next. All settings (docs/operations.md lists them)
    can be given in the file of --config, and as AUTHZ_<SETTING> in the environment; a flag wins over the environment,
    and that over the file. SIGTERM drains: health says NOT_SERVING, running checks are answered, then the server stops.
    SIGHUP replaces several workers one after another, SIGUSR1 reopens audit files after they were rotated, SIGUSR2
    switches the log to debug and back.

    \b
    authz serve --policies policies/
    authz serve --policies policies/ --mesh mesh.yaml --listen unix:/run/authz/authz.sock --admin 127.0.0.1:15014
    authz serve --config authz.yaml --audit file:/var/log/authz/audit.jsonl
    AUTHZ_POLICIES=policies AUTHZ_WORKERS=1 authz serve
    """
    told = {name: value for name, value in flags.items() if value is not None and value != ()}
    try:
        settings = read_settings(told, file=config or _config_of_environment(), environment=environment())
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    log_to_stderr(LogSettings.of(settings))
    try:
        giving_way = GivingWay()
        giving_way.run(run(settings, lambda line: click.echo(f"authz: {line}", err=True), giving_way))
    except LoadError as error:
        click.echo(f"authz: {error}; nothing is served", err=True)  # each problem is in the log
        sys.exit(1)
    except SettingsError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(1)
