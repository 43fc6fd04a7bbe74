"""Where a change of the root is made: at one authority, or at all of them (``common_roots``)."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from authz.cli.ca_files import load
from authz.control.authority.holders import HolderReport
from authz.identity.ca import CertificateAuthority
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import Issuance


class ChangedRoots(Protocol):
    """One change of the root, here or wherever the same trust domain has an authority."""

    def load(self) -> CertificateAuthority:
        """The authority as it is. Raises SettingsError."""

    def publish(self, change: Callable[[CertificateAuthority], CertificateAuthority]) -> CertificateAuthority:
        """Make the change. Raises ValueError when it cannot be made, SettingsError, OSError."""

    def wait(self, what: str, is_done: Callable[[Mapping[str, str]], bool]) -> None:
        """Wait for every other authority, given its states by id; exits with 3 and ``what`` those lack who are late."""

    def wait_for_holders(self, what: str, late: Callable[[HolderReport], tuple[str, ...] | None]) -> None:
        """
        Wait for every holder of an SVID, as ``authz ca join --watch`` tells; exits with 3 and those who are late.

        ``late`` is given what one authority reported; None: it has not looked for that yet.
        """

    def issued(self) -> Iterable[Issuance]:
        """What was signed and refused, oldest first."""


class OwnRoots:
    """Of an authority that is the only one."""

    def __init__(self, directory: Path) -> None:
        """``directory``: the authority's."""
        self._directory = directory

    def load(self) -> CertificateAuthority:
        """The authority as it is. Raises SettingsError."""
        return load(self._directory)

    def publish(self, change: Callable[[CertificateAuthority], CertificateAuthority]) -> CertificateAuthority:
        """Make the change. Raises ValueError, SettingsError, OSError."""
        changed = change(load(self._directory))
        changed.save(self._directory)
        return changed

    def wait(self, what: str, is_done: Callable[[Mapping[str, str]], bool]) -> None:
        """Nobody is waited for."""

    def wait_for_holders(self, what: str, late: Callable[[HolderReport], tuple[str, ...] | None]) -> None:
        """Their Envoys are asked instead."""

    def issued(self) -> Iterable[Issuance]:
        """Its own record."""
        return Ledger(self._directory / LEDGER_FILE).read()
