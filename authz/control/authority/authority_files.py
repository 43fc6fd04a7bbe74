"""Where all parts of an authority are that may change while it runs, and how they are read: all or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authz.control.authority.taken_rules import TAKEN_FILE, read_taken
from authz.control.federation.bundle_follower import bundle_file
from authz.core.errors import LoadError, Problem
from authz.core.spiffe import TrustDomain
from authz.identity.announcement import OTHERS_DIRECTORY
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import read_any_bundle
from authz.identity.ca import STATE_FILE
from authz.identity.federation import Relationship, read_relationships
from authz.identity.jwt_keys import JWT_KEYS_FILE
from authz.identity.registration import RegistrationEntry, read_entries
from authz.identity.revocation import NO_REVOCATIONS, Revocations, read_revocations

FEDERATED_DIRECTORY = "federated"
"""Below the authority's: bundles that were fetched, ``<trust domain>.json``."""


COMMON_DIRECTORY = "common"
"""Below the authority's: what all authorities have in common, as it was seen last."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may have what, and who else is trusted."""

    entries: tuple[RegistrationEntry, ...] = ()
    revocations: Revocations = NO_REVOCATIONS
    federated: tuple[TrustBundle, ...] = ()
    taken: Mapping[str, int] = field(default_factory=dict)
    """The numbers of the signed ones in common, by kind."""


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """``federated``: bundles that somebody else keeps current, PEM or SPIFFE documents."""

    directory: Path
    entries: Path | None = None
    revocations: Path | None = None
    federated: tuple[tuple[TrustDomain, Path], ...] = ()
    federation: Path | None = None
    """Relationships whose bundles are fetched from their endpoints, into ``FEDERATED_DIRECTORY``."""
    is_common: bool = False
    """Whether entries and revocations are also those that all authorities have in common; see ``common``."""

    @property
    def state_file(self) -> Path:
        """The list of authorities, written last in every change of them."""
        return self.directory / STATE_FILE

    @property
    def common(self) -> tuple[Path, Path]:
        """The entries and revocations in common, as they were seen last."""
        place = self.directory / COMMON_DIRECTORY
        return place / "entries.yaml", place / "revocations.txt"

    @property
    def taken(self) -> Path:
        """Which signed ones these are."""
        return self.directory / COMMON_DIRECTORY / TAKEN_FILE

    @property
    def entries_file(self) -> Path | None:
        """Entries of our own go before those in common."""
        return self.common[0] if self.entries is None and self.is_common else self.entries

    @property
    def revocation_files(self) -> tuple[Path, ...]:
        """What any of them revokes is revoked."""
        own = () if self.revocations is None else (self.revocations,)
        return (*own, self.common[1]) if self.is_common else own

    @property
    def others(self) -> Path:
        """What the other authorities announced: files that are renamed into place, so its own time tells."""
        return self.directory / OTHERS_DIRECTORY

    @property
    def jwt_keys(self) -> Path:
        """The keys of JWT-SVIDs."""
        return self.directory / JWT_KEYS_FILE

    @property
    def fetched(self) -> Path:
        """Where fetched bundles are kept."""
        return self.directory / FEDERATED_DIRECTORY

    def bundles(self, relationships: tuple[Relationship, ...]) -> list[tuple[TrustDomain, Path]]:
        """Every other trust domain's bundle; a fetched one may not be there yet."""
        return [*self.federated, *((r.trust_domain, bundle_file(self.fetched, r.trust_domain)) for r in relationships)]

    def watched(self, relationships: tuple[Relationship, ...]) -> list[Path]:
        """Every file whose change matters."""
        named = (self.entries_file, *self.revocation_files, *(path for _, path in self.bundles(relationships)))
        record = (self.taken,) if self.is_common else ()
        return [self.state_file, self.others, self.jwt_keys, *record, *(path for path in named if path is not None)]

    def read_relationships(self, own: TrustDomain) -> tuple[Relationship, ...]:
        """Read the relationships whose bundles are fetched. Raises LoadError, OSError."""
        if self.federation is None:
            return ()
        found, problems = read_relationships(str(self.federation), self.federation.read_bytes(), own)
        if problems:
            raise LoadError(problems)
        return found

    def read_rules(self, own: TrustDomain, relationships: tuple[Relationship, ...]) -> Rules:
        """Read entries, revocations and federated bundles. Raises LoadError, SettingsError, ValueError, OSError."""
        problems: tuple[Problem, ...] = ()
        entries: tuple[RegistrationEntry, ...] = ()
        revocations = NO_REVOCATIONS
        taken = read_taken(self.taken) if self.is_common else {}  # first: never newer than what is read below
        if self.entries_file is not None:
            entries, found = read_entries(str(self.entries_file), self.entries_file.read_bytes(), own)
            problems += found
        for file in self.revocation_files:
            more, found = read_revocations(str(file), file.read_text(errors="replace"))
            revocations |= more
            problems += found
        if problems:
            raise LoadError(problems)
        fetched = {r.trust_domain for r in relationships}
        bundles = [
            read_any_bundle(domain, path.read_bytes())
            for domain, path in self.bundles(relationships)
            if domain not in fetched or path.exists()
        ]
        return Rules(entries, revocations, tuple(bundles), {kind: one.number for kind, one in taken.items()})


class Changes:
    """Which files differ from those at the last look."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, ...]] = {}

    def look(self, paths: list[Path]) -> set[Path]:
        """Find what changed since the last look; at the first, everything that is there."""
        changed = set()
        for path in paths:
            state = _state(path)
            if self._seen.get(path, ()) != state:
                self._seen[path] = state
                changed.add(path)
        return changed


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
