"""Key sets within policies, as status and page show them where something of them is not used."""

import logging
from collections.abc import Iterable, Iterator

from authz.core.resources import JwtRule
from authz.telemetry.status import KeySetStatus
from authz.tokens.plan import faulty_inline_keys

_log = logging.getLogger("authz.app")


def inline_statuses(rules: Iterable[JwtRule], loaded_at: float) -> Iterator[KeySetStatus]:
    """Key sets within policies are shown where something of them is not used."""
    for name, state in faulty_inline_keys(rules).items():
        keys = state.key_set.keys if state.key_set is not None else ()
        skipped = state.key_set.skipped if state.key_set is not None else ()
        _log.warning("key set %s: not used: %s", name, "; ".join(skipped) or state.error)
        yield KeySetStatus(name, len(keys), loaded_at, state.error, skipped=skipped)
