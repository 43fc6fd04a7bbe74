"""A server's own connections to the truth of its fleet, as its settings say."""

from typing import TYPE_CHECKING

from authz.core.errors import SettingsError
from authz.settings.sections import TruthSettings
from authz.truth.truth_address import TruthAccess, read_truth_address

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient


def truth_access(truth: TruthSettings) -> TruthAccess:
    """The files by which the servers of the truth and this one know each other."""
    return TruthAccess(truth.ca, truth.certificate, truth.key, truth.name)


def truth_client(setting: str, address: str, truth: TruthSettings) -> "TruthClient":
    """
    Make a client that is not begun yet.

    Raises:
        SettingsError: names the setting that has the address.
    """
    try:
        from authz.truth.truth_client import TruthClient
    except ModuleNotFoundError as error:
        raise SettingsError(f"setting `{setting}`: {address} needs `{error.name}`: `authz-mesh[fleet]`") from error
    try:
        return TruthClient(read_truth_address(address), truth_access(truth), name=f"authz {setting}")
    except SettingsError as error:
        raise SettingsError(f"setting `{setting}`: {error}") from error
