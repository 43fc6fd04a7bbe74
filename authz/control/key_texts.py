"""Key sets as they were published, as text: what filters hold, once their keys were seen to be usable."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from authz.core.resources import JwtRule
from authz.envoy.native.key_hints import POLL_SECONDS, Hinted
from authz.envoy.proxy_parts import KeyTexts
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import read_key_set


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key set as it was published, and how many usable keys are in it."""

    text: str
    usable: int
    skipped: tuple[str, ...] = ()
    """Which keys of the set are not used and why, one line each."""

    def __len__(self) -> int:
        return self.usable


async def follow_hints(out: Path, keys: KeySource[KeyText, str]) -> None:
    """
    Fetch the keys again by which a refused token may be signed, until cancelled.

    Whoever reads the access logs says so in the state directory ``out``.
    """
    hinted = Hinted(out)
    while True:
        for source in hinted.new(keys.key_sets):
            keys.hint(source)
        await asyncio.sleep(POLL_SECONDS)


async def fetch_key_texts(
    rules: Iterable[JwtRule],
    *,
    clock: Callable[[], float],
    ca_bundles: Mapping[str, str] | None = None,
    timeout_seconds: float = 5.0,
) -> tuple[KeyTexts, tuple[str, ...]]:
    """
    Fetch the key sets that rules need, once.

    Returns:
        Texts by ``JwtRule.keys_from``, and one line for each source that did not answer in time or in due form.
    """
    source = KeySource[KeyText, str](read_key_text, text_of, clock=clock, ca_bundles=ca_bundles)
    source.update(rules)
    try:
        await source.wait_ready(timeout_seconds)
        missing = tuple(
            f"{key.source}: {key.last_error or f'no answer within {timeout_seconds:g} s'}"
            for key in source.status()
            if key.fetched_at is None
        )
        return {name: text for name, text in source.key_sets.items() if text}, missing
    finally:
        await source.close()


def read_key_text(text: str) -> KeyText:
    """Read a key set and count its usable keys. Raises ValueError for what is not a key set."""
    keys = read_key_set(text)
    return KeyText(text, len(keys), keys.skipped)


def text_of(keys: KeyText | None, _fetched_at: float | None, _error: str) -> str:
    """What a source hands on: the text, or nothing where it never came."""
    return keys.text if keys is not None else ""
