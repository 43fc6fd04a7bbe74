"""What was written for a noun, remembered by the noun's identity, and which nouns are too long for that."""

from collections.abc import Callable
from typing import Generic, TypeVar

from authz.core.attributes import Destination, Source, Token

MAX_REMEMBERED = 4096
MAX_WEIGHT = 16_384
"""Characters of nouns that are remembered together: certificates, labels and claims have no bound of their own."""
Noun = TypeVar("Noun")


class RememberedText(Generic[Noun]):
    """The text that was written for a noun, by identity: hashing one costs as much as writing it."""

    def __init__(self, write: Callable[[Noun], str]) -> None:
        self._write = write
        self._known: dict[int, tuple[Noun, str]] = {}

    def __call__(self, noun: Noun, is_kept: bool = True) -> str:
        """The text; ``is_kept``: whether it may be remembered."""
        found = self._known.get(id(noun))
        if found is not None:  # the reference that is kept makes the id unique
            return found[1]
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        text = self._write(noun)
        if is_kept:
            self._known[id(noun)] = (noun, text)
        return text


def weight(source: Source, destination: Destination, token: Token | None) -> int:
    """How many characters a request's certificate, its workload's labels and its token's claims have."""
    labels = sum(len(name) + len(value) for name, value in destination.workload.labels)
    return sum(map(len, source.identities)) + labels + (len(str(token.claims)) if token is not None else 0)
