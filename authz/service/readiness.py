"""What the start waits for before health says SERVING: the key sets."""

import logging

from authz.service.ports.log import Announce
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import KeySet
from authz.tokens.key_sets import KeySetState

_log = logging.getLogger("authz.app")


async def wait_for_keys(keys: KeySource[KeySet, KeySetState], patience: float, announce: Announce) -> None:
    """
    Return once every key set has been fetched, or after ``patience`` seconds with those that were; 0 waits for ever.

    One dead issuer must not keep a whole mesh down: its own tokens are refused, and health says so. Later trouble
    never takes readiness back.
    """
    if await keys.wait_ready(min(patience, 1.0) if patience else 1.0):
        return
    announce(f"waiting   for the key sets of {_missing(keys)}")
    while not await keys.wait_ready(patience or 60.0):
        if patience:
            _log.error("serving without the key sets of %s: their tokens are refused", _missing(keys))
            announce(f"missing   the key sets of {_missing(keys)}: their tokens are refused")
            return


def _missing(keys: KeySource[KeySet, KeySetState]) -> str:
    return ", ".join(key.source for key in keys.status() if key.fetched_at is None)
