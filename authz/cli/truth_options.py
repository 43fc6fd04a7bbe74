"""The options of every command that asks the truth of a fleet."""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz.cli.ca_files import load
from authz.core.errors import SettingsError
from authz.identity.announcing import own_svid

if TYPE_CHECKING:
    from authz.control.authority.authority_files import AuthorityFiles
    from authz.control.authority.common_state import CommonState
    from authz.truth.truth_client import TruthClient  # nats is slow to import

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--truth",
        "truth_address",
        default="",
        metavar="URL",
        help="What a fleet has in common: nats://HOST:PORT[,HOST:PORT…]/FLEET.",
    ),
    click.option("--truth-ca", type=_FILE, help="PEM bundle that alone vouches for the servers of --truth."),
    click.option(
        "--truth-cert", type=_FILE, help="Our certificate (PEM chain); with --ca the authority's own by default."
    ),
    click.option("--truth-key", type=_FILE, help="Its private key."),
    click.option("--truth-name", default="", help="DNS name that each of their certificates has, if not its host."),
)


def truth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and one argument ``truth``: a ``TruthClient`` that is not begun yet, or None."""

    @wraps(command)
    def with_truth(
        *arguments: Any,
        truth_address: str,
        truth_ca: Path | None,
        truth_cert: Path | None,
        truth_key: Path | None,
        truth_name: str,
        **others: Any,
    ) -> Any:
        directory = others.get("directory")
        if truth_address and truth_ca and not (truth_cert or truth_key) and isinstance(directory, Path):
            load(directory)  # so that a missing file is reported as everywhere else
            truth_cert, truth_key = own_svid(directory, time.time())
        truth = truth_client(truth_address, truth_ca, truth_cert, truth_key, truth_name)
        return command(*arguments, truth=truth, **others)

    wrapped: Callable[..., Any] = with_truth
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def truth_client(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None, name: str
) -> "TruthClient | None":
    """The client of an address; None without one. Raises SettingsError, click.UsageError."""
    if not address:
        if ca or certificate or key or name:
            raise click.UsageError("--truth-ca, --truth-cert, --truth-key and --truth-name go with --truth")
        return None
    try:
        from authz.truth.truth_address import TruthAccess, read_truth_address
        from authz.truth.truth_client import TruthClient
    except ModuleNotFoundError as error:
        raise SettingsError(f"--truth needs the extra `fleet`, `pip install 'authz-mesh[fleet]'`: {error}") from None

    return TruthClient(read_truth_address(address), TruthAccess(ca, certificate, key, name))


def common_state(truth: "TruthClient | None", files: "AuthorityFiles") -> "CommonState | None":
    """What an authority shares with others, if there is a truth."""
    if truth is None:
        return None
    from authz.control.authority.common_state import CommonState

    return CommonState(truth, files)
