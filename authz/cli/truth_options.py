"""The options of every command that asks the truth of a fleet: where it is, and by what its servers know us."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz.cli.bundle_contents import verifying_keys
from authz.cli.ca_files import load
from authz.core.errors import SettingsError
from authz.identity.announcing import own_svid
from authz.identity.peer_seal import PeerSeal
from authz.truth.truth_address import TruthAccess, read_truth_address

if TYPE_CHECKING:
    from authz.control.authority.authority_files import AuthorityFiles
    from authz.control.authority.common_state import CommonState
    from authz.sources.keys.key_sharing import KeySharing
    from authz.truth.truth_client import TruthClient  # nats is slow to import

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
_ACCESS = (
    click.option("--truth-ca", type=_PEM, help="PEM bundle that alone vouches for the servers of the truth."),
    click.option(
        "--truth-cert",
        type=_PEM,
        help="PEM certificate chain by which they know this client, an SVID; with --ca the authority's own by default.",
    ),
    click.option("--truth-key", type=_PEM, help="Its private key."),
    click.option(
        "--truth-name",
        default="",
        metavar="DNS",
        help="The name that every server's certificate has; by default each has that of its own host.",
    ),
)
_ADDRESS = click.option(
    "--truth",
    "truth_address",
    default="",
    metavar="URL",
    help="What a fleet has in common: nats://HOST:PORT[,HOST:PORT…]/FLEET.",
)
ENTRIES_PUBLIC_KEYS = click.option(
    "--entries-public-keys",
    "entries_keys",
    multiple=True,
    type=_PEM,
    help="With --truth: PEM of a key that must have signed entries and revocations; may be repeated.",
)
TRUTH_URL = click.option(
    "--to", "--truth", "url", required=True, metavar="URL", help="The truth of the fleet: nats://HOST:PORT[,…]/FLEET."
)
"""Where it is, for commands that do nothing without it."""


def truth_access(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the four options of TLS; its function gets them as one argument, ``access``."""

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

    for option in reversed(_ACCESS):
        with_access = option(with_access)
    return with_access


def truth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options, and one argument ``truth``: a ``TruthClient`` that is not begun yet, or None."""

    @wraps(command)
    def with_truth(*arguments: Any, truth_address: str, access: TruthAccess, **others: Any) -> Any:
        directory = others.get("directory")
        if truth_address and access.ca and not (access.certificate or access.key) and isinstance(directory, Path):
            load(directory)  # so that a missing file is reported as everywhere else
            certificate, key = own_svid(directory, time.time())
            access = replace(access, certificate=certificate, key=key)
        client = truth_client(truth_address, access)
        try:
            return command(*arguments, truth=client, **others)
        finally:
            if client is not None:
                client.stop()

    return _ADDRESS(truth_access(with_truth))


def truth_client(address: str, access: TruthAccess) -> "TruthClient | None":
    """The client of an address; None without one. Raises SettingsError, click.UsageError."""
    if not address:
        if access != TruthAccess():
            raise click.UsageError("--truth-ca, --truth-cert, --truth-key and --truth-name go with --truth")
        return None
    try:
        from authz.truth.truth_client import TruthClient
    except ModuleNotFoundError as error:
        raise SettingsError(f"--truth needs the extra `fleet`, `pip install 'authz-mesh[fleet]'`: {error}") from None
    return TruthClient(read_truth_address(address), access)


def common_state(
    truth: "TruthClient | None", files: "AuthorityFiles", entries_keys: tuple[Path, ...]
) -> "CommonState | None":
    """
    What an authority shares with others, if there is a truth.

    Raises SettingsError, click.UsageError, OSError, and BundleRefused for a key of another kind.
    """
    if truth is None:
        if entries_keys:
            raise click.UsageError("--entries-public-keys goes with --truth: files of one authority are not signed")
        return None
    from authz.control.authority.common_state import CommonState

    return CommonState(truth, files, verifying_keys(entries_keys))


def key_sharing(truth: "TruthClient | None") -> "KeySharing | None":
    """
    What controls share their key sets by, if there is a truth in which they can sign them: without TLS they cannot.

    Servers share theirs beside these (``jwks_shared``): what a server signs is no word for a control.
    """
    if truth is None or truth.access.ca is None or truth.access.certificate is None or truth.access.key is None:
        return None
    from authz.sources.keys.key_sharing import KeySharing
    from authz.truth.truth_key_store import TruthKeyStore

    signing = PeerSeal("key set", truth.access.ca, truth.access.certificate, truth.access.key)
    return KeySharing(TruthKeyStore(truth, signing, among="control", is_lent=True), clock=time.time)
