"""``authz serve``: the authorization server. Its flags are the settings; what it says goes to standard error."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from authz.core.errors import LoadError, SettingsError
from authz.service.app import run
from authz.settings import PREFIX, Settings, read_settings

Command = Callable[..., None]


def setting_flags(command: Command) -> Command:
    """Add one flag for each setting, in the order of the fields."""
    for name, field in reversed(Settings.model_fields.items()):
        command = _flag(name, field)(command)
    return command


def _flag(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    kind = _plain(field.annotation)
    several = get_origin(kind) is tuple
    if several:
        kind = get_args(kind)[0]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=click.Choice(choices) if choices else _TYPES.get(kind, str),
        multiple=several,
        help=f"{field.description}.  [{PREFIX}{name.upper()}; default: {_shown(field.default)}]",
    )


_TYPES: dict[Any, Any] = {int: int, float: float, Path: click.Path(path_type=Path)}


def _plain(annotation: Any) -> Any:
    """``Path`` of ``Path | None``."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default) if default not in (None, "", {}) else "none"


@click.command()
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file of settings by name.")
@setting_flags
def serve(config: Path | None, **flags: Any) -> None:
    """
    Answer Envoy's authorization checks.

    Every flag has a twin in the environment and in the file of --config; a flag wins over the environment, and that
    over the file. SIGTERM drains: health says NOT_SERVING, running checks are answered, then the server stops.
    """
    told = {name: value for name, value in flags.items() if value is not None and value != ()}
    try:
        settings = read_settings(told, file=config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    _log_to_stderr(settings)
    try:
        asyncio.run(run(settings, lambda line: click.echo(f"authz: {line}", err=True)))
    except LoadError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(f"authz: {error}; nothing is served", err=True)
        sys.exit(1)
    except SettingsError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(1)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**told, "message": super().format(record)})


def _log_to_stderr(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    line = _JsonLine if settings.log_format == "json" else logging.Formatter
    handler.setFormatter(
        line("%(message)s" if line is _JsonLine else "%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for library in ("httpx", "watchfiles"):  # whole URLs, and every change of a file
        logging.getLogger(library).setLevel(logging.WARNING)
