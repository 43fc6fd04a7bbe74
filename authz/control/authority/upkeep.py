"""What an authority makes anew from time to time without being asked: keys of JWT-SVIDs, and its announcement."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.figures import Reload
from authz.identity.announcing import keep_announced
from authz.identity.jwt_keys import change_jwt_keys
from authz.identity.registrar import Registrar

log = logging.getLogger("authz.control.authority.server")  # the name that people search logs for


@dataclass(slots=True)
class Upkeep:
    """What fails is reported and tried again; what is there stays."""

    files: AuthorityFiles
    registrar: Registrar
    reload: Reload
    taken: Mapping[str, int] | None = None
    """Numbers of the signed entries and revocations in force; None: they were not read yet."""

    def keep_jwt_keys(self, now: float) -> bool:
        """Make the next key of JWT-SVIDs when it is due, and say whether there is something new."""
        if not self.reload.jwt_keys and self.registrar.jwt_keys.is_current(now):
            return False
        try:
            keys = change_jwt_keys(self.files.directory, lambda before: before.kept_current(now))
            self.reload.jwt_keys = ""
        except (ValueError, OSError) as error:
            if not self.reload.jwt_keys:
                log.error("the keys of JWT-SVIDs are not renewed: %s", error)
            self.reload.jwt_keys = str(error)
            return False
        is_new = keys != self.registrar.jwt_keys
        self.registrar.jwt_keys = keys
        return is_new

    def keep_announced(self, now: float) -> None:
        """Tell the other authorities what changed, and judges of lone leaves which intermediates sign."""
        ca = self.registrar.ca
        try:
            keep_announced(self.files.directory, ca, self.registrar.jwt_keys, now, self.taken)
            ca.save_intermediates(self.files.directory)
            self.reload.announcement = ""
        except (ValueError, OSError) as error:
            if not self.reload.announcement:
                log.error("the other authorities are not told of a change: %s", error)
            self.reload.announcement = str(error)
