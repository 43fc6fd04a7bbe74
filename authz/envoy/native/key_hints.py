"""
Hints that an issuer may have new keys: from the record of refusals to whoever renders key sets into filters.

Native filters cannot ask for a refresh when a token names a key that they do not know (RA-38). Whoever reads their
access logs can tell, and touches a file for the key set in the state directory; ``authz mesh render --watch`` looks
there and fetches the set, no more often than for a check.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from authz.core.resources import JwtRule
from authz.tokens.token_refusals import NO_MATCHING_KEY_BODY, VERIFICATION_FAILS_BODY

FOLDER = "hints"
POLL_SECONDS = 0.25
AGAIN_SECONDS = 1.0
"""Least time between two hints about one key set."""
_DETAILS = frozenset(
    f"jwt_authn_access_denied{{{body.replace(' ', '_')}}}" for body in (NO_MATCHING_KEY_BODY, VERIFICATION_FAILS_BODY)
)


def is_of_unknown_key(details: str) -> bool:
    """Whether response code details tell of a token that a newer key set might verify."""
    return details in _DETAILS


class Hinter:
    """Leaves hints in a state directory. ``problem`` says why it cannot; empty where it can."""

    def __init__(self, state: Path, clock: Callable[[], float]) -> None:
        """``clock``: seconds."""
        self._folder = state / FOLDER
        self._clock = clock
        self._left: dict[str, float] = {}
        self.problem = ""

    def hint(self, rules: Iterable[JwtRule]) -> None:
        """Leave a hint for each key set that is fetched for these rules. Never raises."""
        for name in {rule.keys_from for rule in rules if not rule.jwks}:
            now = self._clock()
            if now - self._left.get(name, float("-inf")) < AGAIN_SECONDS:
                continue
            self._left[name] = now
            try:
                self._folder.mkdir(exist_ok=True)
                (self._folder / _file(name)).touch()
                self.problem = ""
            except OSError as error:
                self.problem = f"{error.filename or self._folder}: {error.strerror or error}"


class Hinted:
    """Reads hints; each is reported once, and none that was there before."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._seen = self._look()

    def new(self, sources: Iterable[str]) -> list[str]:
        """Those of the key sets (``JwtRule.keys_from``) about which there was a hint since the last call."""
        found, before = self._look(), self._seen
        self._seen = found
        return [name for name in sources if found.get(_file(name), 0) > before.get(_file(name), 0)]

    def _look(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_mtime_ns
        return found


def _file(keys_from: str) -> str:
    """The name of a key set is a URL, which may hold anything."""
    return sha256(keys_from.encode()).hexdigest()[:32]
