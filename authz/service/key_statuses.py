"""Key sets, and issuers that are asked about tokens, as status and page show them; those within policies if faulty."""

import logging
from collections.abc import Iterable, Iterator

from authz.core.resources import JwtRule
from authz.sources.introspection.introspector import IntrospectionState
from authz.sources.keys.source import KeySourceStatus
from authz.telemetry.status import IntrospectionStatus, KeySetStatus
from authz.tokens.plan import faulty_inline_keys

_log = logging.getLogger("authz.app")


def fetched_status(key: KeySourceStatus) -> KeySetStatus:
    """A key set that is fetched, for the rooms that show it and know no sources."""
    return KeySetStatus(key.source, key.keys, key.fetched_at, key.last_error, key.fetches, key.failures, key.skipped)


def introspection_status(state: IntrospectionState) -> IntrospectionStatus:
    """An issuer that is asked about its tokens, for the same rooms."""
    return IntrospectionStatus(state.issuer, state.hits, state.misses, state.refusals, state.failures, state.error)


def inline_statuses(rules: Iterable[JwtRule], loaded_at: float) -> Iterator[KeySetStatus]:
    """Key sets within policies are shown where part of them is not used."""
    for name, state in faulty_inline_keys(rules).items():
        keys = state.key_set.keys if state.key_set is not None else ()
        skipped = state.key_set.skipped if state.key_set is not None else ()
        _log.warning("key set %s: not used: %s", name, "; ".join(skipped) or state.error)
        yield KeySetStatus(name, len(keys), loaded_at, state.error, skipped=skipped)
