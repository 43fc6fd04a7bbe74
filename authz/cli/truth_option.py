"""
By what a command and the truth of a fleet know each other: ``--truth-ca``, ``--truth-cert``, ``--truth-key``,
``--truth-name``.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from authz.truth.truth_address import TruthAccess

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--truth-ca", type=_PEM, help="PEM bundle that alone vouches for the servers of the truth."),
    click.option("--truth-cert", type=_PEM, help="PEM certificate chain by which they know this client, an SVID."),
    click.option("--truth-key", type=_PEM, help="Its private key."),
    click.option(
        "--truth-name",
        default="",
        metavar="DNS",
        help="The name that every server's certificate has; by default each has that of its own host.",
    ),
)

TRUTH_URL = click.option(
    "--to", "--truth", "url", required=True, metavar="URL", help="The truth of the fleet: nats://HOST:PORT[,…]/FLEET."
)
"""Where it is, for commands that do nothing without it."""


def truth_access(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the four options; its function gets them as one argument, ``access``."""

    @wraps(command)
    def with_access(
        *arguments: Any,
        truth_ca: Path | None,
        truth_cert: Path | None,
        truth_key: Path | None,
        truth_name: str,
        **others: Any,
    ) -> Any:
        return command(*arguments, access=TruthAccess(truth_ca, truth_cert, truth_key, truth_name), **others)

    for option in reversed(_OPTIONS):
        with_access = option(with_access)
    return with_access
