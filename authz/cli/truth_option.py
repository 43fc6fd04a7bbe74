"""By what a command and the servers of a fleet's truth know each other: ``--truth-ca`` and the others."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from authz.truth.truth_address import TruthAccess

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def truth_options(command: _Command) -> _Command:
    """Give a command the options; it gets what they say as its argument ``access``."""

    @functools.wraps(command)
    def called(
        *args: Any,
        truth_ca: Path | None,
        truth_cert: Path | None,
        truth_key: Path | None,
        truth_name: str,
        **others: Any,
    ) -> Any:
        return command(*args, access=TruthAccess(truth_ca, truth_cert, truth_key, truth_name), **others)

    for option in reversed(
        (
            click.option("--truth-ca", type=_PEM, help="For nats://…: PEM bundle that alone vouches for its servers."),
            click.option("--truth-cert", type=_PEM, help="PEM chain by which those servers know you."),
            click.option("--truth-key", type=_PEM, help="PEM key of it."),
            click.option("--truth-name", default="", help="DNS name of all of those servers, if it is not their host."),
        )
    ):
        called = option(called)
    return called  # type: ignore[return-value]  # it takes other arguments, which click alone gives
